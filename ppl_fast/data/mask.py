"""Images of masks, white where something is (what is hidden, or the subject), and what of a resized image that is."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from ppl_fast._documents import MAX_PIXELS
from ppl_fast.data.boxes import Box, part
from ppl_fast.data.image_file import SMALLEST_SIDE, UNREADABLE, opened, to_rgb, upright_size
from ppl_fast.data.images import list_files
from ppl_fast.data.names import normal

WHITE = 128  # brightness from which on a pixel counts as white: masks that were saved as JPEG are not pure


def masks_by_name(folder: Path, names: Sequence[str], owner: str) -> tuple[dict[str, Path], int]:
    """The masks in a folder by the names of images, videos or frames, and how many masks belong to none of them.

    A mask has the relative name of what it belongs to, with any suffix of images.

    Raises:
        ValueError: two masks for one, or none for any; `owner` starts the sentence.
    """
    by_stem: dict[str, list[str]] = {}
    for each in list_files(folder)[0]:
        by_stem.setdefault(_stem(normal(each)), []).append(each)
    paths: dict[str, Path] = {}
    used = set()
    for name in names:
        found = by_stem.get(_stem(normal(name)), [])
        same = [each for each in found if normal(each) == normal(name)] or found
        if len(same) > 1:
            raise ValueError(f"{owner}: masks in {folder} must hold one for {name}, got {' and '.join(sorted(same))}")
        if same:
            paths[name] = folder / same[0]
            used.add(same[0])
    if not paths:
        raise ValueError(f"{owner}: masks in {folder} must have the names of images or videos, got none that does")
    return paths, sum(map(len, by_stem.values())) - len(used)


def check_sizes(paths: dict[str, Path], sizes: dict[str, tuple[int, int]]) -> None:
    """Raise a ValueError unless each mask has the size (W, H) of what it belongs to, by name."""
    of_masks = {path: mask_size(path) for path in {*paths.values()}}
    for name, path in paths.items():
        (width, height), (w, h) = of_masks[path], sizes[name]
        if (width, height) != (w, h):
            raise ValueError(f"mask {path} must have the size of {name}, {w} x {h} pixels, got {width} x {height}")


def mask_size(path: Path) -> tuple[int, int]:
    """(W, H) of a mask.

    Raises:
        ValueError: it is no readable image; it is named.
    """
    try:
        return upright_size(path, SMALLEST_SIDE)
    except UNREADABLE as error:
        raise _broken(path, error) from error


def load_mask(path: Path) -> np.ndarray:
    """(H, W) bool, True where the image is white; what is transparent counts as black.

    Raises:
        ValueError: it is no readable image, or has values below white alone, such as 0 and 1; it is named.
    """
    try:
        with opened(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                painted = image.convert("RGBA")
                grey = Image.alpha_composite(Image.new("RGBA", image.size, "black"), painted).convert("L")
            else:
                grey = to_rgb(image).convert("L")
            values = np.asarray(grey)
    except UNREADABLE as error:
        raise _broken(path, error) from error
    if 0 < values.max() < WHITE:
        raise ValueError(f"mask {path}: hidden pixels must be white, 255, got {values.max()} as the brightest")
    return values >= WHITE


def shares_after_resizing(white: np.ndarray, size: int, box: Box | None = None) -> torch.Tensor:
    """(1, S, S) float32 in [0, 1]: the share that white pixels of the original have in each of a resized image.

    Args:
        white: (H, W) bool, of the original.
        size: S, to which images are resized as by `ppl_fast.data.boxes.seen`, by the same filter.
        box: what is seen of the original, as there. What lies outside of the original is not white.
    """
    shares = Image.fromarray(white.astype(np.float32))
    if box is None:
        shares = shares.resize((size, size), Image.Resampling.BILINEAR)
    else:
        shares = part(shares, box, size, outside=0.0)
    return torch.from_numpy(np.array(shares))[None]


def visible_after_resizing(hidden: np.ndarray, size: int, box: Box | None = None) -> torch.Tensor:
    """(1, S, S) bool: the pixels of a resized image that no hidden pixel of the original has a share in.

    Arguments are those of `shares_after_resizing`.
    """
    return shares_after_resizing(hidden, size, box) == 0


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _broken(path: Path, error: Exception) -> ValueError:
    return ValueError(f"mask {path} could not be decoded ({str(error).replace(str(path), 'the file')})")
