"""The images that a SLEAP project packs (`.pkg.slp`), as a data set."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppl_fast._documents import MAX_PIXELS
from ppl_fast.data.framing import views_of
from ppl_fast.data.hdf import NUMBERS, RUNS, Content, MissingError, content
from ppl_fast.data.image_file import SMALLEST_SIDE, opened_stream, to_rgb
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.images import list_files
from ppl_fast.data.kinds import kind_of
from ppl_fast.data.label_files.sleap_videos import videos_of
from ppl_fast.data.order import natural
from ppl_fast.options.footage import MOVING, Framing

SUFFIX = ".slp"
LARGEST_IMAGE = 1 << 28  # bytes of one that is packed as a file
MOST_IMAGES = 1 << 22
ORDERED = 1.4  # format of projects from which on an array says whether its images are "RGB" or "BGR"


class PackedImages(ImageSet):
    """The images that a project packs, by the names that its labels have of them: `walk.mp4/000012`.

    Images that OpenCV wrote have their colours the other way round; the array says so, or the project is of a format
    before that was said. The file is opened for each image, so that loading processes share nothing.

    Args:
        root: the .slp file.
        image_size, cache, max_bad_share, max_pixels: those of `ImageSet`.
        framing: what is seen of each image, without boxes that are looked for; None for all of it.
        keep: keep what shows nothing, for a pose that is NaN.

    Raises:
        ValueError: no such file, a damaged one, or none that packs images; it is named.
        ImportError: h5py is not installed.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        image_size: int,
        *,
        framing: Framing | None = None,
        keep: bool = False,
        **options: Any,
    ):
        root = Path(root)
        if framing is not None and framing.crop == MOVING:
            raise ValueError(f"what moves cannot be looked for in the single frames of {root}; name a file of boxes")
        try:
            with content(root) as found:
                self._rows = _rows(found)
        except MissingError as error:
            raise ValueError(f"{root} packs no images: it lacks an array of them") from error
        except KeyError as error:
            raise ValueError(f"{root} is no valid project of SLEAP: it lacks {error}") from error
        if not self._rows:
            raise ValueError(f"{root} packs no images; give the folder of its videos, and --labels {root}")
        names = sorted(self._rows, key=natural)
        views = views_of(framing, root, names, {}, options.get("max_pixels", MAX_PIXELS), keep=keep)
        super().__init__(root, names, image_size, views=views, **options)

    def _size(self, name: str) -> tuple[int, int]:
        raw = self._raw(name)
        if raw.ndim == 3:
            return self._checked((raw.shape[1], raw.shape[0]))
        with opened_stream(io.BytesIO(raw.tobytes())) as image:
            size = self._checked(image.size)
            image.load()  # labelled frames are few: what is cut short is found now
            return size

    def _picture(self, name: str) -> Image.Image:
        raw = self._raw(name)
        if raw.ndim == 3:
            self._checked((raw.shape[1], raw.shape[0]))
            return Image.fromarray(raw[:, :, 0] if raw.shape[2] == 1 else np.ascontiguousarray(raw)).convert("RGB")
        with opened_stream(io.BytesIO(raw.tobytes())) as image:
            self._checked(image.size)
            coloured, picture = image.mode not in ("L", "1") and not image.mode.startswith("I"), to_rgb(image)
        array, _ = self._rows[name]
        with content(self.root) as found:
            turned = coloured and _order(found, array) == "BGR"
        return Image.fromarray(np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])) if turned else picture

    def _raw(self, name: str) -> np.ndarray:
        """The bytes of an image file, or (H, W, C) pixels."""
        array, row = self._rows[name]
        with content(self.root) as found:
            images = found.array(array, RUNS)
            shaped = images.ndim == 1 if images.dtype.kind == "O" else images.ndim in (2, 4)
            if not shaped or images.dtype.itemsize * (images.size // len(images)) > LARGEST_IMAGE:
                raise ValueError(f"{array} must hold files, or pixels (n, H, W, C), got shape {images.shape}")
            raw = np.asarray(images[row])
        if raw.ndim == 3 and (raw.dtype != np.uint8 or raw.shape[2] not in (1, 3)):
            raise ValueError(f"{array} must hold uint8 pixels (H, W, 1 or 3) an image, got {raw.shape} of {raw.dtype}")
        return raw if raw.ndim == 3 else raw.view(np.uint8)

    def _checked(self, size: tuple[int, int]) -> tuple[int, int]:
        if min(size) < SMALLEST_SIDE or size[0] * size[1] > self.max_pixels:
            raise ValueError(f"{size[0]} x {size[1]} pixels, too small, or more than max_pixels, {self.max_pixels}")
        return size


def packing(root: Path) -> Path | None:
    """The project that packs its images: a .slp file in the place of a folder, or one in a folder without any media."""
    if root.is_file():
        return root if root.suffix.lower() == SUFFIX else None
    projects = sorted(root.glob(f"*{SUFFIX}"))
    if len(projects) != 1:
        return None
    images, others = list_files(root)
    return None if images or any(kind_of(root / name) == "video" for name in others) else projects[0]


def _rows(found: Content) -> dict[str, tuple[str, int]]:
    """The array and the row of every packed image, by name."""
    rows: dict[str, tuple[str, int]] = {}
    for video in videos_of(found).values():
        if video.packed is None:
            continue
        count = len(found.array(video.packed, RUNS))
        numbers = video.packed.removesuffix("video") + "frame_numbers"
        frames = found.read(numbers, NUMBERS).ravel().tolist() if numbers in found else [*range(count)]
        if len(frames) != count or count > MOST_IMAGES:
            raise ValueError(f"{numbers} must number the {count} images, {MOST_IMAGES} at most, got {len(frames)}")
        rows |= {video.frame(int(frame)): (video.packed, row) for row, frame in enumerate(frames)}
    return rows


def _order(found: Content, array: str) -> str:
    """Whether an array's images were written as RGB or BGR."""
    order = found.note(array, "channel_order")
    if isinstance(order, bytes):
        order = order.decode("utf-8", "replace")
    before = float(found.note("metadata", "format_id") or 0) < ORDERED
    return str(order or ("BGR" if before else "RGB"))
