"""Tracks of videos smoothed: each coordinate by a smoothing spline over time, weighted by confidence, gaps filled.

The spline is scipy's (`make_smoothing_spline`): it takes frames at uneven times and has no delay. How much it smooths
is found for each keypoint by cross-validation: every other frame is predicted from those between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ppl_fast._extras import needing
from ppl_fast.inference.poses import Poses, collect

if TYPE_CHECKING:
    from PIL.Image import Image

    from ppl_fast.data.video import Video

Floats = NDArray[np.float64]

UNSURE = 1 / 3  # of a keypoint's usual confidence in the video: below it a frame is a gap
LONGEST_GAP = 0.5  # seconds that are filled
FEWEST = 5  # frames that a spline takes
STRETCH = 1000  # frames that the penalty is found by, where a keypoint moves most
PENALTIES = 10.0 ** np.arange(-3, 7)  # on squared second derivatives, with frames for a unit of time


def smoothed(batches: Iterable[Poses], image_size: int, batch_size: int) -> Iterator[Poses]:
    """The poses of one video, which are all estimated before the first batch comes; images are decoded when asked for.

    Args:
        batches: of one video, in order, with confidence.
        image_size: S, that frames were resized to.
        batch_size: of what comes.
    """
    parts, durations, video = [], [], None
    for poses in batches:
        parts.append(collect([poses]))
        durations += poses.durations
        video = poses.video
    if video is None:
        return
    whole = collect(parts)
    assert whole.confidence is not None
    times = np.array(whole.times, dtype=np.float64)
    keypoints, filled = smooth(times, whole.keypoints, whole.confidence, whole.expected_error)
    normalised = whole.on_view(keypoints, image_size)
    whole = replace(whole, keypoints=keypoints, normalised=normalised, filled=filled, durations=durations)
    frames = _Frames(video)
    for start in range(0, len(whole), batch_size):
        rows = slice(start, start + batch_size)
        batch = {each.name: getattr(whole, each.name) for each in fields(whole)}
        batch = {name: value[rows] if hasattr(value, "__getitem__") else value for name, value in batch.items()}
        yield Poses(**batch | {"video": video, "picture": frames.since(start)})


def unfilled(poses: Poses) -> Poses:
    """Poses of images, of which there is nothing to smooth."""
    return replace(poses, filled=np.zeros(poses.keypoints.shape[:2], dtype=bool))


def smooth(
    times: Floats,
    keypoints: Floats,
    confidence: Floats,
    expected_error: Floats | None = None,
    longest_gap: float = LONGEST_GAP,
) -> tuple[Floats, NDArray[np.bool_]]:
    """Smooth tracks, and fill their gaps.

    A gap is where a keypoint is NaN, or its confidence less than a third of its median over the frames. One of up to
    `longest_gap` between frames that count is filled from the spline; in a longer one, and before the first and after
    the last frame that counts, keypoints stay as they are. So does a keypoint that counts in fewer than 5 frames.

    Args:
        times: (n,) seconds, ascending.
        keypoints: (n, N, 2), (x, y) in pixels.
        confidence: (n, N) in [0, 1].
        expected_error: (n, N), in pixels; weights are its inverse squares where it is known, else the squares of
            confidence.
        longest_gap: seconds.

    Returns:
        The keypoints, and (n, N) bool, which of them are filled.

    Raises:
        ImportError: scipy is not installed.
    """
    found, filled = keypoints.copy(), np.zeros(confidence.shape, dtype=bool)
    if len(times) < FEWEST:
        return found, filled
    steps = np.diff(times)
    steady = bool(np.isfinite(times).all() and (steps > 0).all())
    # In units of a frame, for numbers of a size that the spline takes well; by a clock that stands, frames are counted.
    at = (times - times[0]) / np.median(steps) if steady else np.arange(len(times), dtype=np.float64)
    frame = float(np.median(steps)) if steady else (times[-1] - times[0]) / (len(times) - 1)
    gap = longest_gap / frame if frame > 0 else 0.0
    precision = confidence if expected_error is None else 1 / np.maximum(expected_error, 1e-6)
    for i in range(keypoints.shape[1]):
        track, sure = keypoints[:, i], confidence[:, i]
        counts = np.isfinite(track).all(axis=1) & (sure > 0) & (sure >= UNSURE * np.nanmedian(sure))
        if counts.sum() < FEWEST:
            continue
        weights = np.square(precision[counts, i])
        within, given = _bridged(at, counts, gap), (at[counts], track[counts], weights / weights.mean())
        found[within, i] = _spline(*given, _penalty(*given), at[within])
        filled[:, i] = within & ~counts
    return found, filled


def _bridged(at: Floats, counts: NDArray[np.bool_], longest: float) -> NDArray[np.bool_]:
    """Frames that count, and those between two of them that are no further apart than a gap may be long."""
    places = np.flatnonzero(counts)
    after = np.searchsorted(places, np.arange(len(at)))
    inside = (after > 0) & (after < len(places))
    left, right = places[np.maximum(after - 1, 0)], places[np.minimum(after, len(places) - 1)]
    # From the last frame that counts to the next, less the one frame that there is between neighbours.
    bridged: NDArray[np.bool_] = counts | (inside & (at[right] - at[left] - 1 <= longest))
    return bridged


def _penalty(x: Floats, y: Floats, weights: Floats) -> float:
    """Of `PENALTIES`, the one by which every other one of the points, y (n, 2), tells those between best."""
    blocks = [slice(start, start + STRETCH) for start in range(0, max(1, len(x) - FEWEST), STRETCH)]
    moving = max(blocks, key=lambda rows: float(y[rows].var(axis=0).sum()))
    x, y, weights = x[moving], y[moving], weights[moving]
    if len(x) < 2 * FEWEST:
        return float(PENALTIES[len(PENALTIES) // 2])
    errors = []
    for penalty in PENALTIES:
        error = 0.0
        for fold in (0, 1):
            kept, left = slice(fold, None, 2), slice(1 - fold, None, 2)
            between = _spline(x[kept], y[kept], weights[kept], penalty / 2, x[left])  # of half as many points
            error += float((weights[left, None] * np.square(between - y[left])).sum())
        errors.append(error)
    return float(PENALTIES[int(np.argmin(errors))])


def _spline(x: Floats, y: Floats, weights: Floats, penalty: float, at: Floats) -> Floats:
    """Values (m, 2) at `at` (m,) of the splines through points y (n, 2) at x (n,)."""
    with needing("smoothing needs", "data"):
        from scipy.interpolate import make_smoothing_spline

    return np.stack([make_smoothing_spline(x, each, weights, penalty)(at) for each in y.T], axis=1)


class _Frames:
    """The frames of a video, decoded again, in order, once one is asked for."""

    def __init__(self, video: Video):
        self._frames = video.frames()
        self._kept: dict[int, Image] = {}
        self._decoded = 0

    def since(self, start: int) -> Callable[[int], Image]:
        """Gives the i-th picture from `start` on; those before the last `start` that was asked for are gone."""

        def picture(index: int) -> Image:
            self._kept = {number: image for number, image in self._kept.items() if number >= start}
            while self._decoded <= start + index:
                frame = next(self._frames)
                if self._decoded >= start:
                    self._kept[self._decoded] = frame.image
                self._decoded += 1
            if start + index not in self._kept:
                raise ValueError("pictures of smoothed poses must be taken batch by batch, in order")
            return self._kept[start + index]

        return picture
