"""Images and labels in HDF5 files, as AutoLink's preprocessing writes them for CUB and flowers."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppl_fast._documents import MAX_PIXELS
from ppl_fast.data.hdf import MissingError, opened
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.labels import Labels
from ppl_fast.data.sets.layout import LayoutError, Published, from_fractions, joints

MOST_NUMBERS = 1 << 25  # in an array of labels


class H5Images(Published, ImageSet):
    """Images stacked in the arrays `<part>_img` of one HDF5 file: uint8 (n, 3, H, W).

    Image 7 of the part `train` goes by the name `train/00007`. The file is opened for each image, so that loading
    processes share nothing.

    Args:
        file: the file.
        parts: whose images to take, in this order.
        image_size, cache, max_bad_share: those of `ImageSet`.

    Raises:
        LayoutError: the file or one of its arrays is missing.
        ValueError: no readable HDF5 file, or an array of another shape or type.
    """

    def __init__(self, file: Path, parts: tuple[str, ...], image_size: int, **options: Any):
        self._arrays = {part: f"{part}_img" for part in parts}
        names, self._sizes = [], {}
        for part, array in self._arrays.items():
            shape, dtype = self._described(file, array)
            if len(shape) != 4 or shape[1] != 3 or dtype != np.uint8:
                raise ValueError(f"{file}: {array} must be uint8 (n, 3, H, W), got {shape} of {dtype}")
            if shape[2] * shape[3] > options.get("max_pixels", MAX_PIXELS):
                raise ValueError(f"{file}: {array} has images of {shape[3]} x {shape[2]} pixels, more than max_pixels")
            names += [f"{part}/{row:05d}" for row in range(shape[0])]
            self._sizes[part] = shape[3], shape[2]
        super().__init__(file, names, image_size, **options)

    def _described(self, file: Path, array: str) -> tuple[tuple[int, ...], np.dtype]:
        if not file.is_file():
            raise LayoutError(self.name, file.parent, self.tree, f"no file {file.name}")
        try:
            with opened(file, array) as found:
                return found.shape, found.dtype
        except MissingError as error:
            missing = f"no {array} in {file.name}, only {error.found}"
            raise LayoutError(self.name, file.parent, self.tree, missing) from error

    def _size(self, name: str) -> tuple[int, int]:
        return self._sizes[name.partition("/")[0]]

    def _picture(self, name: str) -> Image.Image:
        part, _, row = name.partition("/")
        with opened(self.root, self._arrays[part]) as found:
            pixels = found[int(row)]
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


class H5Labelled(H5Images):
    """With labels in `<part>_kp`, (n, J, 2) (row, column) as fractions of the image, and `<part>_vis`, (n, J)."""

    joints: list[str] = []

    def read_labels(self) -> Labels:
        """The joints of every image, as far as visible.

        Raises:
            LayoutError: a missing array.
            ValueError: one that does not fit the images.
        """
        points, visible = [], []
        for part in self._arrays:
            images = self._described(self.root, self._arrays[part])[0][0]
            shown = self._read(f"{part}_vis")
            if shown.shape != (images, len(self.joints)):
                expected = (images, len(self.joints))
                raise ValueError(f"{self.root}: {part}_vis must have shape {expected}, got {shown.shape}")
            found = joints(self._read(f"{part}_kp"), len(self.joints), str(self.root), f"{part}_kp")
            if len(found) != images:
                raise ValueError(f"{self.root}: {part}_kp must be of {images} images, got {len(found)}")
            if not np.isfinite(found[shown > 0]).all():
                raise ValueError(f"{self.root}: {part}_kp must be finite wherever visible, got NaN or infinity")
            points.append(from_fractions(found, self._sizes[part]))
            visible.append(shown > 0)
        files = [
            f"{part}/{row:05d}" for part, found in zip(self._arrays, points, strict=True) for row in range(len(found))
        ]
        return Labels(files, np.concatenate(points), np.concatenate(visible), self.joints, [])

    def _read(self, array: str) -> np.ndarray:
        shape, _ = self._described(self.root, array)
        if math.prod(shape) > MOST_NUMBERS:
            raise ValueError(f"{self.root}: {array} must hold at most {MOST_NUMBERS} numbers, got shape {shape}")
        with opened(self.root, array) as found:
            return found[...]
