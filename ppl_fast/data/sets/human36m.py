"""Human3.6M, in the simplified form that AutoLink, BKinD and PPL read: frames of 128 x 128 with 32 joints."""

import os
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ppl_fast._console import no_bar
from ppl_fast.data.image_file import opened
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.images import ImageFiles
from ppl_fast.data.labels import Labels
from ppl_fast.data.order import natural
from ppl_fast.data.sets.layout import LayoutError, Published, from_fractions, joints
from ppl_fast.data.sets.matlab import matlab

SUBJECTS = {"train": (1, 5, 6, 7, 8, 9), "test": (11,)}
ACTIONS = ("Directions", "Discussion", "Posing", "Waiting", "Greeting", "Walking")
LIMITS = -1, 2  # labels are fractions of the image; joints may lie a little outside, pixels would lie far outside
_SIDE = ("hip", "knee", "ankle", "foot", "toes")
_ARM = ("collar", "shoulder", "elbow", "wrist", "wrist 2", "thumb", "fingers", "fingers 2")
JOINTS = [
    "hip", *(f"right {name}" for name in _SIDE), *(f"left {name}" for name in _SIDE),
    "pelvis", "spine", "neck", "nose", "head", *(f"left {name}" for name in _ARM), *(f"right {name}" for name in _ARM),
]  # fmt: skip
# Joints 11, 16, 20, 23, 24, 28 and 31 lie where others do.
BONES = [
    (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 6), (6, 7), (7, 8), (8, 9), (9, 10), (0, 12), (12, 13), (13, 14),
    (14, 15), (13, 17), (17, 18), (18, 19), (19, 21), (19, 22), (13, 25), (25, 26), (26, 27), (27, 29), (27, 30),
]  # fmt: skip
# The pairs that AutoLink's evaluation swaps, as they stand there, so that errors compare with the published ones. The
# thumb 21 is paired with the wrist 28; its counterpart is 29, which keeps its place.
SWAP = [(1, 6), (2, 7), (3, 8), (4, 9), (5, 10), (17, 25), (18, 26), (19, 27), (20, 28), (21, 28), (22, 30), (23, 31)]
# The anatomical pairs.
LEFT_RIGHT = [*SWAP[:9], (21, 29), *SWAP[10:], (16, 24)]


class Human36M(Published, ImageFiles):
    """Frames of one split, with their background; each recording of a camera is a clip, its frames in order.

    Args:
        root: the folder that holds S1, S5, ...
        image_size, cache, max_bad_share: those of `ImageSet`.
        split: train is subjects 1, 5, 6, 7, 8 and 9, test is subject 11; six actions of each.

    Attributes:
        clips: per frame, the number of its recording; the others are those of `ImageSet`.

    Raises:
        LayoutError: a subject or all of its actions are missing.
    """

    name = "human36m"
    tree = "S<1, 5, 6, 7, 8, 9, 11>/WithBackground/<action ...>/<frame>.jpg\nS<...>/Landmarks/<action ...>/<frame>.mat"
    protocol = {"swap": SWAP}

    def __init__(self, root: str | os.PathLike[str], image_size: int, split: str, **options: Any):
        root = Path(root)
        names = [
            f"{folder.relative_to(root).as_posix()}/{frame}"
            for subject in SUBJECTS[split]
            for folder in self._recordings(root, subject)
            for frame in sorted((file.name for file in folder.glob("*.jpg")), key=natural)
        ]
        if not names:
            raise LayoutError(self.name, root, self.tree, f"the {split} subjects have no frames")
        super().__init__(root, names, image_size, **options)
        recordings = groupby(self.paths, key=lambda path: PurePosixPath(path).parent)
        self.clips = [number for number, (_, frames) in enumerate(recordings) for _ in frames]

    def _recordings(self, root: Path, subject: int) -> list[Path]:
        parent = root / f"S{subject}" / "WithBackground"
        folders = [folder for folder in parent.glob("*") if folder.name.startswith(ACTIONS) and folder.is_dir()]
        if not folders:
            what = f"none of {', '.join(ACTIONS)}" if parent.is_dir() else "no such folder"
            raise LayoutError(self.name, root, self.tree, f"S{subject}/WithBackground: {what}")
        return sorted(folders, key=lambda folder: natural(folder.name))

    def read_labels(self) -> Labels:
        """The 32 joints of every frame, all visible.

        Raises:
            ValueError: a label file is missing, broken, or holds other joints; it is named.
        """
        points = np.empty((len(self), len(JOINTS), 2))
        sizes = zip(self.paths, self.original_sizes, strict=True)
        for i, (path, size) in enumerate(tqdm(sizes, "reading labels", len(self), leave=False, disable=no_bar())):
            points[i] = from_fractions(_joints(self._beside(path, "Landmarks", ".mat")), size)
        return Labels([*self.paths], points, np.ones(points.shape[:2], bool), JOINTS, BONES)

    def _beside(self, path: str, folder: str, suffix: str) -> Path:
        """The file that belongs to a frame in one of the folders beside WithBackground."""
        subject, _, recording, frame = PurePosixPath(path).parts
        return self.root / subject / folder / recording / Path(frame).with_suffix(suffix)


class Human36MMasked(Human36M):
    """Human3.6M without background: where the mask beside a frame is 0, the frame is mid-grey, 0 in [-1, 1]."""

    name = "human36m_masked"
    tree = f"{Human36M.tree}\nS<...>/BackgroudMask/<action ...>/<frame>.png"  # misspelt so in the data set

    def _size(self, name: str) -> tuple[int, int]:
        size, path = super()._size(name), self._mask(name)
        if not path.is_file():
            raise ValueError(f"its mask {path} is missing")
        with opened(path) as mask:
            if mask.size != size:
                raise ValueError(f"its mask {path} is of {mask.size} pixels, the frame of {size}")
        return size

    def _picture(self, name: str) -> Image.Image:
        frame = super()._picture(name)
        with opened(self._mask(name)) as mask:
            shown = mask.convert("L").point(lambda level: 255 * (level > 0))
        return Image.composite(frame, Image.new("RGB", frame.size, (128, 128, 128)), shown)

    _load = ImageSet._load  # by the masked picture

    def _mask(self, name: str) -> Path:
        return self._beside(name, "BackgroudMask", ".png")


def _joints(path: Path) -> np.ndarray:
    """keypoints_2d of one label file: (32, 2), (row, column) as fractions of the frame."""
    points = joints(matlab(path, "keypoints_2d"), len(JOINTS), str(path), "keypoints_2d")
    low, high = LIMITS
    if not ((points > low) & (points < high)).all():
        got = np.abs(points).max()
        raise ValueError(f"{path}: keypoints_2d must be fractions of the frame, got values up to {got}")
    return points
