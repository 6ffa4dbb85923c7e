"""One image file: its upright size, and its pixels as upright RGB, whatever wrote it."""

import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ppl_fast._documents import MAX_PIXELS, check_regular
from ppl_fast._extras import needing
from ppl_fast.data.pixels import as_tensor

SMALLEST_SIDE = 8
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "HEIF")  # Pillow's names
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # brands behind the word ftyp
PNG = b"\x89PNG\r\n\x1a\n"
# What Pillow raises for a file that is not a readable image: OSError covers unknown formats and truncation,
# SyntaxError broken PNG chunks, ValueError broken headers, DecompressionBombError a size beyond reason, and the others
# tags of the wrong type or length.
UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip
# Parts of a PNG that hold text; of them, those that may tell which way is up.
_TEXTS, _TELLING = (b"tEXt", b"zTXt", b"iTXt"), (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
_TAIL = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_UPRIGHT_KEYS = ("exif", "Raw profile type exif", "XML:com.adobe.xmp")
# Tags of TIFF that say what the largest value stands for white: bits of a sample, and two that name the value.
_BITS, _WHITES = 258, (281, 341)
TWELVE, SIXTEEN = 4095, 65535
_silence = threading.Lock()


def upright_size(source: Path | bytes, size: int, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright (W, H), by the header where it tells.

    Args:
        source: the file, or its content.
        size: that `load_resized` will be asked for.
        max_pixels: that may be decoded at once.

    Raises:
        Exception: one of `UNREADABLE`, for a broken, tiny or enormous image.
    """
    with opened(source) as image:
        if min(image.size) < SMALLEST_SIDE:
            raise ValueError(f"{image.width} x {image.height} pixels, smaller than {SMALLEST_SIDE}")
        full = image.size
        drafted = _reduced(image, size, max_pixels)
        if not _has_end(source, image.format or ""):
            to_rgb(image)
        width, height = full if drafted else image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def load_resized(source: Path | bytes, size: int, max_pixels: int = MAX_PIXELS) -> torch.Tensor:
    """The image as uint8 (3, size, size), upright RGB; arguments and errors are those of `upright_size`."""
    with opened(source) as image:
        box = _reduced(image, size, max_pixels)
        small = to_rgb(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
        return as_tensor(_turned(small, _orientation(image)))


def load_upright(source: Path | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as RGB at its own size; arguments and errors are those of `upright_size`."""
    with opened(source) as image:
        _check_pixels(image.size, image.size, max_pixels)
        return _turned(to_rgb(image), _orientation(image))


def _reduced(image: Image.Image, size: int, max_pixels: int) -> tuple[float, float, float, float] | None:
    """Ask for no more than is needed of a format that can, a JPEG: a half to an eighth of its size.

    Returns:
        The exact extent of the whole in the reduced image; None where it stays whole.
    """
    full = image.size
    drafted = image.draft(None, (2 * size, 2 * size))
    whole = bool(image.info.get("progressive"))  # its coefficients are held all at once, at whatever size
    _check_pixels(full, full if whole else image.size, max_pixels)
    return drafted[1] if drafted else None


def _check_pixels(full: tuple[int, int], decoded: tuple[int, int], max_pixels: int) -> None:
    if decoded[0] * decoded[1] > max_pixels:
        raise ValueError(f"{full[0]} x {full[1]} pixels, more than max_pixels allows, {max_pixels}")


class _Bounded(io.BufferedReader):
    """A file, of which no more is asked for than there is: Python takes memory for what is asked for."""

    def __init__(self, path: Path, length: int):
        super().__init__(io.FileIO(path))
        self._length = length

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes."""
        left = max(0, self._length - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _stream(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else _Bounded(source, check_regular(source))


@contextmanager
def opened(source: Path | bytes) -> Iterator[Image.Image]:
    """An image file as Pillow opens it, large ones and those with long notes too, and without Python's warnings."""
    with _stream(source) as file, opened_stream(file) as image:
        yield image


@contextmanager
def opened_stream(file: BinaryIO) -> Iterator[Image.Image]:
    """An image file that is open already, or lies in memory; see `opened`."""
    source = _without_notes(file)
    try:
        with _quiet():
            image = _identified(source)
        with image:
            yield image
    except RuntimeError as error:  # of the reader of HEIC
        raise OSError(str(error)) from error


def _identified(source: BinaryIO) -> Image.Image:
    """The image by the reader of its format, without Pillow's own limit: `_check_pixels` has ours.

    Other formats are none for Pillow to try: some have readers that start programs, as PostScript does.
    """
    Image.init()
    source.seek(0)
    start = source.read(16)
    if start[4:8] == b"ftyp" and start[8:12] in HEIC and "HEIF" not in Image.OPEN:
        with needing("HEIC images need", "heic"):
            from pillow_heif import register_heif_opener
        register_heif_opener()
    for name in FORMATS:
        reader, accepts = Image.OPEN.get(name, (None, None))
        if reader is None or accepts is None or accepts(start) not in (True, 1):
            continue
        source.seek(0)
        try:
            return reader(source, "")
        except (SyntaxError, LookupError, TypeError, EOFError, struct.error) as error:
            raise UnidentifiedImageError(f"not an image of a known format ({error})") from error
    raise UnidentifiedImageError("not an image of a known format")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Python's warnings; for one thread at a time, as these are the process's."""
    with _silence, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as 8-bit RGB: 16-bit values scaled (see `_white`), fractions too, transparency laid on white."""
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), posinf=255, neginf=0)
        scale = 255 if values.max(initial=0) <= 1 else 1
        return Image.fromarray((values * scale).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        white = _white(image, int(values.max(initial=0)))
        return Image.fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _white(image: Image.Image, largest: int) -> int:
    """The value of white in an image of more than 8 bits, whose largest value this is.

    What a TIFF says counts: less than 16 bits a sample, or a largest value of all bits set. Else an image without a
    value above 4095 has 12 bits in 16, as scientific cameras write them: with 16 it would be nearly black. A PNG of
    fewer bits is scaled to 16 by its writer, as its format demands, and a PGM by Pillow.
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS, (16,))
    named = [2 ** int(bits[0]) - 1 if bits else SIXTEEN, *(tags.get(tag) for tag in _WHITES)]
    for white in (each[0] if isinstance(each, tuple) and each else each for each in named):
        if isinstance(white, int) and 255 < white < SIXTEEN and not white & (white + 1) and white >= largest:
            return white
    return TWELVE if largest <= TWELVE else SIXTEEN


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


def _has_end(source: Path | bytes, form: str) -> bool:
    """Whether the file's last bytes are there; False may also mean that only decoding can tell."""
    with _stream(source) as file:
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
