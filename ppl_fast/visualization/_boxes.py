"""Boxes around an animal: where they lie in the originals, and what a model sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ppl_fast.visualization._draw import to_image
from ppl_fast.visualization._sheet import GAP, PAPER, captioned, save_png, sheet, shortened, with_legend

COLUMNS, CELL = 4, 220
LINE, EDGE = (230, 90, 20), (255, 255, 255)
TEXT = "Above, the originals with their boxes; below, what the model sees, whose top is a box's thicker side."


def save_boxes(
    path: str | Path,
    originals: Sequence[Image.Image],
    boxes: Any,
    images: Any,
    names: Sequence[str],
    *,
    cell: int = CELL,
) -> None:
    """Write a PNG of originals with their boxes, and beneath each what a model sees.

    Args:
        path: of the file; missing folders are made.
        originals: n RGB images.
        boxes: (n, 5), (x, y, width, height, angle) as `ppl_fast.data.boxes` has them. The side that is the top of
            what a model sees is drawn thicker.
        images: (n, 3, S, S) in [-1, 1], what it sees.
        names: n texts below.
        cell: side in pixels of what it sees, and longer side of an original.
    """
    height = max(_size(original, cell)[1] for original in originals)
    pairs = []
    for original, box, image, name in zip(originals, boxes, images, names, strict=True):
        pair = Image.new("RGB", (cell, height + GAP + cell), PAPER)
        pair.paste(_boxed(original, box, (cell, height)), (0, 0))
        pair.paste(to_image(image, cell, "save_boxes").resize((cell, cell)), (0, height + GAP))
        pairs.append(captioned(pair, shortened(name)))
    page = sheet([pairs[i : i + COLUMNS] for i in range(0, len(pairs), COLUMNS)])
    save_png(path, with_legend(page, 0, TEXT))


def _size(original: Image.Image, cell: int) -> tuple[int, int]:
    """Width and height of an original whose longer side is `cell`."""
    scale = cell / max(original.size)
    return max(1, round(original.width * scale)), max(1, round(original.height * scale))


def _boxed(original: Image.Image, box: np.ndarray, cell: tuple[int, int]) -> Image.Image:
    """The original in the middle of a cell (W, H), with its box."""
    size = _size(original, cell[0])
    scale = cell[0] / max(original.size)
    picture = Image.new("RGB", cell, PAPER)
    left, top = (cell[0] - size[0]) // 2, (cell[1] - size[1]) // 2
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
