"""What is hidden in the originals: white in images of masks, or a colour in the originals themselves."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppl_fast._extras import needing
from ppl_fast._files import stamp
from ppl_fast._options import plain
from ppl_fast.inference.media import Media
from ppl_fast.inference.poses import Origins

if TYPE_CHECKING:
    Given = str | os.PathLike[str] | Sequence[int]

TOLERANCE = 10  # of 255, per channel: what compression does to a colour that was painted
PASSES = 3  # of inference where something is hidden: after two rounds little is left to gain


class Masks(ABC):
    """What is hidden in each original.

    Attributes:
        report: what was found, in a few lines fit for printing.
        whole: how many of the images and frames so far had nothing hidden.
    """

    report: str = ""
    whole: int = 0

    @abstractmethod
    def visible(self, origins: Origins, index: int, size: int) -> Tensor | None:
        """(1, S, S) bool, what stays visible of one original resized to S; None where it is whole."""

    def of(self, origins: Origins, size: int) -> Tensor:
        """(n, 1, S, S) bool, the pixels of the resized images that no hidden pixel of the original has a share in."""
        found = [self.visible(origins, i, size) for i in range(len(origins))]
        everything = torch.ones(1, size, size, dtype=torch.bool)
        shown = torch.stack([everything if each is None else each for each in found])
        self.whole += int(shown.flatten(1).all(dim=1).sum())
        return shown


class MaskImages(Masks):
    """Images of masks, white where hidden.

    Args:
        paths: of the mask of each image or video, by its name; one for all by None.
        report: see `Masks`.
    """

    def __init__(self, paths: dict[str | None, Path], report: str = ""):
        self.report, self._paths = report, paths
        self._hidden: tuple[Path, NDArray[np.bool_]] | None = None  # frames of a video share theirs
        self._last: tuple[Path, int, bytes, Tensor] | None = None

    def visible(self, origins: Origins, index: int, size: int) -> Tensor | None:
        """See `Masks.visible`."""
        from ppl_fast.data.mask import load_mask, visible_after_resizing

        path = self._paths.get(origins.names[index], self._paths.get(None))
        if path is None:
            return None
        if self._hidden is None or self._hidden[0] != path:
            self._hidden = path, load_mask(path)
        box = _box(origins, index)
        key = path, size, b"" if box is None else box.tobytes()
        if self._last is None or self._last[:3] != key:
            self._last = *key, visible_after_resizing(self._hidden[1], size, box)
        return self._last[3]


class Colour(Masks):
    """The pixels of one colour in the originals, which are decoded whole for it.

    Args:
        colour: (R, G, B), each 0 to 255; a pixel has it where no channel differs by more than `TOLERANCE`.
    """

    def __init__(self, colour: tuple[int, int, int]):
        self._colour = np.array(colour, dtype=np.int16)

    def visible(self, origins: Origins, index: int, size: int) -> Tensor | None:
        """See `Masks.visible`."""
        from ppl_fast.data.mask import visible_after_resizing

        return visible_after_resizing(self.hidden(np.asarray(origins.image(index))), size, _box(origins, index))

    def hidden(self, pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(H, W) of an RGB image (H, W, 3)."""
        near: NDArray[np.bool_] = (np.abs(pixels.astype(np.int16) - self._colour) <= TOLERANCE).all(axis=2)
        return near


def _box(origins: Origins, index: int) -> NDArray[np.float64] | None:
    return None if origins.boxes is None else origins.boxes[index]


def open_masks(masks: Given, media: Media) -> Masks:
    """Look at what says what is hidden.

    Args:
        masks: the path of one mask image, for all images and frames; of a folder of them, with one for each image
            and each video, of the same relative name and any suffix of images, those without one being whole; or
            (R, G, B), the colour of what is hidden in the originals.
        media: what is estimated.

    Raises:
        TypeError: none of these.
        ValueError: no such file, no mask that belongs to an image, two for one, a mask of another size than its
            image, masks among the images, or no colour.
        ImportError: an extra is not installed.
    """
    if not isinstance(masks, (str, os.PathLike)):
        return Colour(_colour(masks))
    with needing("masks need", "data"):
        from ppl_fast.data.mask import check_sizes, load_mask
    path = Path(masks)
    if media.root is not None and path.resolve().is_relative_to(media.root.resolve()):
        raise ValueError(f"estimate: masks must lie outside of the images, got {path} for those in {media.root}")
    if path.is_dir():
        paths, report = _of_folder(path, media)
    elif path.is_file():
        load_mask(path)
        paths, report = {None: path}, ""
    else:
        raise ValueError(f"estimate: masks must be an image, or a folder of them; {path} is missing")
    sizes = {name: (int(w), int(h)) for part in media.parts for name, (w, h) in part.originals()}
    check_sizes({name: found for name in sizes if (found := paths.get(name, paths.get(None)))}, sizes)
    return MaskImages(paths, report)


def given_masks(masks: Given | None) -> object:
    """What tells masks from others: a colour, or the names, sizes and dates of the files."""
    if not isinstance(masks, (str, os.PathLike)):
        return masks
    path = Path(masks)
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return [(str(each), *stamp(each)) for each in files]


def _of_folder(folder: Path, media: Media) -> tuple[dict[str | None, Path], str]:
    """The masks of images and videos by their names, and how many have none."""
    from ppl_fast.data.mask import masks_by_name

    names = [name for part in media.parts for name, _ in part.originals()]
    paths, left = masks_by_name(folder, names, "estimate")
    lines = [f"masks for {len(paths)} of {len(names)} images and videos; the others count as whole"]
    lines += [f"masks that belong to none of them: {left}"] if left else []
    return dict(paths.items()), "\n".join(lines)


def _colour(given: object) -> tuple[int, int, int]:
    if not isinstance(given, Sequence):
        raise TypeError(f"estimate: masks must be a path or a colour (R, G, B), got {type(given).__name__}")
    values = [plain(value) for value in given]
    if len(values) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in values):
        raise ValueError(f"estimate: masks must be a path or a colour (R, G, B) of 0 to 255, got {tuple(values)}")
    red, green, blue = values
    return red, green, blue
