"""Backgrounds for the figures, drawn at the size they are used at with soft edges."""

import numpy as np
from PIL import Image


def _noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise (size, size) of about unit spread, ``cells`` bumps a side."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def _soft(distance: np.ndarray, size: int) -> np.ndarray:
    """Coverage of a shape from signed distances (negative inside) in units of the image side: one pixel wide."""
    return np.clip(0.5 - distance * size, 0, 1)[..., None]


def room(rng: np.random.Generator, size: int, saturation: float = 0.12, clutter: int = 3) -> np.ndarray:
    """A wall with a few flat things on it and a floor: float32 (size, size, 3) in [0, 1]."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    wall, floor = _tint(rng, 0.72, saturation), _tint(rng, 0.52, saturation)
    image = wall * (1.06 - 0.2 * y + 0.08 * (x - 0.5))[..., None]
    for _ in range(clutter):
        centre, half = rng.uniform((0, 0.05), (1, 0.6)), rng.uniform(0.05, 0.2, 2)
        distance = np.maximum(np.abs(x - centre[0]) - half[0], np.abs(y - centre[1]) - half[1])
        cover = 0.8 * _soft(distance, size)
        image = image * (1 - cover) + _tint(rng, rng.uniform(0.5, 0.85), saturation) * cover
    horizon = rng.uniform(0.68, 0.8)
    ground = _soft(horizon - y, size)
    image = image * (1 - ground) + floor * (0.8 + 0.35 * (y - horizon) / (1 - horizon))[..., None] * ground
    texture = 0.025 * _noise(rng, size, 5) + 0.015 * _noise(rng, size, 17)
    return np.clip(image + texture[..., None], 0, 1).astype(np.float32)


def _tint(rng: np.random.Generator, value: float, saturation: float) -> np.ndarray:
    """A colour of about the given brightness, away from gray by ``saturation``."""
    return np.clip(value + saturation * rng.uniform(-1, 1, 3), 0, 1).astype(np.float32)
