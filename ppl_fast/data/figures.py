"""Drawn articulated figures: a data set to learn from where no footage is at hand, with labels to measure by."""

import os
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image
from tqdm import tqdm

from ppl_fast._console import no_bar
from ppl_fast._files import is_taken, new_folder
from ppl_fast._options import integer
from ppl_fast.data import animal, person
from ppl_fast.data.backgrounds import ground_shadow
from ppl_fast.data.drawing import Canvas
from ppl_fast.data.labels import LABEL_FILE, Labels

KINDS: dict[str, ModuleType] = {"person": person, "animal": animal}
# difficulty -> (number of backgrounds, number of outfits); None draws a new one for each image.
DIFFICULTIES = {"lab": (1, 4), "studio": (6, 8), "wild": (None, None)}
SPLITS = ("train", "validation", "test")
SMALLEST_SIZE = 32
# In units of the image side: how far joints stay from the border, and how the figures vary in place and size.
_MARGIN, _SCATTER, _SCALES = 0.05, (0.048, 0.034), (0.92, 1.08)


def make_figures(
    directory: str | os.PathLike[str],
    count: int,
    size: int = 64,
    seed: int = 0,
    kind: str = "person",
    difficulty: str = "lab",
    split: str = "train",
    masks: str | os.PathLike[str] | None = None,
) -> Labels:
    """Draw figures in random poses as PNG files, with their joints in `keypoints.npz`.

    The same arguments give the same bytes, and the first figures of a larger `count` are those of a smaller one.
    Backgrounds and outfits follow from `seed`, `kind` and `difficulty` alone, so that the splits of one seed
    share them; poses follow from `seed` and `split`.

    Args:
        directory: new or empty folder; it appears whole or not at all.
        count: number of images.
        size: pixels a side, at least 32.
        seed: any non-negative integer.
        kind: "person" (front view) or "animal" (four legs, side view).
        difficulty: "lab" (one background, 4 outfits), "studio" (6 shifted backgrounds, 8 outfits) or
            "wild" (background and outfit new in each image).
        split: "train", "validation" or "test".
        masks: another new or empty folder, for an image of the mask of each, white where the figure is.

    Returns:
        The labels that were written.

    Raises:
        ValueError: an argument out of range, or a directory that holds something.
    """
    directory = Path(directory)
    for name, value, allowed in (
        ("kind", kind, KINDS),
        ("difficulty", difficulty, DIFFICULTIES),
        ("split", split, SPLITS),
    ):
        if value not in allowed:
            raise ValueError(f"make_figures: {name} must be one of {', '.join(allowed)}, got {value!r}")
    count = integer("make_figures", "count", count, low=1)
    size = integer("make_figures", "size", size, low=SMALLEST_SIZE)
    seed = integer("make_figures", "seed", seed, low=0)
    for folder in (directory, *([] if masks is None else [Path(masks)])):
        if is_taken(folder):
            raise ValueError(f"make_figures: {folder} must be new or an empty folder, but it holds something")
    if masks is not None and Path(masks).resolve().is_relative_to(directory.resolve()):
        raise ValueError(f"make_figures: masks must lie outside of {directory}, got {masks}")
    with new_folder(directory) as partial, nullcontext() if masks is None else new_folder(Path(masks)) as beside:
        artist = Artist(size, seed, kind, difficulty, split)
        files = [f"{kind}_{i:06d}.png" for i in range(count)]
        keypoints = np.empty((count, len(KINDS[kind].NAMES), 2))
        for i, file in enumerate(tqdm(files, desc="drawing figures", unit="", leave=False, disable=no_bar())):
            image, keypoints[i], mask = artist.draw(i)
            Image.fromarray(image).save(partial / file, compress_level=1)  # 8 % larger files in a third of the time
            if beside is not None:
                Image.fromarray(mask).save(beside / file)
        visible = np.ones(keypoints.shape[:2], dtype=bool)
        labels = Labels(files, keypoints, visible, KINDS[kind].NAMES, KINDS[kind].SKELETON)
        labels.save(partial / LABEL_FILE)
    return labels


class Artist:
    """Draws the i-th figure of a set; see `make_figures` for the arguments."""

    def __init__(self, size: int, seed: int, kind: str, difficulty: str, split: str):
        self.size, self.seed, self.kind, self.wild = size, seed, KINDS[kind], difficulty == "wild"
        self.split, self.shifts = SPLITS.index(split), difficulty == "studio"
        rng = np.random.default_rng([seed, list(KINDS).index(kind), list(DIFFICULTIES).index(difficulty)])
        scenes, outfits = DIFFICULTIES[difficulty]
        self.scenes = [self._scene(rng) for _ in range(scenes or 0)]
        self.outfits = [self.kind.outfit(rng) for _ in range(outfits or 0)]

    def draw(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """uint8 image (S, S, 3); its joints (J, 2), (x, y) in pixels, integers at pixel centres; bool mask (S, S)."""
        joints = _place(self.kind, np.random.default_rng([self.seed, self.split, index, 0]))
        rng = np.random.default_rng([self.seed, self.split, index, 1])
        outfit = self.kind.outfit(rng) if self.wild else self.outfits[rng.integers(len(self.outfits))]
        scene = self._scene(rng) if self.wild else self.scenes[rng.integers(len(self.scenes))]
        left, top = rng.integers(len(scene) - self.size + 1, size=2)
        scene = scene[top : top + self.size, left : left + self.size]
        canvas = Canvas(self.size, (rng.uniform(-0.7, 0.7), -0.6, 0.65)) if self.wild else Canvas(self.size)
        self.kind.draw(canvas, joints, outfit, rng.uniform(0.85, 1.2), rng)
        image = canvas.over(ground_shadow(scene, joints[self.kind.FEET]))
        return image, joints * self.size - 0.5, canvas.coverage()[..., 0] >= 0.5

    def _scene(self, rng: np.random.Generator) -> np.ndarray:
        """A background; an eighth larger where each image shows another part of it, of any sort where all is new."""
        size = self.size * 9 // 8 if self.shifts else self.size
        paint = self.kind.SCENES[rng.integers(len(self.kind.SCENES))] if self.wild else self.kind.SCENES[0]
        return paint(rng, size, busy=self.wild)


def _place(kind: ModuleType, rng: np.random.Generator) -> np.ndarray:
    """A pose in the image, scaled and moved a little, and moved back where it would leave the image."""
    joints = kind.pose(rng)
    low, high = joints.min(0), joints.max(0)
    joints = joints * min(rng.uniform(*_SCALES), *((1 - 2 * _MARGIN) / (high - low)))
    joints = joints + kind.CENTRE + rng.normal(0, _SCATTER, 2)
    low, high = joints.min(0), joints.max(0)
    return joints + np.maximum(_MARGIN - low, 0) - np.maximum(high - (1 - _MARGIN), 0)
