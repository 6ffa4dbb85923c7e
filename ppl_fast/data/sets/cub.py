"""CUB-200-2011: birds cropped to their boxes, with 15 parts, in AutoLink's HDF5 files."""

import os
from pathlib import Path
from typing import Any

from ppl_fast.data.sets.h5 import H5Labelled

PARTS = [
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape", "right eye",
    "right leg", "right wing", "tail", "throat",
]  # fmt: skip


class CUB(H5Labelled):
    """All categories: training and test images of `cub.h5`.

    Whether the birds are aligned or in the wild lies in how they were cropped; the layout is the same.

    Args:
        root: the folder that holds the file, or the file itself under any name.
        image_size, cache, max_bad_share: those of `ImageSet`.
        split: train or test.
    """

    name = "cub"
    file = "cub.h5"
    tree = "cub.h5 with {train,test}_{img,kp,vis}"
    parts: dict[str, tuple[str, ...]] = {"train": ("train",), "test": ("test",)}
    joints = PARTS

    def __init__(self, root: str | os.PathLike[str], image_size: int, split: str, **options: Any):
        root = Path(root)
        super().__init__(root if root.is_file() else root / self.file, self.parts[split], image_size, **options)


class CUBThree(CUB):
    """The first three categories: `cub_three.h5`, tested on those of all three together."""

    name = "cub_three"
    file = "cub_three.h5"
    tree = "cub_three.h5 with {train,test001,test002,test003}_{img,kp,vis}"
    parts = {"train": ("train",), "test": ("test001", "test002", "test003")}


class CUB001(CUBThree):
    """Trained on the first three categories, tested on the first; the published figures are of one category each."""

    name = "cub_001"
    parts = {"train": ("train",), "test": ("test001",)}


class CUB002(CUBThree):
    """Trained on the first three categories, tested on the second."""

    name = "cub_002"
    parts = {"train": ("train",), "test": ("test002",)}


class CUB003(CUBThree):
    """Trained on the first three categories, tested on the third."""

    name = "cub_003"
    parts = {"train": ("train",), "test": ("test003",)}
