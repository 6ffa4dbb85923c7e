"""Where the subject of each image is: by masks of any other tool, or by what moves before a static camera."""

import os
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from ppl_fast._console import no_bar
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.mask import check_sizes, load_mask, masks_by_name, shares_after_resizing
from ppl_fast.data.order import by_clip
from ppl_fast.data.pixels import levels

LEAST_PART = 0.05  # of the heaviest part that moves: a paw that is seen apart from the body, or once more in a mirror
UNKNOWN = -1.0  # throughout, for an image without a mask
SMALL = 1 / 3  # of the image's side: a subject that reaches over less has too few pixels for its parts


class SubjectMasks(Dataset[torch.Tensor]):
    """Masks of the images of a set, white on the subject and black beside it.

    Args:
        folder: of masks, each an image of the size of its image or frame, with its relative name and any suffix of
            images; that of a frame is VIDEO/NUMBER. Images without one learn, and are measured, as without masks.
        images: the set.

    `masks[i]` is a float32 tensor (1, S, S) in [0, 1], the share of each pixel of `images[i]` that is the subject's, or
    `UNKNOWN` throughout.

    Attributes:
        report: what was found, in a few lines fit for printing.

    Raises:
        ValueError: no such folder, masks among the images, no mask that belongs to an image, two for one, or a mask of
            another size than its image.
    """

    def __init__(self, folder: str | os.PathLike[str], images: ImageSet):
        root = Path(folder)
        if not root.is_dir():
            raise ValueError(f"SubjectMasks: masks must be a folder of images of masks; {root} is none")
        if root.resolve().is_relative_to(images.root.resolve()):
            raise ValueError(
                f"SubjectMasks: masks must lie outside of the images, got {root} for those in {images.root}"
            )
        self._paths, left = masks_by_name(root, images.paths, "SubjectMasks")
        sizes = [(int(width), int(height)) for width, height in images.original_sizes]
        check_sizes(self._paths, dict(zip(images.paths, sizes, strict=True)))
        self._images = images
        self.report = f"masks for {len(self._paths)} of {len(images)} images in {root}"
        self.report += f"; {left} belong to none of them" if left else ""

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> torch.Tensor:
        size, boxes = self._images.image_size, self._images.boxes
        path = self._paths.get(self._images.paths[index])
        if path is None:
            return torch.full((1, size, size), UNKNOWN)
        return shares_after_resizing(load_mask(path), size, None if boxes is None else boxes[index])


class NothingMovesError(ValueError):
    """In no image of a set does anything move before a background that stays."""


class MovingSubjects(Dataset[torch.Tensor]):
    """What moves before a static camera, found without labels when the set is built: `ppl_fast.data.moving`.

    A clip is the frames of a video, or the images of one folder; each is looked at before its own background, as the
    model sees it, without its shadow. A clip whose background does not stay is looked at no further. The images of a
    folder of a video's name (as in a project of DeepLabCut) have the video's background.

    Args:
        images: the set, of whole images.

    `subjects[i]` is as that of `SubjectMasks`; 0 and 1 alone, and `UNKNOWN` throughout where nothing was found.

    Attributes:
        report: what was found, in a few lines fit for printing.

    Raises:
        ValueError: the set is of crops; `NothingMovesError`: something is found in none of its images.
        ImportError: scipy is not installed.
    """

    def __init__(self, images: ImageSet):
        from ppl_fast.data.moving import BLUR, JOINED, LEAST_SAMPLES, SAMPLES, SIDE, USUAL, Background, agreed, animal

        if images.cropped:
            raise ValueError("MovingSubjects: what moves is told in whole images; crops move with the animal")
        size = self._size = images.image_size
        scale = min(1.0, size / SIDE)
        self._packed: list[np.ndarray | None] = [None] * len(images)
        stills, reaches = dict[str, Background](), list[float]()
        row_of = {name: row for row, name in enumerate(images.paths)}
        with tqdm(total=len(images), desc="what moves", unit="", leave=False, disable=no_bar()) as bar:
            # Videos come before the folders of images that their backgrounds are of as well.
            for clip, names in sorted(
                by_clip(images.paths).items(), key=lambda each: not PurePosixPath(each[0]).suffix
            ):
                rows = [row_of[name] for name in names]
                spread = np.unique(np.linspace(0, len(rows) - 1, SAMPLES).astype(int))
                if (still := stills.get(PurePosixPath(clip).stem)) is None and len(spread) >= LEAST_SAMPLES:
                    still = agreed(np.stack([_pixels(images, rows[place]) for place in spread]))
                    stills[PurePosixPath(clip).stem] = still
                found: dict[int, np.ndarray] = {}
                for row in rows:
                    bar.update()
                    if still is None or not still.stays:
                        continue
                    pixels, near = _pixels(images, row), round(JOINED * scale)
                    moved = animal(pixels, still, BLUR * scale, near, shadow=False, least_part=LEAST_PART)
                    found |= {} if moved is None else {row: moved}
                areas = {row: moved.sum() for row, moved in found.items()}
                least = USUAL * np.median([*areas.values()]) if found else 0
                for row, moved in found.items():
                    if areas[row] >= least:
                        self._packed[row] = np.packbits(moved)
                        reaches.append(_reach(moved))
        self.known = len(reaches)
        if not self.known:
            raise NothingMovesError(f"MovingSubjects: nothing moves in {images.root} before a background that stays")
        self.report = f"something moves in {self.known} of {len(images)} images, and draws links and keypoints"
        if (reach := np.median(reaches)) < SMALL:
            self.report += (
                f"\nwhat moves reaches over {reach:.0%} of the image's side: if that is the whole subject, it is too "
                "small to tell its parts apart, and --crop moving lets the model see it large"
            )

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> torch.Tensor:
        packed, shape = self._packed[index], (1, self._size, self._size)
        if packed is None:
            return torch.full(shape, UNKNOWN)
        return torch.from_numpy(np.unpackbits(packed, count=self._size**2).astype(np.float32)).view(shape)


def _reach(mask: np.ndarray) -> float:
    """The longer side of the box around what is there, as a share of the image's."""
    return float(max(np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (0, 1)) / len(mask))


def _pixels(images: ImageSet, row: int) -> np.ndarray:
    """An image as the model sees it, uint8 (S, S, 3)."""
    return levels(images[row]).permute(1, 2, 0).contiguous().numpy()
