"""Data sets that are folders of images without labels: hands, horses and zebras, flowers, dogs."""

import os
from pathlib import Path
from typing import Any

from ppl_fast.data.clips import ClipFolder, find_media
from ppl_fast.data.images import ImageFiles, list_files
from ppl_fast.data.sets.h5 import H5Images
from ppl_fast.data.sets.layout import LayoutError, Published
from ppl_fast.data.sets.matlab import matlab


class Folder(Published, ImageFiles):
    """All images below one folder a split.

    Args:
        root: the folder of the data set.
        image_size, cache, max_bad_share: those of `ImageFiles`.
        split: train or test; `folders` says where its images are.

    Raises:
        LayoutError: there are none.
    """

    folders = {"train": ".", "test": "."}

    def __init__(self, root: str | os.PathLike[str], image_size: int, split: str, **options: Any):
        folder = Path(root) / self.folders[split]
        names, self.ignored = list_files(folder) if folder.is_dir() else ([], [])
        if not names:
            where = "it" if self.folders[split] == "." else self.folders[split]
            raise LayoutError(self.name, Path(root), self.tree, f"no images in {where}")
        super().__init__(folder, names, image_size, **options)


class Hands(Folder):
    """11k Hands (Afifi, 2019): all images in both splits, as published."""

    name = "hands"
    tree = "Hands/Hand_<number>.jpg"


class Horses(Folder):
    """The horses of Horse2Zebra."""

    name = "horse2zebra"
    tree = "trainA/<image>.jpg\ntestA/<image>.jpg"
    folders = {"train": "trainA", "test": "testA"}


class Zebras(Folder):
    """The zebras of Horse2Zebra."""

    name = "zebras"
    tree = "trainB/<image>.jpg\ntestB/<image>.jpg"
    folders = {"train": "trainB", "test": "testB"}


class Dogs(Published, ClipFolder):
    """The YouTube dogs of PPL: clips, as folders of frames or video files, below train and test or all together.

    Arguments, attributes and errors are those of `ClipFolder`.

    Raises:
        LayoutError: there are no clips.
    """

    name = "dogs"
    tree = "<clip>/<frame>.jpg or <clip>.mp4, alone or below train and test"

    def __init__(self, root: str | os.PathLike[str], image_size: int, split: str, **options: Any):
        folder = Path(root) / split if (Path(root) / split).is_dir() else Path(root)
        try:
            find_media(folder)
        except ValueError as error:
            raise LayoutError(self.name, Path(root), self.tree, "no images or videos") from error
        super().__init__(folder, image_size, **options)


class Flowers(Folder):
    """Flowers-102 as a folder of images, which both splits take whole."""

    name = "flowers"
    tree = "flower.h5 with {train,test}_img, or jpg/image_<number>.jpg and setid.mat, or <image>.jpg"


class FlowersSplit(Published, ImageFiles):
    """Flowers-102 as its authors published it: the images in jpg, their split in setid.mat.

    As AutoLink has it, the official test images, of which there are most, are trained on.
    """

    name, tree = Flowers.name, Flowers.tree
    arrays = {"train": "tstid", "test": "trnid"}

    def __init__(self, root: str | os.PathLike[str], image_size: int, split: str, **options: Any):
        if not (Path(root) / "jpg").is_dir():
            raise LayoutError(self.name, Path(root), self.tree, "no folder jpg")
        numbers = sorted(matlab(Path(root) / "setid.mat", self.arrays[split]).ravel().tolist())
        super().__init__(root, [f"jpg/image_{int(number):05d}.jpg" for number in numbers], image_size, **options)


class FlowersH5(H5Images):
    """Flowers-102 in the file that AutoLink's preprocessing writes."""

    name, tree = Flowers.name, Flowers.tree

    def __init__(self, root: str | os.PathLike[str], image_size: int, split: str, **options: Any):
        super().__init__(Path(root) / "flower.h5", (split,), image_size, **options)


def flowers(
    root: str | os.PathLike[str], image_size: int, split: str, **options: Any
) -> Flowers | FlowersSplit | FlowersH5:
    """Flowers-102 in whichever of its three layouts `root` has."""
    if Path(root, "flower.h5").is_file():
        return FlowersH5(root, image_size, split, **options)
    if Path(root, "setid.mat").is_file():
        return FlowersSplit(root, image_size, split, **options)
    return Flowers(root, image_size, split, **options)
