"""Numbers or names beside keypoints, placed where they hide neither one another nor a keypoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import ImageDraw, ImageFont

LEAST_SIDE = 120  # pixels; on smaller pictures labels would hide what they are of
FONT, LEAST_FONT = 4.0, 10  # size of the letters in hundredths of the picture's side, and in pixels at the least
STROKE = 0.14  # of the outline, as a share of that
LINE = 0.8  # height of digits and letters, likewise
TURNS = (0, 1, -1, 2, -2, 3, -3, 4)  # eighths of a turn from outwards that are tried, in this order
Ink = tuple[tuple[int, int, int], tuple[int, int, int]]  # of letters and their outline
ON_PICTURE: Ink = ((255, 255, 255), (0, 0, 0))


def labels_of(count: int, names: Sequence[str] | None, side: int) -> list[str] | None:
    """What stands beside each keypoint, names or else numbers; None on a picture too small for it.

    Raises:
        ValueError: not as many names as keypoints.
    """
    if names is not None and len(names) != count:
        raise ValueError(f"names must be as many as the keypoints, {count}, got {len(names)}")
    if side < LEAST_SIDE:
        return None
    return [str(i) for i in range(count)] if names is None else list(names)


def reach(labels: Sequence[str] | None, side: int) -> int:
    """Pixels of a picture around the outermost keypoints that dots and labels may take up."""
    longest = max(map(len, labels), default=0) if labels else 0
    return math.ceil(max(LEAST_FONT, FONT / 100 * side) * longest + 0.03 * side)


def draw_labels(
    drawing: ImageDraw.ImageDraw,
    points: np.ndarray,
    labels: Sequence[str],
    *,
    dot: float,
    size: float,
    bounds: tuple[int, int],
    ink: Ink,
) -> None:
    """Write each keypoint's label beside it.

    Args:
        drawing: on the picture.
        points: (N, 2), xy in its pixels.
        labels: N texts.
        dot: radius of a keypoint's dot.
        size: of the letters, in pixels.
        bounds: (W, H) of the picture.
        ink: colours of letters and outline.
    """
    font = _font(max(1, round(size)))
    sizes = np.array([[font.getlength(label), LINE * size] for label in labels]).reshape(-1, 2)
    stroke = max(1, round(STROKE * size))
    for (x, y), label in zip(places(points, sizes, dot + stroke, bounds), labels, strict=True):
        drawing.text((x, y), label, ink[0], font, anchor="mm", stroke_width=stroke, stroke_fill=ink[1])


def places(points: np.ndarray, sizes: np.ndarray, dot: float, bounds: tuple[int, int]) -> np.ndarray:
    """Centres (N, 2) of labels of these sizes (N, 2): outwards, or aside where a dot, a label or the border is.

    Each label in turn takes the first of eight places around its keypoint that shares the least area with the others.
    """
    outwards = points - points.mean(axis=0, keepdims=True)
    first = np.arctan2(outwards[:, 1], outwards[:, 0])
    angles = first[:, None] + np.array(TURNS) * math.pi / 4
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    tried = points[:, None] + directions * (dot + sizes[:, None] / 2)
    dots = np.concatenate([points - dot, points + dot], axis=1)
    taken = np.zeros((0, 4))
    chosen = np.zeros_like(points)
    for i, candidates in enumerate(tried):
        boxes = np.concatenate([candidates - sizes[i] / 2, candidates + sizes[i] / 2], axis=1)
        hidden = _shared(boxes, np.concatenate([np.delete(dots, i, axis=0), taken])).sum(axis=1)
        inside = _shared(boxes, np.array([[0.0, 0.0, *bounds]]))[:, 0]
        best = int((hidden + sizes[i].prod() - inside).round(3).argmin())
        chosen[i] = candidates[best]
        taken = np.concatenate([taken, boxes[best : best + 1]])
    return chosen


def _shared(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(A, B), the area that boxes (A, 4) share with others (B, 4), each left, top, right, bottom."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
