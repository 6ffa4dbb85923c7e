"""The part of an image that a model sees, as a box in the original, and its pixels.

A box is five float64 numbers, (x, y, width, height, angle): the centre and the size in pixels of the original, counted
from the outer corner of its first pixel, whose centre is (0.5, 0.5); and the angle in radians from the original's x
axis to the box's, clockwise to the eye. NaN throughout is no box: nothing to see.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ppl_fast.data.pixels import as_tensor, resized

GREY = (127, 127, 127)  # 0 to a model, as hidden pixels are to it: what lies outside of the image
LARGEST = 16  # times the longer side of the image

Box = NDArray[np.float64]
NOTHING: Box = np.full(5, np.nan)


def whole(size: tuple[int, int], fit: str) -> Box | None:
    """The box of an image of (W, H).

    Args:
        size: (W, H) in pixels.
        fit: "squash": the image as it is, stretched to the model's square, for which None stands; "pad": the smallest
            square around it; "crop": the largest square in its middle.
    """
    if fit == "squash":
        return None
    side = max(size) if fit == "pad" else min(size)
    return np.array([size[0] / 2, size[1] / 2, side, side, 0.0])


def seen(image: Image.Image, box: Box | None, size: int) -> torch.Tensor:
    """The pixels of a box as uint8 (3, size, size), antialiased; grey outside of the image, and where there is no box.

    Args:
        image: RGB.
        box: (5,), or None for the image as it is.
        size: S.

    Raises:
        ValueError: the box is empty or larger than reason allows.
    """
    return resized(image, size) if box is None else as_tensor(part(image, box, size, GREY))


def part(image: Image.Image, box: Box, size: int, outside: float | tuple[int, ...]) -> Image.Image:
    """A box as an image of size x size in the mode of the original, `outside` where there is none of it.

    Args:
        image: of any mode.
        box: (5,).
        size: S.
        outside: value of a pixel.

    Raises:
        ValueError: the box is empty or larger than reason allows.
    """
    if np.isnan(box).all():
        return Image.new(image.mode, (size, size), outside)
    x, y, width, height, angle = map(float, box)
    most = LARGEST * max(image.size)
    if not (0 < width <= most and 0 < height <= most and max(abs(x), abs(y)) <= most and math.isfinite(angle)):
        raise ValueError(f"a box must have sides of up to {most} pixels at such a place, got {box.tolist()}")
    return (_turned if angle else _upright)(image, box, size, outside)


def _upright(image: Image.Image, box: Box, size: int, outside: float | tuple[int, ...]) -> Image.Image:
    x, y, width, height, _ = map(float, box)
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    inside = left >= 0 and top >= 0 and right <= image.width and bottom <= image.height
    if not inside:  # no more of it is laid on `outside` than is seen
        first = math.floor(left), math.floor(top)
        canvas = Image.new(image.mode, (math.ceil(right) - first[0], math.ceil(bottom) - first[1]), outside)
        canvas.paste(image, (-first[0], -first[1]))
        image, left, right = canvas, left - first[0], right - first[0]
        top, bottom = top - first[1], bottom - first[1]
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def _turned(image: Image.Image, box: Box, size: int, outside: float | tuple[int, ...]) -> Image.Image:
    """By Pillow's bilinear look-up, at a multiple of the size that leaves out no pixel, and the mean of each block."""
    x, y, width, height, angle = map(float, box)
    times = max(1, math.ceil(max(width, height) / size))
    step_x, step_y = width / (times * size), height / (times * size)
    cosine, sine = math.cos(angle), math.sin(angle)
    corner = x - (cosine * width - sine * height) / 2, y - (sine * width + cosine * height) / 2
    matrix = (cosine * step_x, -sine * step_y, corner[0], sine * step_x, cosine * step_y, corner[1])
    large = (times * size, times * size)
    found = image.transform(large, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=outside)
    return found.reduce(times) if times > 1 else found
