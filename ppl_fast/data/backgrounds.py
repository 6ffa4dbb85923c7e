"""Scenes behind the figures: rooms and meadows, drawn at their final size with edges one pixel soft."""

import numpy as np
from PIL import Image

from ppl_fast.data.drawing import rgb

_WALLS = ["d9d0c1", "c6d2d4", "dac7bc", "ccd5c0", "c9c8da", "e2d7b4", "b7c5c4", "d3d3d1"]
_FLOORS = ["a88a6a", "8f9095", "7d6b5c", "b3a88f", "77858d", "96785c"]
_ACCENTS = ["b9604e", "d9a35b", "6f9487", "5f7fa3", "8a7799", "7c8a5b", "ded4c2", "4f5a66"]
_SKIES = [("9cc4e4", "e4eef2"), ("b9c7d3", "eceae4"), ("86b3dd", "f2e3cf"), ("c3d4e6", "f5efe6")]
_MEADOWS = ["8fa858", "a5aa62", "77995a", "b4a469", "8b9f6e", "c0ad7c"]
_WOODS = ["5d7f55", "4f7258", "6f8457", "857c4d", "58776b"]


class Scene:
    """An image to paint on, (x, y) in units of its side from the top left corner."""

    def __init__(self, size: int, colour: np.ndarray):
        self.size = size
        self.x = ((np.arange(size, dtype=np.float32) + 0.5) / size)[None]
        self.y = self.x.T
        self.image = np.broadcast_to(colour, (size, size, 3)).astype(np.float32)

    def fill(self, distance: np.ndarray, colour: np.ndarray, opacity: float = 1.0) -> None:
        """Paint where the signed distance to a shape's edge is negative."""
        cover = (opacity * np.clip(0.5 - distance * self.size, 0, 1))[..., None]
        self.image += cover * (colour - self.image)

    def box(
        self, left: float, top: float, right: float, bottom: float, colour: np.ndarray, opacity: float = 1.0
    ) -> None:
        """Paint a rectangle, its sides in the scene's units."""
        beside, beyond = np.maximum(left - self.x, self.x - right), np.maximum(top - self.y, self.y - bottom)
        self.fill(np.maximum(beside, beyond), colour, opacity)

    def disc(self, x: float, y: float, radius: float, colour: np.ndarray) -> None:
        """Paint a disc around (x, y)."""
        self.fill(np.sqrt((self.x - x) ** 2 + (self.y - y) ** 2) - radius, colour)

    def brighten(self, factor: np.ndarray) -> None:
        """Multiply each pixel by its factor, (size, size)."""
        self.image *= factor[..., None]

    def finished(self) -> np.ndarray:
        """The image, float32 (size, size, 3) in [0, 1]."""
        return self.image.clip(0, 1)


def room(rng: np.random.Generator, size: int, busy: bool = False) -> np.ndarray:
    """A wall with pictures, a window or a door, and a floor: float32 (size, size, 3) in [0, 1]."""
    wall = _near(rng, rng.choice(_WALLS), 0.25 if busy else 0.03)
    scene = Scene(size, wall)
    scene.brighten(1.05 - 0.16 * scene.y + 0.08 * rng.choice([-1, 1]) * (scene.x - 0.5))
    horizon = rng.uniform(0.7, 0.79)
    if rng.random() < 0.3:
        scene.box(-1, rng.uniform(0.45, 0.6), 2, horizon, rgb(rng.choice(_ACCENTS)), opacity=0.45)
    things = rng.integers(2, 6) if busy else 2
    for place in range(things):
        thing = (_picture, _window, _door)[rng.choice(3, p=(0.45, 0.3, 0.25))]
        thing(rng, scene, (place + rng.uniform(0.2, 0.8)) / things, horizon)
    scene.box(-1, horizon - 0.022, 2, horizon, 0.5 * wall + 0.5)
    scene.box(-1, horizon, 2, 2, _near(rng, rng.choice(_FLOORS), 0.2 if busy else 0.03))
    _boards(scene, horizon, rng.uniform(0.3, 0.7))
    scene.brighten(1 + 0.018 * _noise(rng, size, 6) + 0.012 * _noise(rng, size, 23))
    return scene.finished()


