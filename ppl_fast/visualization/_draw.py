"""Keypoints and links drawn on an image: colours, opacity and antialiasing, the same in every picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ppl_fast._extras import needing

with needing("ppl_fast.visualization needs", "viz"):
    from PIL import Image, ImageDraw

    from ppl_fast.visualization._labels import FONT, LEAST_FONT, ON_PICTURE, Ink, draw_labels

SUPERSAMPLE = 3  # drawn this many times larger, then averaged
INK = 1.5  # links' opacities sum to at most this many per keypoint, or 120 equal links would be one black blot
CONTRAST = 1.5  # power of the relative weight: what carries the pose stands out from what is merely there
FAINTEST = 0.1  # links below this fraction of the strongest opacity are not drawn
# Chosen from the colours that stand out from white and from near black, so that the two least different of the first n
# differ as much as can be: for normal vision, and for the three kinds of dichromacy as Machado, Oliveira and Fernandes
# simulate them ("A physiologically-based model for simulation of color vision deficiency", 2009, severity 1).
COLOURS = [
    "8855bb", "aadd99", "cc4400", "dd88ff", "881166", "ee8800", "6611aa", "0000ff", "11eeee", "aa4477", "aa77bb",
    "aa0000", "4477ff", "88bb88", "ffbb00", "cc6677", "44cccc", "ee5544", "8811cc", "554488", "cc88aa", "991144",
    "bbbbff", "55aadd",
]  # fmt: skip


def palette(count: int) -> list[tuple[int, int, int]]:
    """One RGB colour per keypoint, the same for a keypoint whatever the number of them; after 24 they come again.

    The first 16 are told apart by people who see no red, green or blue as well: in each of these views they lie at
    least 0.1 apart in OKLab. Where they come again, the numbers drawn beside the keypoints tell.
    """
    rgb = [(int(colour[:2], 16), int(colour[2:4], 16), int(colour[4:], 16)) for colour in COLOURS]
    return [rgb[i % len(rgb)] for i in range(count)]


def drawn(opacity: np.ndarray) -> np.ndarray:
    """(E,) bool, the links strong enough to be drawn."""
    return opacity > FAINTEST * opacity.max(initial=0)


def opacities(weights: np.ndarray, keypoints: int) -> np.ndarray:
    """(E,) opacity in [0, 1] of links: a power of the relative weight, held to an overall amount of ink."""
    weights = np.clip(weights, 0, None)
    if not len(weights) or weights.max() <= 0:
        return np.zeros(len(weights))
    strength = (weights / weights.max()) ** CONTRAST
    return strength * min(1.0, INK * keypoints / strength.sum())


def pose_arrays(caller: str, keypoints: Any, links: Any, weights: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints (..., N, 2), links (E, 2) and weights (E,) as NumPy arrays, checked to fit together."""
    points, ends, heavy = (as_array(value) for value in (keypoints, links, weights))
    points, heavy = points.astype(np.float64), heavy.astype(np.float64)
    if points.ndim < 2 or points.shape[-1] != 2:
        raise ValueError(f"{caller}: keypoints must have shape (..., N, 2), got {points.shape}")
    if not np.isfinite(points).all():
        raise ValueError(f"{caller}: keypoints must be finite, got NaN or infinity")
    if heavy.ndim != 1 or ends.shape != (len(heavy), 2):
        raise ValueError(f"{caller}: links must have shape (E, 2) and weights (E,), got {ends.shape} and {heavy.shape}")
    if len(ends) and (ends.min() < 0 or ends.max() >= points.shape[-2]):
        raise ValueError(
            f"{caller}: links must hold keypoint numbers below {points.shape[-2]}, got {ends.min()} to {ends.max()}"
        )
    return points, ends.astype(np.int64), heavy


def as_array(value: Any) -> np.ndarray:
    """A tensor on any device, or an array-like, as a NumPy array."""
    if not isinstance(value, torch.Tensor):
        return np.asarray(value)
    value = value.detach().cpu()
    return (value.float() if value.is_floating_point() else value).numpy()


def draw_pose(
    image: Image.Image,
    points: np.ndarray,
    links: np.ndarray,
    weights: np.ndarray,
    *,
    size: float = 1.0,
    colours: list[tuple[int, int, int]] | None = None,
    labels: Sequence[str] | None = None,
    ink: Ink = ON_PICTURE,
) -> Image.Image:
    """A copy of an RGB image with links, opacity by weight, and keypoints over them.

    Args:
        image: RGB.
        points: (N, 2), xy in pixels of the image.
        links: (E, 2) keypoint numbers.
        weights: (E,), opacity.
        size: thickness of lines and dots relative to the picture's.
        colours: RGB per keypoint, default `palette`; a link takes the mean of its ends'.
        labels: N texts to write beside the keypoints.
        ink: colours of their letters and outline.
    """
    colours = colours or palette(len(points))
    factor = SUPERSAMPLE if max(image.size) <= 2048 else 1
    large = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    drawing = ImageDraw.Draw(large, "RGBA")
    unit = size * min(large.size) / 100
    at = [tuple(p) for p in (points + 0.5) * factor - 0.5]
    opacity = opacities(weights, len(points))
    order = np.argsort(opacity, kind="stable")
    for e in order[drawn(opacity)[order]]:
        i, j = links[e]
        colour = tuple((a + b) // 2 for a, b in zip(colours[i], colours[j], strict=True))
        drawing.line([at[i], at[j]], (255, 255, 255, round(140 * opacity[e])), max(round(2.9 * unit), 1))
        drawing.line([at[i], at[j]], (*colour, round(255 * opacity[e])), max(round(1.7 * unit), 1))
    for (x, y), colour in zip(at, colours, strict=True):
        for radius, fill in ((2.5 * unit, (255, 255, 255, 255)), (1.9 * unit, (*colour, 255))):
            drawing.ellipse([x - radius, y - radius, x + radius, y + radius], fill)
    if labels:
        letters = max(FONT * unit, LEAST_FONT * factor)
        draw_labels(drawing, np.array(at), labels, dot=2.5 * unit, size=letters, bounds=large.size, ink=ink)
    return large.reduce(factor)  # pixels that nothing was drawn on come back as they were


def to_image(image: Any, side: int, caller: str) -> Image.Image:
    """One image (3, H, W) in [-1, 1] as RGB, scaled up so that the longer side has about `side` pixels.

    Whole factors only, so that every pixel of a small image stays crisp and equally large.
    """
    array = as_array(image)
    if array.ndim != 3 or array.shape[0] != 3:
        raise ValueError(f"{caller}: images must have shape (B, 3, H, W), got one of shape {array.shape}")
    pixels = np.round((np.nan_to_num(array).clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    factor = max(1, round(side / max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC)


def in_picture(keypoints: np.ndarray, size: tuple[int, int], resolution: tuple[int, int]) -> np.ndarray:
    """Keypoints (N, 2) in [-1, 1] of an image of `resolution` (W, H), as pixels of it scaled to `size` (W, H)."""
    seen, drawn = np.asarray(resolution, float), np.asarray(size, float)
    return ((keypoints + 1) / 2 * (seen - 1) + 0.5) * drawn / seen - 0.5
