"""Boxes around an animal: where they lie in the originals, and what a model sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ppl_fast.visualization._draw import to_image
from ppl_fast.visualization._sheet import PAPER, captioned, save_png, sheet

COLUMNS, CELL = 4, 220
LINE, EDGE = (230, 90, 20), (255, 255, 255)
LONGEST = 26  # characters of a name under a picture


def save_boxes(
    path: str | Path, originals: Sequence[Image.Image], boxes: Any, images: Any, names: Sequence[str], cell: int = CELL
) -> None:
    """Write a PNG of originals with their boxes, and beneath each what a model sees.

    Args:
        path: of the file; missing folders are made.
        originals: n RGB images.
        boxes: (n, 5), (x, y, width, height, angle) as `ppl_fast.data.boxes` has them. The side that is the top of
            what a model sees is drawn thicker.
        images: (n, 3, S, S) in [-1, 1], what it sees.
        names: n texts below the originals.
        cell: side in pixels of a picture.
    """
    above = [
        captioned(_boxed(original, box, cell), _short(name))
        for original, box, name in zip(originals, boxes, names, strict=True)
    ]
    below = [captioned(to_image(image, cell, "save_boxes").resize((cell, cell)), "") for image in images]
    rows = [part[i : i + COLUMNS] for i in range(0, len(above), COLUMNS) for part in (above, below)]
    save_png(path, sheet(rows, row_labels=["original", "seen"] * (len(rows) // 2)))


def _boxed(original: Image.Image, box: np.ndarray, cell: int) -> Image.Image:
    """The original in a square cell, with its box."""
    scale = cell / max(original.size)
    picture = Image.new("RGB", (cell, cell), PAPER)
    size = max(1, round(original.width * scale)), max(1, round(original.height * scale))
    left, top = (cell - size[0]) // 2, (cell - size[1]) // 2
    picture.paste(original.resize(size, Image.Resampling.BOX), (left, top))
    x, y, width, height, angle = map(float, box)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2) @ turn.T + (x, y)
    at = [tuple(corner) for corner in corners * scale + (left, top)]
    drawing = ImageDraw.Draw(picture)
    for colour, more in ((EDGE, 2), (LINE, 0)):
        drawing.line([*at, at[0]], colour, 2 + more, joint="curve")
        drawing.line(at[:2], colour, 5 + more)
    return picture


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"...{name[3 - LONGEST :]}"
