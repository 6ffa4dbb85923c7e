"""So many frames of a video, chosen while it is read once."""

from __future__ import annotations

import zlib

import numpy as np
from PIL import Image

from ppl_fast.options.footage import Selection

THUMB = 32  # pixels a side that differences are looked for in
STILL = 0.1  # what a frame without any difference counts for, in grey levels of 255
SPARE = 2  # times the frames asked for that are kept while a video is read


class Thinning:
    """The choice of frames of one video that are shown to it in order.

    Each frame has a position: its number, or how much has changed up to it. Positions are cut into cells of one
    length, and the first frame of each is kept; when too many are, the cells double. So no more than `SPARE` times the
    frames asked for are ever kept, however long the video, and no fewer than are asked for.

    Args:
        selection: which frames.
        name: of the video.
    """

    def __init__(self, selection: Selection, name: str):
        self._selection, self._seed = selection, zlib.crc32(name.encode("utf-8", "surrogateescape"))
        self._most = SPARE * selection.frames
        self._cell = STILL if selection.by == "difference" else 1.0
        self._kept: list[tuple[float, int]] = []  # position and place
        self._free: list[int] = []
        self._last: np.ndarray | None = None
        self._position = -self._cell
        self.places = 0  # that were given out so far

    def place(self, image: Image.Image) -> int | None:
        """Where to keep the next frame, which may be where another one was; None where it is not kept."""
        self._position += self._step(image)
        if self._is_near():
            return None
        if self._most and len(self._kept) == self._most:
            self._double()
            if self._is_near():
                return None
        if not self._free:
            self._free, self.places = [self.places], self.places + 1
        self._kept.append((self._position, place := self._free.pop()))
        return place

    def chosen(self) -> list[int]:
        """The places of the frames that were chosen, in the order of the video."""
        positions, count = [position for position, _ in self._kept], self._selection.frames
        rows = list(range(len(positions)))
        if 0 < count < len(positions):
            rng = np.random.default_rng([self._selection.seed, self._seed])
            wanted = (np.arange(count) + rng.random(count)) * (self._position / count)
            found = np.searchsorted(positions, wanted, side="right") - 1
            for i in range(1, count):
                found[i] = max(found[i], found[i - 1] + 1)
            rows = np.minimum(found, len(positions) - count + np.arange(count)).tolist()
        return [self._kept[row][1] for row in rows]

    def _step(self, image: Image.Image) -> float:
        """How far the next frame lies from the one before."""
        if self._selection.by == "spread" or not self._most:
            return 1.0
        thumb = np.asarray(image.convert("L").resize((THUMB, THUMB), Image.Resampling.BOX), np.float64)
        before, self._last = self._last, thumb
        return STILL + (0.0 if before is None else float(np.sqrt(((thumb - before) ** 2).mean())))

    def _is_near(self) -> bool:
        """Whether the cell of the next frame has one already."""
        return bool(self._most and self._kept and self._number(self._position) == self._number(self._kept[-1][0]))

    def _number(self, position: float) -> int:
        return int(position // self._cell)

    def _double(self) -> None:
        while len(self._kept) >= self._most:
            self._cell *= 2
            kept: list[tuple[float, int]] = []
            for position, place in self._kept:
                if kept and self._number(kept[-1][0]) == self._number(position):
                    self._free.append(place)
                else:
                    kept.append((position, place))
            self._kept = kept
