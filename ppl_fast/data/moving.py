"""An animal that moves before a static camera, found without labels: its boxes, and its pixels.

In every frame, what differs from the background (`ppl_fast.data.still`) is the animal: the heaviest connected part. Its
place is smoothed over time; the box's side is one for the whole clip, since the size of an animal does not change from
frame to frame. It sees no animal that stays where it is all the time (that is background), and no more than one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ppl_fast._extras import needing
from ppl_fast.data.boxes import NOTHING
from ppl_fast.data.selection import Thinning
from ppl_fast.data.still import LEAST_LEVEL, LEAST_SAMPLES, SAMPLES, Background, agreed, apart, lamp, shifted
from ppl_fast.options.footage import Selection

with needing("finding what moves needs", "data"):
    from scipy import ndimage

SIDE = 160  # pixels of the longer side that is looked at
BLUR = 1.0  # pixels of noise that are looked past, at that side
SHADOW = 0.5, 0.04  # light that a shadow leaves at least, and how much more of one colour than of another
LEAST_AREA, LEAST_SHARE = 8, 2e-4  # pixels, and share of the frame, of an animal
USUAL = 0.2, 8.0  # shares of the clip's median area, beyond which it is something else: a hand, or light
JOINED = 2  # pixels between parts of one animal
SHAKEN = 0.125  # share of the frames in which a camera that is moved a little is off
EXTENT = 95.0  # percentile of the extents over the clip that the side is made of
SMOOTH = 0.1  # seconds
TURN = 4.0  # halves of its length that a body thin as a line moves backwards before it is taken for turned

Array = NDArray[np.float64]
Size = tuple[int, int]


@dataclass(frozen=True)
class Track:
    """What was found in each of n frames, in pixels of the original counted from the outer corner; NaN for nothing.

    Attributes:
        centre: (n, 2), (x, y).
        extent: (n,), the distance from there to the animal's farthest pixel.
        area: (n,), pixels.
        axis: (n, 2), the cosine and sine of twice the angle of the body's axis, times how much longer it is than wide.
    """

    centre: Array
    extent: Array
    area: Array
    axis: Array


def background(images: Iterable[Image.Image], size: Size | None = None) -> Background | None:
    """What images of one size, spread over all there are, agree on; None where there are too few.

    Args:
        images: as `small` takes them.
        size: (W, H) of the originals, where they are reduced.
    """
    thinning = Thinning(Selection(frames=SAMPLES), "background")
    held: dict[int, NDArray[np.uint8]] = {}
    for image in images:
        place = thinning.place(image)
        if place is not None:
            held[place] = small(image, size)
    chosen = thinning.chosen()
    if len(chosen) < LEAST_SAMPLES or len({held[place].shape for place in chosen}) > 1:
        return None
    samples = [held[place].astype(np.float32) for place in chosen]
    steady = [shifted(samples[len(samples) // 2], each, LEAST_LEVEL) for each in samples]
    shaken = sum(one is not other for one, other in zip(samples, steady, strict=True)) >= SHAKEN * len(samples)
    return agreed(np.stack(steady if shaken else samples))._replace(shaken=shaken)


def small(image: Image.Image, size: Size | None = None) -> NDArray[np.uint8]:
    """An RGB image, or one that was reduced from an original of a size, as it is looked at: (h, w, 3)."""
    width, height = size or image.size
    scale = min(1.0, SIDE / max(width, height))
    looked_at = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(image.resize(looked_at, Image.Resampling.BOX) if looked_at != image.size else image)


def tracked(images: Iterable[Image.Image], still: Background, size: Size | None = None) -> Track:
    """What moves in each image, before it is smoothed; arguments as of `background`."""
    found = np.array([_blob(image, still, size) for image in images]).reshape(-1, 6)
    found[~usual(found[:, 3])] = np.nan
    return Track(found[:, :2], found[:, 2], found[:, 3], found[:, 4:])


def usual(areas: Array) -> NDArray[np.bool_]:
    """Whether areas (n,) are as an animal's may be, NaN where nothing was found, by what they mostly are."""
    shares = areas / np.nanmedian(areas) if np.isfinite(areas).any() else areas
    return np.asarray((shares >= USUAL[0]) & (shares <= USUAL[1]))


def boxes(track: Track, rate: float | None, turn: bool) -> Array:
    """Square boxes (n, 5) as `ppl_fast.data.boxes` has them, without margin; NaN where nothing was found.

    Args:
        track: what was found.
        rate: frames a second, to smooth over; None for images that do not follow one another.
        turn: turn boxes along the body's axis, towards where the animal moves.
    """
    found = np.tile(NOTHING, (len(track.area), 1))
    seen = np.isfinite(track.area)
    if not seen.any():
        return found
    side = 2 * float(np.percentile(track.extent[seen], EXTENT))
    for part in _stretches(seen, rate is not None):
        centre, axis = track.centre[part], track.axis[part]
        if rate is not None:
            centre, axis = (_smoothed(values, rate) for values in (centre, axis))
        found[part, :2], found[part, 2:4] = centre, side
        found[part, 4] = _directions(axis, None if rate is None else centre, side / 2) if turn else 0.0
    return found


