"""Where the subject of each image is, by masks of any other tool."""

import os
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.mask import check_sizes, load_mask, masks_by_name, shares_after_resizing

UNKNOWN = -1.0  # throughout, for an image without a mask


class NothingMovesError(ValueError):
    """In no image of a set does anything move before a background that images agree on."""


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