def meadow(rng: np.random.Generator, size: int, busy: bool = False) -> np.ndarray:
    """Sky, hills, trees and grass: float32 (size, size, 3) in [0, 1]."""
    spread = 0.15 if busy else 0.03
    top, low = (_near(rng, code, spread) for code in _SKIES[rng.integers(len(_SKIES))])
    scene = Scene(size, low)
    horizon = rng.uniform(0.42, 0.56)
    scene.image += (top - low) * np.clip(1 - scene.y / horizon, 0, 1)[..., None]
    wood, grass = _near(rng, rng.choice(_WOODS), spread), _near(rng, rng.choice(_MEADOWS), spread)
    for layer, haze in enumerate((0.55, 0.3)):
        waves, phases = rng.uniform(3, 12, 2), rng.uniform(0, 6, 2)
        ridge = 0.7 + 0.5 * np.sin(waves[0] * scene.x + phases[0]) + 0.3 * np.sin(waves[1] * scene.x + phases[1])
        colour = haze * low + (1 - haze) * (wood + layer * (grass - wood) / 2)
        scene.fill(horizon - (0.09 - 0.05 * layer) * ridge - scene.y, colour)
    for _ in range(rng.integers(3, 7) if busy else 2):
        _tree(rng, scene, horizon, wood)
    scene.fill(horizon + 0.01 * np.sin(5 * scene.x + rng.uniform(0, 6)) - scene.y, grass)
    depth = np.clip((scene.y - horizon) / (1 - horizon), 0, 1)
    blades = 0.03 * _noise(rng, size, 9) + 0.06 * depth * _noise(rng, size, 31)
    scene.brighten(np.where(depth > 0, 1.08 - 0.2 * depth + blades, 1 + 0.01 * _noise(rng, size, 5)))
    return scene.finished()


def ground_shadow(scene: np.ndarray, feet: np.ndarray) -> np.ndarray:
    """The scene with a soft shadow under the feet, (n, 2) in units of the image side."""
    centres = (np.arange(len(scene), dtype=np.float32) + 0.5) / len(scene)
    middle, low, half = feet[:, 0].mean(), feet[:, 1].max() + 0.012, 0.07 + np.ptp(feet[:, 0]) / 2
    dark = np.outer(np.exp(-(((centres - low) / 0.022) ** 2)), np.exp(-(((centres - middle) / half) ** 4)))
    return scene * (1 - 0.35 * dark)[..., None].astype(np.float32)


def _near(rng: np.random.Generator, code: str, spread: float) -> np.ndarray:
    """A colour, moved at random by up to `spread` in each channel."""
    return (rgb(code) + rng.uniform(-spread, spread, 3)).clip(0, 1).astype(np.float32)


def _noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise (size, size) of about unit spread, `cells` bumps a side."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def _picture(rng: np.random.Generator, scene: Scene, x: float, horizon: float) -> None:
    y, (w, h) = rng.uniform(0.12, 0.4), rng.uniform(0.06, 0.12, 2)
    inner, second = (rgb(code) for code in rng.choice(_ACCENTS, 2, replace=False))
    scene.box(x - w - 0.012, y - h - 0.012, x + w + 0.012, y + h + 0.012, rgb("4a4038"))
    scene.box(x - w, y - h, x + w, y + h, inner)
    scene.box(x - w, y + h * rng.uniform(-0.3, 0.6), x + w, y + h, second)


def _window(rng: np.random.Generator, scene: Scene, x: float, horizon: float) -> None:
    y, w, h = rng.uniform(0.18, 0.32), rng.uniform(0.1, 0.15), rng.uniform(0.13, 0.18)
    scene.box(x - w - 0.015, y - h - 0.015, x + w + 0.015, y + h + 0.02, rgb("f0ece3"))
    for left in (x - w, x + 0.008):
        scene.box(left, y - h, left + w - 0.008, y + h, rgb("b3d0e2"))
        scene.box(left, y + 0.4 * h, left + w - 0.008, y + h, rgb("a9bf9c"))


def _door(rng: np.random.Generator, scene: Scene, x: float, horizon: float) -> None:
    w, top = rng.uniform(0.09, 0.13), rng.uniform(0.18, 0.28)
    wood = rgb(rng.choice(["8a6a4d", "cfc4b2", "6b7b80", "a3543f"]))
    scene.box(x - w - 0.015, top - 0.015, x + w + 0.015, horizon, 0.6 * wood + 0.4)
    scene.box(x - w, top, x + w, horizon, wood)
    scene.disc(x + 0.72 * w, (top + horizon) / 2 + 0.03, 0.012, rgb("e0c878"))


def _boards(scene: Scene, horizon: float, vanishing: float) -> None:
    """Floor boards that run towards a point at eye level."""
    depth = scene.y - (horizon - 0.35)
    position = (scene.x - vanishing) / depth * 3.2
    to_seam = np.abs(position - np.round(position)) * depth / 3.2
    seam = np.clip(1 - to_seam / max(0.004, 1 / scene.size), 0, 1)
    scene.brighten(np.where(scene.y > horizon, (1.05 - 0.25 * (scene.y - horizon)) * (1 - 0.12 * seam), 1))


def _tree(rng: np.random.Generator, scene: Scene, horizon: float, leaf: np.ndarray) -> None:
    x, height = rng.uniform(0, 1), rng.uniform(0.1, 0.22)
    scene.box(x - 0.012, horizon - 0.5 * height, x + 0.012, horizon + 0.01, rgb("6a5844"))
    for shade in (0.82, 1.0, 1.12):
        dx, dy = rng.uniform(-0.35, 0.35, 2) * height
        scene.disc(x + dx, horizon - 0.8 * height + dy, 0.38 * height, (leaf * shade).clip(0, 1))