def _blob(image: Image.Image, still: Background, size: Size | None) -> list[float]:
    """x, y, extent, area and axis of the heaviest part that differs from the background; NaN where there is none."""
    pixels = small(image, size)
    found = None if pixels.shape != still.pixels.shape else animal(pixels, still)
    if found is None:
        return [math.nan] * 6
    y, x = np.nonzero(found)
    scale = np.array(size or image.size) / (pixels.shape[1], pixels.shape[0])
    points = (np.stack([x, y], axis=1) + 0.5) * scale
    middle = points.mean(axis=0)
    away = points - middle
    (xx, xy), (_, yy) = away.T @ away / len(away)
    axis = np.array([xx - yy, 2 * xy]) / max(xx + yy, 1e-9)
    extent = float(np.linalg.norm(away, axis=1).max()) + float(scale.max()) / 2
    return [*middle, extent, len(x) * float(scale.prod()), *axis]


def animal(
    pixels: NDArray[np.uint8],
    still: Background,
    blur: float = BLUR,
    joined: int = JOINED,
    shadow: bool = True,
    least_part: float = 1.0,
) -> NDArray[np.bool_] | None:
    """(h, w), the heaviest part of a frame (h, w, 3) that differs from the background; None where there is none.

    Args:
        pixels: the frame.
        still: the background, of its size.
        blur: pixels of noise that are looked past.
        joined: pixels between parts of one animal.
        shadow: whether a shadow counts as well: less light of every colour alike.
        least_part: share of the heaviest part's weight from which other parts count as well.
    """
    behind = still.pixels + lamp(pixels, still.pixels)
    strength = apart(pixels, behind)
    if still.shaken:  # a clock in the picture stays where it is, wherever the camera looks
        strength = np.minimum(strength, apart(pixels, shifted(pixels, behind, still.level)))
    differs = strength > still.level
    if not shadow:
        light = (pixels + 1.0) / (behind + 1.0)
        least, most = light.min(axis=2), light.max(axis=2)
        strength[(SHADOW[0] < least) & (most < 1) & (most - least < SHADOW[1])] = 0
    strength = ndimage.gaussian_filter(strength, blur)
    moved = strength > still.level
    parts, count = ndimage.label(ndimage.maximum_filter(moved, 2 * joined + 1))
    if not count:
        return None
    weights = ndimage.sum_labels(strength * moved, parts, np.arange(1, count + 1))
    heavy = 1 + np.flatnonzero(weights >= least_part * weights.max())
    found: NDArray[np.bool_] = moved & np.isin(parts, heavy)
    if not shadow:  # none lies within the animal: what is as dark there is its own
        found |= differs & ndimage.binary_fill_holes(found)
    return found if found.sum() >= max(LEAST_AREA, LEAST_SHARE * moved.size) else None


def _stretches(seen: NDArray[np.bool_], in_time: bool) -> Iterator[NDArray[np.int64]]:
    """Frames without a gap between them; images one by one."""
    rows = np.flatnonzero(seen)
    yield from np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1 if in_time else np.arange(1, len(rows)))


def _smoothed(values: Array, rate: float) -> Array:
    """(n, 2) over time: without single outliers, then by a bell of `SMOOTH` seconds."""
    steady = ndimage.median_filter(values, size=(min(5, 2 * ((len(values) - 1) // 2) + 1), 1), mode="nearest")
    return np.asarray(ndimage.gaussian_filter1d(steady, max(SMOOTH * rate, 1e-3), axis=0, mode="nearest"))


def _directions(axis: Array, centre: Array | None, reach: float) -> Array:
    """(n,) angles in radians of the body's axis, which has no front: it leads the way that the animal moves.

    Without time, it points right.

    Args:
        axis: as of `Track`.
        centre: (n, 2); None without time.
        reach: half of the body's length, in pixels.
    """
    angles = np.arctan2(axis[:, 1], axis[:, 0]) / 2
    if centre is None:
        return angles
    angles = np.unwrap(angles, period=math.pi)
    ahead = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    moved = np.diff(centre, axis=0, prepend=centre[:1])
    length = np.hypot(axis[:, 0], axis[:, 1])
    price = TURN * np.minimum(length, np.concatenate([length[:1], length[:-1]]))
    return angles + np.where(_forwards((moved * ahead).sum(axis=1) / reach, price), 0, math.pi)


def _forwards(gain: Array, price: Array) -> NDArray[np.bool_]:
    """(n,) whether each frame counts as it is: of all choices, the one that gains most.

    Args:
        gain: (n,), of a frame as it is; the other way round, it loses as much.
        price: (n,), where a frame is not as the one before.
    """
    best, changes = (0.0, 0.0), np.zeros((len(gain), 2), bool)  # as it is, and the other way round
    for number, (own, lost) in enumerate(zip(gain.tolist(), price.tolist(), strict=True)):
        turned = best[1] - lost, best[0] - lost
        changes[number] = turned[0] > best[0], turned[1] > best[1]
        best = max(best[0], turned[0]) + own, max(best[1], turned[1]) - own
    found, round_about = np.zeros(len(gain), bool), best[1] > best[0]
    for number in reversed(range(len(gain))):
        found[number] = not round_about
        round_about ^= bool(changes[number, int(round_about)])
    return found
