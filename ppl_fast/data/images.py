"""Image files, and a folder of them, as a data set."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ppl_fast.data.image_set import SMALLEST_SIDE, ImageSet, as_tensor

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
COMPANION_SUFFIXES = (".npz", ".json", ".csv", ".yaml", ".yml", ".md", ".txt")

# EXIF orientation tag -> the transposition that turns the stored image upright.
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageFiles(ImageSet):
    """Image files below a folder, by their relative paths.

    EXIF orientation is honoured; grayscale, palette, CMYK and 16-bit images become RGB; transparent ones are laid on
    white. Images are stretched to the square, antialiased, with half-pixel centres (see `ppl_fast.data.to_pixels`).

    When the set is built, every file's header is read and its end looked for, so that truncated files are found
    before any work starts; with `cache` every image is decoded then. Files that fail are skipped and kept with
    the reason in `skipped`. A body that turns out to be damaged only when it is decoded later raises
    `ValueError` with the file's name: leaving it out silently would change the order of a resumed run.

    Arguments, attributes and errors are those of `ImageSet`; `names` are paths below `root`, forward slashes.
    """

    def __init__(self, root: str | os.PathLike[str], names: list[str], image_size: int, **options: Any):
        super().__init__(Path(root), names, image_size, **options)

    def _size(self, name: str) -> tuple[int, int]:
        return _check(self.root / name)

    def _load(self, name: str) -> torch.Tensor:
        return _load(self.root / name, self.image_size)

    def _picture(self, name: str) -> Image.Image:
        with Image.open(self.root / name) as image:
            orientation = _orientation(image)
            return _turn(_to_rgb(image), orientation)


class ImageFolder(ImageFiles):
    """All images below a folder, each resized to a square; labels are neither needed nor read.

    Nested jpg, jpeg, png and webp files, in the sorted order of their relative paths, read as by
    `ImageFiles`.

    Args:
        root: the folder.
        image_size: S; `dataset[i]` is a float32 tensor (3, S, S) in [-1, 1].
        cache: keep the decoded images in memory, 3 * S * S bytes each.
        max_bad_share: above this share of unreadable images the folder is refused.

    Attributes:
        paths: relative paths with forward slashes, sorted.
        original_sizes: (W, H) of each image, upright.
        skipped: (path, reason) of image files left out.
        ignored: paths of files that are no images by their suffix; hidden files and companions such as labels,
            configuration and text are not listed.

    Raises:
        ValueError: missing or empty folder, too many unreadable images, sizes out of range.
    """

    def __init__(
        self, root: str | os.PathLike[str], image_size: int, *, cache: bool = False, max_bad_share: float = 0.1
    ):
        names, self.ignored = list_files(Path(root))
        if not names:
            raise ValueError(f"ImageFolder: expected {', '.join(IMAGE_SUFFIXES)} files in {root}, got none")
        super().__init__(root, names, image_size, cache=cache, max_bad_share=max_bad_share)


def list_files(root: Path) -> tuple[list[str], list[str]]:
    """Relative paths of (images, other files) below `root`, each sorted; hidden and companion files left out."""
    if not root.is_dir():
        state = "not a folder" if root.exists() else "missing"
        raise ValueError(f"ImageFolder: {root} is {state}; expected a folder of images")
    images: list[str] = []
    others: list[str] = []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        # A link to a folder above would be followed for ever.
        subfolders[:] = [
            name
            for name in subfolders
            if not name.startswith(".") and not here.is_relative_to(Path(folder, name).resolve())
        ]
        for name in files:
            path, suffix = Path(folder, name).relative_to(root).as_posix(), Path(name).suffix.lower()
            if name.startswith(".") or suffix in COMPANION_SUFFIXES:
                continue
            (images if suffix in IMAGE_SUFFIXES else others).append(path)
    return sorted(images), sorted(others)


def _check(path: Path) -> tuple[int, int]:
    """Upright (W, H) from the header; raises one of `UNREADABLE` for a broken, truncated or tiny image."""
    with Image.open(path) as image:
        width, height = image.size
        if min(width, height) < SMALLEST_SIDE:
            raise ValueError(f"{width} x {height} pixels, smaller than {SMALLEST_SIDE}")
        sideways = _orientation(image) >= 5
        if not _has_end(path, image.format):
            image.load()
    return (height, width) if sideways else (width, height)


def _has_end(path: Path, form: str) -> bool:
    """Whether the file's last bytes are there; False may also mean trailing data, which only decoding can tell."""
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        file.seek(max(0, length - 4096))
        tail = file.read()
    if form == "WEBP":
        return length >= 8 + int.from_bytes(head[4:8], "little")
    return {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(form, b"") in tail[-32:]


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8. In a PNG only EXIF data ahead of the pixels counts: the rest needs decoding."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return image.getexif().get(_ORIENTATION_TAG, 1)


def _load(path: Path, size: int) -> torch.Tensor:
    """The image as uint8 (3, size, size), upright RGB."""
    with Image.open(path) as image:
        orientation = _orientation(image)
        # A JPEG decodes at a half to an eighth of its size for little; `box` is then its exact extent.
        drafted = image.draft(None, (2 * size, 2 * size))
        box = drafted[1] if drafted else None
        image = _turn(_to_rgb(image).resize((size, size), Image.Resampling.BILINEAR, box=box), orientation)
    return as_tensor(image)


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: 16-bit values scaled, transparency laid on white."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
