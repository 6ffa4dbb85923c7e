"""Shaded, patterned body parts on a transparent canvas: what the figures are drawn with.

Positions and lengths are in units of the image side, (x, y) from the top left corner, y down. The canvas is three
times the size of the image in each direction; averaging 3 x 3 cells makes the edges smooth.
"""

from dataclasses import dataclass

import numpy as np

OVERSAMPLING = 3
_AMBIENT, _DIFFUSE = 0.56, 0.52


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
        """(n, 3) colours at n places given in the part's own directions."""
        if self.pattern == "plain":
            return np.broadcast_to(self.colour, (len(across), 3))
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
    """RGB and coverage at three times the image's size; parts are painted back to front."""

    def __init__(self, size: int, light: tuple[float, float, float]):
        cells = size * OVERSAMPLING
        self.size = size
        self.light = np.asarray(light, dtype=np.float32) / np.float32(np.linalg.norm(light))
        self.colour = np.zeros((cells, cells, 3), dtype=np.float32)
        self.covered = np.zeros((cells, cells), dtype=bool)
        self.centres = ((np.arange(cells) + 0.5) / cells).astype(np.float32)

    def part(self, a, b, radii, paint: Paint, *, widths=(0.0, 0.0), until: float = 1.0, beyond: Paint | None = None):
        """A body part around the axis from ``a`` to ``b``, lit as if it were round.

        Its outline is the trapezoid with half-widths ``widths`` at the two ends, grown by ``radii``; with no width
        that is a tapered limb with round ends. From the share ``until`` of the axis on it is painted ``beyond``.
        """
        where, across, along, shares, outward = self._cells(a, b, radii, widths)
        colours = paint.at(across, along)
        if beyond is not None:
            colours = np.where((shares > until)[:, None], beyond.at(across, along), colours)
        towards = np.sqrt(np.maximum(0, 1 - (outward**2).sum(1)))
        lit = np.maximum(0, outward @ self.light[:2] + towards * self.light[2])
        self.colour[where] = colours * (_AMBIENT + _DIFFUSE * lit)[:, None]
        self.covered[where] = True

    def shadow(self, a, b, radii, *, widths=(0.0, 0.0), strength: float = 0.3, offset: float = 0.012):
        """Darken what lies behind a part that is about to be painted, on the side away from the light."""
        away = -self.light[:2] * offset
        where = self._cells(np.asarray(a) + away, np.asarray(b) + away, radii, widths)[0]
        self.colour[where] *= 1 - strength

    def over(self, background: np.ndarray) -> np.ndarray:
        """The figure over a background (S, S, 3) in [0, 1], averaged to its size: uint8 (S, S, 3)."""
        cells = (self.size, OVERSAMPLING, self.size, OVERSAMPLING)
        self.colour[~self.covered] = 0
        figure = np.einsum("iajbc->ijc", self.colour.reshape(*cells, 3)) / OVERSAMPLING**2
        coverage = self.covered.reshape(cells).sum((1, 3), dtype=np.float32)[..., None] / OVERSAMPLING**2
        image = figure + background * (1 - coverage)
        return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)

    def _cells(self, a, b, radii, widths):
        """Cells inside a part: index, distance across and along the axis, share of it, and the xy normal there."""
        a, b = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
        reach = max(widths) + max(radii)
        cells = len(self.centres)
        low = np.maximum(((np.minimum(a, b) - reach) * cells).astype(int), 0)
        high = np.minimum(((np.maximum(a, b) + reach) * cells).astype(int) + 2, cells)
        x = self.centres[low[0] : max(high[0], low[0])] - a[0]
        y = self.centres[low[1] : max(high[1], low[1]), None] - a[1]
        length = max(float(np.hypot(*(b - a))), 1e-6)
        axis = (b - a) / np.float32(length)
        along = x * axis[0] + y * axis[1]
        across = y * axis[0] - x * axis[1]
        shares = (along / length).clip(0, 1)
        width = widths[0] + (widths[1] - widths[0]) * shares
        radius = radii[0] + (radii[1] - radii[0]) * shares
        past = along - shares * length
        inside = np.maximum(np.abs(across) - width, 0) ** 2 + past**2 < radius**2
        rows, columns = np.nonzero(inside)
        across, along, shares = across[inside], along[inside], shares[inside]
        side, end = across / (width + radius)[inside], past[inside] / radius[inside]
        outward = np.stack([end * axis[0] - side * axis[1], end * axis[1] + side * axis[0]], axis=1)
        return (rows + low[1], columns + low[0]), across, along, shares, outward
