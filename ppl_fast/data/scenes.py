"""What is behind each image of a clip: a background that stays, one of several, or one that the camera shifts.

One that stays is found by `ppl_fast.data.still`. Where more than a few images do not agree with it, all are laid on
one of them, moved by whole pixels: those that agree with it there are of its scene, whose background is what they
agree on, as wide as all of them together see. So one scene is found after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ppl_fast._extras import needing
from ppl_fast.data.still import LEAST_LEVEL, LEAST_SAMPLES, SAMPLES, Background, agreed, lamp

with needing("finding what moves needs", "data"):
    from scipy import fft

ALIKE = 0.6  # share of an image's pixels that are its scene's
LARGE = 0.4  # the same of a background that stays, where no other fits better: an animal may take all the rest
REACH = 1 / 6  # of the side, that a camera may shift either way
PEAKS = 6  # of the correlation, that are looked at
MOST_SAMPLES = 256  # images that scenes are found among
MOST_MISSES = 16  # images in a row that are of no scene, after which no more are looked for

Pixels = NDArray[np.uint8]
Spectra = NDArray[np.complex64]


class Clip(Protocol):
    """Images by their place."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: int, /) -> Pixels: ...


class Grounds(NamedTuple):
    """Pixels to lay images on, (K, S + 2 margin, S + 2 margin, 3), NaN where they are not known; and their spectra."""

    pixels: NDArray[np.float32]
    spectra: Spectra

    @classmethod
    def of(cls, pixels: list[NDArray[np.float32]]) -> Grounds:
        """Grounds with their spectra."""
        return cls(np.stack(pixels), np.stack([_spectrum(each, len(each)) for each in pixels]))


class Placed(NamedTuple):
    """Where an image lies, its first row and column on which ground, and the share of pixels that are alike there."""

    share: float
    ground: int
    row: int
    column: int


class Scenes:
    """The backgrounds of a clip.

    `len` is their number. Where there are none, nothing is known of any image.

    Args:
        clip: its images, all of one size (S, S, 3).
    """

    def __init__(self, clip: Clip):
        self._still: Background | None = None
        self._grounds: Grounds | None = None
        self._levels: list[float] = []
        if len(clip) < LEAST_SAMPLES:
            return
        samples = _spread(clip, SAMPLES)
        still = agreed(np.stack(samples))
        self._still = still if still.stays else None
        if sum(self._share(each) < ALIKE for each in samples) < LEAST_SAMPLES:
            return
        if scenes := list(_scenes(_spread(clip, MOST_SAMPLES))):
            self._grounds, self._levels = Grounds.of([each.pixels for each in scenes]), [each.level for each in scenes]

    def __len__(self) -> int:
        return len(self._levels) or int(self._still is not None)

    def behind(self, image: Pixels) -> Background | None:
        """The background of an image, None where it is not known."""
        share = self._share(image)
        if self._grounds is not None:
            placed = _placed(image, _spectrum(image, _side(image)), self._grounds)
            if placed.share >= max(ALIKE, share):
                seen = _under(self._grounds, placed, len(image))
                pixels = np.where(np.isfinite(seen), seen, image).astype(np.float32)
                return Background(pixels, self._levels[placed.ground])
        return self._still if share >= LARGE else None

    def _share(self, image: Pixels) -> float:
        """Of the pixels that are those of the background that stays, but for what a lamp does to all."""
        if self._still is None:
            return 0.0
        return _alike(image - self._still.pixels - lamp(image, self._still.pixels))


def _spread(clip: Clip, most: int) -> list[Pixels]:
    """Up to so many images, spread over all of them."""
    return [clip[place] for place in np.unique(np.linspace(0, len(clip) - 1, most).astype(int))]


def _side(image: Pixels) -> int:
    return len(image) + 2 * round(REACH * len(image))


def _spectrum(pixels: NDArray[np.float32] | Pixels, side: int) -> Spectra:
    """Of the grey levels, less their mean, on a square of a side; what is not known is their mean."""
    grey = pixels.mean(axis=2, dtype=np.float32)
    return fft.rfft2(np.nan_to_num(grey - np.nanmean(grey)), s=_shape(side))


def _shape(side: int) -> tuple[int, int]:
    """Of what is transformed: at least a square of the side."""
    return (fft.next_fast_len(side, real=True),) * 2


def _scenes(images: list[Pixels]) -> Iterator[Background]:
    """The backgrounds of images of several scenes in any order, each as wide as its images together see."""
    order = np.random.default_rng(0).permutation(len(images))
    pool = [(images[i], _spectrum(images[i], _side(images[i]))) for i in order]
    misses = 0
    while len(pool) >= LEAST_SAMPLES and misses < MOST_MISSES:
        first = pool[0][0]
        side, size = _side(first), len(first)
        margin = (side - size) // 2
        pixels = np.full((side, side, 3), np.nan, np.float32)
        pixels[margin : margin + size, margin : margin + size] = first
        ground = Grounds.of([pixels])
        places = [_placed(*each, ground) for each in pool]
        own = [i for i, placed in enumerate(places) if placed.share >= ALIKE]
        misses += 1
        if len(own) >= LEAST_SAMPLES:
            layers = np.full((min(len(own), SAMPLES), side, side, 3), np.nan, np.float32)
            for layer, i in zip(layers, own, strict=False):
                _, _, row, column = places[i]
                layer[row : row + size, column : column + size] = pool[i][0]
            still = agreed(layers)
            if still.stays:
                misses = 0
                yield still
        gone = {0} if misses else {0, *own}
        pool = [each for i, each in enumerate(pool) if i not in gone]


def _placed(image: Pixels, spectrum: Spectra, grounds: Grounds) -> Placed:
    """Where an image lies, by the best of the places at which edges agree most."""
    cross = np.conj(spectrum) * grounds.spectra
    room = grounds.pixels.shape[1] - len(image) + 1
    peaks = fft.irfft2(cross / (np.abs(cross) + 1e-3), s=_shape(grounds.pixels.shape[1]))[:, :room, :room]
    best = np.argpartition(peaks, -PEAKS, axis=None)[-PEAKS:]

    def tried(ground: int, row: int, column: int) -> Placed:
        placed = Placed(0.0, int(ground), int(row), int(column))
        return placed._replace(share=_alike(image - _under(grounds, placed, len(image))))

    return max(tried(*place) for place in zip(*np.unravel_index(best, peaks.shape), strict=True))


def _under(grounds: Grounds, placed: Placed, size: int) -> NDArray[np.float32]:
    """The part of a ground that an image lies on."""
    _, ground, row, column = placed
    return grounds.pixels[ground, row : row + size, column : column + size]


def _alike(change: NDArray[np.float32]) -> float:
    """The share of pixels that do not change, of those that are known, and of half of all at least."""
    known = np.isfinite(change[..., 0])
    red, green, blue = np.moveaxis(np.abs(change) < LEAST_LEVEL, 2, 0)  # a comparison with NaN is not true
    return float((red & green & blue).sum() / max(known.sum(), known.size / 2))
