"""What does not move: the background that the frames of a static camera agree on, and what a lamp does to it.

It is found pixel by pixel, as what most frames are nearest to. What rests at one place for most of the time is found
there as well; where it is away for long enough, it is told from the background by its outline: an animal that lies on a
floor has one, and the floor where it has lain has none.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ppl_fast._extras import needing

with needing("finding what moves needs", "data"):
    from scipy import ndimage
    from scipy.sparse import coo_array, csgraph

SAMPLES = 64  # frames that make the background
LEAST_SAMPLES = 8
AGREED = 0.25  # share of the frames whose values nearest to one another tell the noise
KINDS = 3  # of pixels at one place, beside what most of the frames agree on
UNCOVERED = 1 / 16  # share of the frames in which what rests is away
LEAST_RESTING = 8  # pixels of what rests
OUTLINE = 2  # pixels around it that are neither
FAINT = 0.5  # of the one outline, that the other is at most
LEAST_LEVEL, NOISES = 16.0, 6.0  # a difference counts from so many grey levels, and so many times the noise, on
STEADY = 10.0  # grey levels of noise, above which the camera moves, or there are several backgrounds
SOFT = 5.0, 1.5  # pixels that edges are blurred by where it is told how far a camera is off
STEPS, EXACT = 8, 0.02  # at most, each of which tells more exactly, and pixels
MOST_OFF = 8.0  # pixels that a camera is off
SPARED, LEAST_SPARED = 0.2, 5e-3  # of the pixels that differ, and of all, that no longer do where a camera was off
LAMP = 4  # each n-th pixel either way tells what a lamp does to all

Levels = NDArray[np.float32]


class Background(NamedTuple):
    """What does not move.

    Attributes:
        pixels: (h, w, 3) in grey levels.
        level: that a difference counts from.
        shaken: whether the camera is a little off now and then.
    """

    pixels: Levels
    level: float
    shaken: bool = False

    @property
    def stays(self) -> bool:
        """Whether it does: else what differs from it is not what moves."""
        return self.level <= NOISES * STEADY


def agreed(samples: NDArray[np.uint8] | Levels) -> Background:
    """The background of frames (n, h, w, 3): of each pixel the mean of the most frames that are near one of them.

    A median would take on the animal where it is in half of the frames. What a lamp does to a whole frame is taken off
    before: it is no noise, and pixels would agree on different moments of it. Where too few values are known, and the
    others NaN, the background is NaN.
    """
    steady = samples - lamp(samples, median(samples, 0).astype(np.float32))
    narrowest = _narrowest(steady)
    noise = 1.4826 * float(median(np.abs(steady - narrowest)))
    level = max(LEAST_LEVEL, NOISES * noise)
    pixels, _ = _most(steady, level)
    pixels[np.isnan(narrowest)] = np.nan
    _uncover(pixels, steady, level)
    return Background(pixels, level)


def _narrowest(values: Levels) -> Levels:
    """The mean over axis 0 of the quarter of values nearest to one another; NaN where fewer are known."""
    count = max(2, math.ceil(AGREED * len(values)))
    ordered = np.sort(values, axis=0)
    widths = ordered[count - 1 :] - ordered[: len(values) - count + 1]
    first = np.where(np.isnan(widths), np.inf, widths).argmin(axis=0)[None]
    sums = np.concatenate([np.zeros_like(ordered[:1]), ordered.cumsum(axis=0)])
    ends = (np.take_along_axis(sums, first + step, axis=0)[0] for step in (count, 0))
    return np.subtract(*ends) / count


def _most(frames: Levels, level: float) -> tuple[Levels, NDArray[np.int64]]:
    """The mean (h, w, 3) of the most frames (n, h, w, 3) that are within a level of one of them, and how many (h, w).

    All colours of a pixel are of the same frames. NaN where none is known.
    """
    planes = np.ascontiguousarray(np.moveaxis(frames, 3, 1))

    def near(middle: Levels) -> NDArray[np.bool_]:
        red, green, blue = (np.abs(planes[:, colour] - middle[colour]) <= level for colour in range(3))
        return red & green & blue

    most, middle = np.zeros(frames.shape[1:3], int), np.full_like(planes[0], np.nan)
    for frame in planes:
        count = near(frame).sum(axis=0)
        more = count > most
        most, middle = np.where(more, count, most), np.where(more, frame, middle)
    sums = np.sum(planes, axis=0, where=near(middle)[:, None])
    return np.moveaxis(np.where(most, sums / np.maximum(most, 1), middle), 0, 2).astype(np.float32), most


def _uncover(pixels: Levels, steady: Levels, level: float) -> None:
    """Put what lies under it, seen while it was away, in place of each thing that rests.

    Args:
        pixels: (h, w, 3), what most of the frames agree on; written to.
        steady: (n, h, w, 3), the frames.
        level: that a difference counts from.
    """
    other, left = pixels.copy(), steady
    for _ in range(KINDS):
        away = (np.abs(left - other) > level).any(axis=3, keepdims=True)
        left = np.where(away, left, np.float32(np.nan))
        other, count = _most(left, level)
        change = other - pixels
        two = (count >= max(2, UNCOVERED * len(steady))) & (np.abs(change) > level).any(axis=2)
        for part in _parts(two, pixels, other, level):
            if part.sum() >= LEAST_RESTING:
                _replace(pixels, other, part)


def _parts(two: NDArray[np.bool_], pixels: Levels, other: Levels, level: float) -> list[NDArray[np.bool_]]:
    """Connected parts of what is of two kinds, in which the other kind is lighter throughout, or darker.

    From each pixel to the next one of both goes on. So where something rests and where it passes are apart, though side
    by side: both change there.
    """
    places = np.arange(two.size).reshape(two.shape)
    pairs, lighter = [], (other - pixels).sum(axis=2) > 0
    for one, next_ in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        alike = [apart(each[one], each[next_]) <= level for each in (pixels, other)]
        joined = two[one] & two[next_] & (lighter[one] == lighter[next_]) & (alike[0] | alike[1])
        pairs.append(np.stack([places[one][joined], places[next_][joined]]))
    ends = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(two.size,) * 2)
    _, labels = csgraph.connected_components(graph, directed=False)
    counts = np.bincount(labels)
    parts = (labels.reshape(two.shape) == label for label in np.flatnonzero(counts >= LEAST_RESTING))
    return [ndimage.binary_opening(part) for part in parts]


def _replace(pixels: Levels, other: Levels, part: NDArray[np.bool_]) -> None:
    """Put the other pixels into a part, and what is blended with them around it, if they have the fainter outline."""
    around = ndimage.binary_dilation(part, iterations=OUTLINE)
    rim = part & ~ndimage.binary_erosion(part, border_value=1)
    outside = pixels[_nearest(~around)]
    outlines = [float(median(apart(each, outside)[rim])) for each in (other, pixels)]
    if outlines[0] < FAINT * outlines[1]:
        inside = other[_nearest(part)]
        nearer = around & (apart(other, inside) < apart(pixels, inside))
        pixels[nearer] = other[nearer]


def _nearest(part: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """Of each pixel, rows and columns (h, w) of the one of a part that is nearest."""
    return tuple(ndimage.distance_transform_edt(~part, return_distances=False, return_indices=True))


def lamp(frames: NDArray[Any], still: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the light of frames (..., h, w, 3) adds to another (h, w, 3): to all of it alike, or so many times itself.

    Whichever is nearer. The times are those of the brighter half: of what is dark, little more than noise is left.
    """
    seen, sparse = frames[..., ::LAMP, ::LAMP, :], still[::LAMP, ::LAMP]
    added = median(seen - sparse, (-3, -2), keepdims=True)
    light = sparse.sum(axis=2)
    bright, one = light >= median(light), np.float32(1)
    ratios = (seen[..., bright, :] + one) / (sparse[bright] + one)
    times = median(ratios, -2, keepdims=True)[..., None, :, :] - one
    both = added, times * (sparse + one)
    off = (median(np.abs(seen - sparse - each), (-3, -2, -1), keepdims=True) for each in both)
    return np.where(np.greater(*off), times * (still + one), added)


