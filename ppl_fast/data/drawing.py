"""Shaded, patterned body parts on a transparent canvas: what the figures are drawn with.

Positions and lengths are in units of the image side, (x, y) from the top left corner, y down. The canvas is three
times the size of the image in each direction; averaging 3 x 3 cells makes the edges smooth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

Point = Sequence[float] | np.ndarray  # (x, y)
Pair = tuple[float, float] | np.ndarray  # one at each end of a part
OVERSAMPLING = 3
_AMBIENT, _DIFFUSE = 0.56, 0.52
_THROWN = 0.012  # how far a shadow lies from what throws it


def rgb(code: str) -> np.ndarray:
    """A colour in [0, 1] from six hexadecimal digits."""
    return np.frombuffer(bytes.fromhex(code), dtype=np.uint8).astype(np.float32) / 255


@dataclass(frozen=True)
class Paint:
    """A colour, or two in a pattern.

    Attributes:
        colour, second: RGB in [0, 1], (3,) float32.
        pattern: plain, hoops (across the part), stripes (along it), checks, dots or patches.
        period: length of one repeat.
        phase: where the pattern starts, in repeats.
    """

    colour: np.ndarray
    second: np.ndarray | None = None
    pattern: str = "plain"
    period: float = 0.05
    phase: float = 0.0

    def at(self, across: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Colours, (n, 3) or one (3,), at n places given in the part's own directions."""
        if self.pattern == "plain" or self.second is None:
            return self.colour
        u, v = across / self.period + self.phase, along / self.period + self.phase
        if self.pattern == "hoops":
            second = v % 1 < 0.45
        elif self.pattern == "stripes":
            second = u % 1 < 0.45
        elif self.pattern == "checks":
            second = (u % 1 < 0.5) ^ (v % 1 < 0.5)
        elif self.pattern == "dots":
            second = (u % 1 - 0.5) ** 2 + (v % 1 - 0.5) ** 2 < 0.09
        else:
            second = np.sin(2.1 * u + 1.3 * np.sin(1.7 * v)) + np.sin(1.9 * v + 1.6 * np.sin(1.2 * u)) > 0.5
        return np.where(second[:, None], self.second, self.colour)


class Canvas:
    """RGB and coverage at three times the image's size; parts are painted back to front.

    Args:
        size: pixels a side of the finished image.
        light: direction towards the light, (x, y, towards the viewer), of any length.
    """

    def __init__(self, size: int, light: tuple[float, float, float] = (-0.5, -0.6, 0.65)):
        self.size, self.cells = size, size * OVERSAMPLING
        self.light = [component / math.hypot(*light) for component in light]
        self.colour = np.zeros((self.cells**2, 3), dtype=np.float32)
        self.covered = np.zeros(self.cells**2, dtype=np.float32)
        self.centres = ((np.arange(self.cells) + 0.5) / self.cells).astype(np.float32)

    def part(
        self,
        a: Point,
        b: Point,
        radii: Pair,
        paint: Paint,
        *,
        widths: Pair = (0, 0),
        until: float = 1.0,
        beyond: Paint | None = None,
        caps: float = 0.35,
    ) -> None:
        """A body part around the axis from `a` to `b`, lit as if it were round.

        Its outline is the trapezoid with half-widths `widths` at the two ends, grown by `radii`; with no width
        that is a tapered limb with round ends. From the share `until` of the axis on it is painted `beyond`.
        `caps` says how round the ends are lit: 1 as a ball, 0 as a cut tube, whose joints show no seam.
        """
        where, (cos, sin), across, along, shares, side, end = self._cells(a, b, radii, widths)
        if until <= 0 and beyond is not None:
            paint = beyond
        colours = paint.at(across, along)
        if beyond is not None and 0 < until < 1:
            colours = np.where((shares > until)[:, None], beyond.at(across, along), colours)
        end *= caps
        right, down, out = self.light
        lit = end * (right * cos + down * sin) + side * (down * cos - right * sin)
        lit += out * np.sqrt(np.maximum(1 - side * side - end * end, 0))
        self.colour[where] = colours * (_AMBIENT + _DIFFUSE * np.maximum(lit, 0))[:, None]
        self.covered[where] = 1

    def dot(self, centre: Point, radius: float, paint: Paint) -> None:
        """A small ball."""
        self.part(centre, np.asarray(centre) + 1e-4, (radius, radius), paint, caps=1)

    def shadow(self, a: Point, b: Point, radii: Pair, strength: float = 0.3) -> None:
        """Darken what lies behind a part that is about to be painted, on the side away from the light."""
        dx, dy = (_THROWN * component for component in self.light[:2])
        where = self._cells((a[0] - dx, a[1] - dy), (b[0] - dx, b[1] - dy), radii, (0, 0))[0]
        self.colour[where] *= 1 - strength

    def over(self, background: np.ndarray) -> np.ndarray:
        """The figure over a background (S, S, 3) in [0, 1], averaged to its size: uint8 (S, S, 3)."""
        coverage = self.coverage()
        image = self._average(self.colour.reshape(self.cells, self.cells, 3)) + background * (1 - coverage)
        return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)

    def coverage(self) -> np.ndarray:
        """(S, S, 1) in [0, 1], the share of each pixel that the figure covers."""
        return self._average(self.covered.reshape(self.cells, self.cells, 1))

    def _average(self, cells: np.ndarray) -> np.ndarray:
        """(S, S, channels) means of squares of cells; sums of slices, several times faster than mean over axes."""
        rows = reduce(np.add, [cells[i::OVERSAMPLING] for i in range(OVERSAMPLING)])
        return reduce(np.add, [rows[:, i::OVERSAMPLING] for i in range(OVERSAMPLING)]) / OVERSAMPLING**2

    def _cells(
        self, a: Point, b: Point, radii: Pair, widths: Pair
    ) -> tuple[np.ndarray, tuple[float, float], np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Cells inside a part.

        Returns their flat indices, the axis as a unit vector, and for each cell its distance across and along the
        axis, its share of it, and the components of the surface normal across the axis and along it.
        """
        ax, ay, bx, by = float(a[0]), float(a[1]), float(b[0]), float(b[1])
        length = max(math.hypot(bx - ax, by - ay), 1e-6)
        cos, sin = (bx - ax) / length, (by - ay) / length
        reach = max(widths) + max(radii)
        left, top = max(0, int((min(ax, bx) - reach) * self.cells)), max(0, int((min(ay, by) - reach) * self.cells))
        right, bottom = int((max(ax, bx) + reach) * self.cells) + 2, int((max(ay, by) + reach) * self.cells) + 2
        x, y = self.centres[left : max(right, 0)] - ax, self.centres[top : max(bottom, 0), None] - ay

        along, across = x * cos + y * sin, y * cos - x * sin
        nearest = along.clip(0, length)
        radius = nearest * ((radii[1] - radii[0]) / length) + radii[0]
        past, beside = along - nearest, across
        if max(widths) > 0:
            width = nearest * ((widths[1] - widths[0]) / length) + widths[0]
            beside, radius_and_width = np.maximum(np.abs(across) - width, 0), radius + width
        else:
            radius_and_width = radius
        inside = np.flatnonzero(past * past + beside * beside < radius * radius)
        across, along = across.take(inside), along.take(inside)
        share, side, end = nearest.take(inside), radius_and_width.take(inside), past.take(inside)
        row, column = np.divmod(inside, max(len(x), 1))
        where = (row + top) * self.cells + (column + left)
        return where, (cos, sin), across, along, share / length, across / side, end / radius.take(inside)
