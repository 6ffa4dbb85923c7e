"""Where the subject of images is taken to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppl_fast.visualization._draw import to_image
from ppl_fast.visualization._sheet import captioned, save_png, sheet, shortened, with_legend

COLUMNS, CELL = 4, 220
DIMMED, VEIL = 0.25, (90, 96, 110)  # what is left of an image beside the subject, and the colour that covers it
TEXT = "What is taken for the subject; the rest is dimmed. An image without a mask is shown as it is."


def save_subjects(path: str | Path, images: Any, masks: Any, names: Sequence[str], *, cell: int = CELL) -> None:
    """Write a PNG of images in which all but the subject is dimmed.

    Args:
        path: of the file; missing folders are made.
        images: (n, 3, S, S) in [-1, 1].
        masks: (n, 1, S, S) in [0, 1], the subject's share of each pixel; below 0 throughout where that is unknown.
        names: n texts below.
        cell: side of an image in pixels.
    """
    pictures = []
    for image, mask, name in zip(images, masks, names, strict=True):
        picture = to_image(image, cell, "save_subjects").resize((cell, cell))
        share = np.asarray(mask, np.float32)[0]
        if share.min() >= 0:
            shown = Image.fromarray(np.uint8(255 * (DIMMED + (1 - DIMMED) * share))).resize(
                (cell, cell), Image.Resampling.NEAREST
            )
            picture = Image.composite(picture, Image.new("RGB", (cell, cell), VEIL), shown)
        pictures.append(captioned(picture, shortened(name)))
    page = sheet([pictures[i : i + COLUMNS] for i in range(0, len(pictures), COLUMNS)])
    save_png(path, with_legend(page, 0, TEXT))