def shifted(frame: NDArray[np.uint8] | Levels, behind: Levels, level: float) -> Levels:
    """The background (h, w, 3) as a camera sees it that is a little off; as it is where hardly less differs then.

    By what the edges of both tell (Lucas and Kanade), first the coarse ones, of which those that differ by more than a
    level count less.
    """
    off = np.zeros(2)
    for soft in SOFT:
        seen, own = (ndimage.gaussian_filter(each.mean(axis=2, dtype=np.float32), soft) for each in (frame, behind))
        for _ in range(STEPS):
            moved = ndimage.shift(own, off, order=1, mode="nearest")
            slopes, change = np.stack(np.gradient(moved)).reshape(2, -1), (moved - seen).ravel()
            weighted = slopes * np.minimum(1, level / np.maximum(np.abs(change), 1e-6)) ** 2
            step = np.linalg.lstsq(weighted @ slopes.T, weighted @ change, rcond=1e-6)[0]
            off = np.clip(off + step, -MOST_OFF, MOST_OFF)
            if np.abs(step).max() < EXACT:
                break
    found = ndimage.shift(behind, (*off, 0), order=1, cval=math.nan)
    found = np.where(np.isnan(found), frame, found)  # what came into sight is as it is
    differs, less = ((apart(frame, each) > level).mean() for each in (behind, found))
    return found if differs - less > max(SPARED * differs, LEAST_SPARED) else behind


def apart(one: Any, other: Levels) -> Levels:
    """How far two images (h, w, 3) are from one another, (h, w), in the colour in which they are farthest."""
    red, green, blue = np.moveaxis(np.abs(one - other), 2, 0)
    return np.maximum(np.maximum(red, green), blue)  # NaN where either is


def median(values: Any, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """The median of what is not NaN, in the time of numpy's where nothing is."""
    if values.dtype == np.uint8 or not np.isnan(values).any():
        return np.median(values, axis=axis, keepdims=keepdims)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of what is nowhere known
        return np.nanmedian(values, axis=axis, keepdims=keepdims)
