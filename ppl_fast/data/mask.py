"""Images of masks, white where something is hidden, and what of a resized image that concerns."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ppl_fast.data.boxes import Box, part
from ppl_fast.data.image_file import opened, to_rgb, upright_size
from ppl_fast.data.image_set import SMALLEST_SIDE, UNREADABLE
from ppl_fast.data.kinds import MAX_PIXELS

WHITE = 128  # brightness from which on a pixel counts as white: masks that were saved as JPEG are not pure


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


def visible_after_resizing(hidden: np.ndarray, size: int, box: Box | None = None) -> torch.Tensor:
    """(1, S, S) bool: the pixels of a resized image that no hidden pixel of the original has a share in.

    Args:
        hidden: (H, W) bool, of the original.
        size: S, to which images are resized as by `ppl_fast.data.boxes.seen`, by the same filter.
        box: what is seen of the original, as there. What lies outside of the original is not hidden.
    """
    shares = Image.fromarray(hidden.astype(np.float32))
    if box is None:
        shares = shares.resize((size, size), Image.Resampling.BILINEAR)
    else:
        shares = part(shares, box, size, outside=0.0)
    return torch.from_numpy(np.asarray(shares) == 0)[None]


def _broken(path: Path, error: Exception) -> ValueError:
    return ValueError(f"mask {path} could not be decoded ({str(error).replace(str(path), 'the file')})")
