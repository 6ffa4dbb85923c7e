"""Folds of labelled samples, for what is fitted on some of them and judged on others."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LEAST_CLIPS = 5  # from which on each is left out whole


def fold_numbers(count: int, turn: int, folds: int | None = None, clips: Sequence[str] = ()) -> NDArray[np.int64]:
    """Which fold each of `count` samples is in: of ten by default where they are few, else of five.

    Frames of one clip resemble one another, and what has learned from some of them errs little on the others. Where
    there are enough clips, each is left out whole, so that errors are those on a clip that nobody has labelled.

    Args:
        count: n.
        turn: other folds in each.
        folds: how many; None for the default.
        clips: n, which clip each sample is of; none if that is not known.
    """
    folds = min(count, folds or (10 if count <= 20 else 5))
    names, clip = np.unique(clips, return_inverse=True) if by_clips(clips) else (range(count), np.arange(count))
    dealt = np.random.default_rng(turn).permutation(len(names)) % min(len(names), folds)
    return np.asarray(dealt[clip])


def by_clips(clips: Sequence[str]) -> bool:
    """Whether there are enough clips to leave out whole ones."""
    return len(set(clips)) >= LEAST_CLIPS
