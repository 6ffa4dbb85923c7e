"""One image file: its upright size, and its pixels as upright RGB, whatever wrote it."""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from ppl_fast.data.image_set import SMALLEST_SIDE, as_tensor

PNG = b"\x89PNG\r\n\x1a\n"
# Parts of a PNG that hold text; of them, those that may tell which way is up.
_TEXTS, _TELLING = (b"tEXt", b"zTXt", b"iTXt"), (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_TAIL = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_UPRIGHT_KEYS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp")
_silence = threading.Lock()


def upright_size(path: Path) -> tuple[int, int]:
    """Upright (W, H), by the header where it tells; raises one of `UNREADABLE` for a broken or tiny image."""
    with opened(path) as image:
        if min(image.size) < SMALLEST_SIDE:
            raise ValueError(f"{image.width} x {image.height} pixels, smaller than {SMALLEST_SIDE}")
        if not _has_end(path, image.format or ""):
            to_rgb(image)
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def load_resized(path: Path, size: int) -> torch.Tensor:
    """The image as uint8 (3, size, size), upright RGB."""
    with opened(path) as image:
        # A JPEG decodes at a half to an eighth of its size for little; `box` is then its exact extent.
        drafted = image.draft(None, (2 * size, 2 * size))
        box = drafted[1] if drafted else None
        small = to_rgb(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
        return as_tensor(_turned(small, _orientation(image)))


def load_upright(path: Path) -> Image.Image:
    """The image as RGB at its own size."""
    with opened(path) as image:
        return _turned(to_rgb(image), _orientation(image))


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file as Pillow opens it, large ones and those with long notes too, and without Python's warnings."""
    with open(path, "rb") as file:
        source = _without_notes(file)
        with _quiet():
            image = Image.open(source)
        with image:
            yield image


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Python's warnings; for one thread at a time, as these are the process's."""
    with _silence, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: 16-bit values scaled, fractions too, transparency laid on white."""
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), posinf=255, neginf=0)
        scale = 255 if values.max(initial=0) <= 1 else 1
        return Image.fromarray((values * scale).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where it is none of these. What Pillow turns itself, TIFF, is asked once loaded."""
    if image.format == "PNG" and not any(key in image.info for key in _UPRIGHT_KEYS):
        return 1  # Pillow would decode the image in search of it
    try:
        with _quiet():
            found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever broken metadata lead to, the picture is there
        return 1
    return int(found) if found in range(1, 9) else 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    """An RGB image turned upright by Pillow, which hears of the orientation alone."""
    if orientation == 1:
        return image
    image.info.clear()
    image.getexif()[ExifTags.Base.Orientation] = orientation
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _has_end(path: Path, form: str) -> bool:
    """Whether the file's last bytes are there; False may also mean that only decoding can tell."""
    with open(path, "rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(12)
        file.seek(max(0, length - 4096))
        tail = file.read()
    if form == "WEBP":
        return length >= 8 + int.from_bytes(head[4:8], "little")
    return form in _TAIL and _TAIL[form] in tail[-32:]


def _without_notes(file: BinaryIO) -> BinaryIO:
    """The file; of a PNG that has them, a copy without texts and profile, which Pillow refuses from a length on.

    Of metadata that tell which way is up, those behind the pixels come ahead of them, where they are found without
    decoding.
    """
    if file.read(len(PNG)) != PNG:
        return file
    kept: list[tuple[int, int]] = []  # start and length
    late: list[tuple[int, int]] = []
    first = count = 0  # place of the pixels among those kept; number of all parts
    for kind, start, length in _parts(file):
        count += 1
        telling = kind == b"eXIf" or (kind in _TEXTS and file.read(len(_TELLING[1])).startswith(_TELLING))
        if kind == b"IDAT" and not first:
            first = len(kept)
        if telling and first:
            late.append((start, length))
        elif telling or kind not in (*_TEXTS, b"iCCP"):
            kept.append((start, length))
    if not late and len(kept) == count:
        return file
    copy = io.BytesIO()
    copy.write(PNG)
    for start, length in kept[:first] + late + kept[first:]:
        file.seek(start)
        copy.write(file.read(length))
    return copy


def _parts(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and length of each part of a PNG; the file then stands behind the part's head."""
    start, kind = len(PNG), b""
    while kind != b"IEND":
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = int.from_bytes(head[:4], "big") + 12, head[4:]
        yield kind, start, length
        start += length
