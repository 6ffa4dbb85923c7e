"""A linear map from keypoints to named joints, its form chosen joint by joint by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ppl_fast.evaluation import joint_errors, mean_over
from ppl_fast.evaluation.folds import fold_numbers
from ppl_fast.naming import forms
from ppl_fast.naming.forms import FORMS, Array

TURNS = 2  # of cross-validation, each with other folds
SHARPNESS = 0.1  # a form whose error is larger than the best one's by this share of it weighs 1 / e of it


@dataclass(frozen=True)
class LinearMap:
    """Keypoints to joints.

    Attributes:
        slope: (N, 2, J, 2) from keypoint and axis to joint and axis.
        offset: (J, 2).
    """

    slope: Array
    offset: Array

    def __call__(self, points: Array) -> Array:
        """Joints (n, J, 2) of keypoints (n, N, 2)."""
        return forms.apply(points, self.slope, self.offset)


@dataclass(frozen=True)
class Fitted:
    """A map, and what it was chosen by.

    Attributes:
        map: fitted on all samples.
        left_out: (turns, n, J, 2), each sample as predicted without its fold; NaN for a joint that the others never
            show.
        shares: by form, (J,), how much each weighs for each joint.
        errors: by form, (J,), the mean distance on samples left out.
    """

    map: LinearMap
    left_out: Array
    shares: dict[str, Array]
    errors: dict[str, Array]


def fit(points: Array, joints: Array, shown: NDArray[np.bool_], clips: Sequence[str] = ()) -> Fitted:
    """Fit every form, and blend them, joint by joint, the more of each the smaller its error on samples left out.

    Args:
        points: (n, N, 2) keypoints.
        joints: (n, J, 2), what they are to give, in the same units.
        shown: (n, J), which of these are labelled.
        clips: n, which clip each is of, as for `fold_numbers`.
    """
    folds = [fold_numbers(len(points), turn, clips=clips) for turn in range(TURNS)]
    penalties, left_out, errors = {}, {}, {}
    for name, (_, choices) in FORMS.items():
        found = {penalty: _left_out(name, points, joints, shown, penalty, folds) for penalty in choices.tolist()}
        means = {penalty: joint_errors(each, joints, shown) for penalty, each in found.items()}
        penalties[name] = min(means, key=lambda penalty: (mean_over(means[penalty]), -penalty))
        left_out[name], errors[name] = found[penalties[name]], mean_over(means[penalties[name]], (0, 1))
    shares = dict(zip(FORMS, weights(np.stack(list(errors.values()))), strict=True))
    maps = {name: forms.fit(name, points, joints, shown, penalties[name]) for name in FORMS}
    slope = sum(maps[name][0] * shares[name][:, None] for name in FORMS)
    offset = sum(maps[name][1] * shares[name][:, None] for name in FORMS)
    blended = sum(left_out[name] * shares[name][:, None] for name in FORMS)
    return Fitted(LinearMap(np.asarray(slope), np.asarray(offset)), np.asarray(blended), shares, errors)


def weights(errors: Array) -> Array:
    """What each of some predictors weighs for each joint, (predictors, J), by their errors (predictors, J) there.

    Alike where they err alike or nothing is known, and all the less the larger an error is beside the smallest.
    """
    known = np.where(np.isnan(errors), np.inf, errors)
    best = known.min(axis=0)
    best, known = np.where(np.isinf(best), 1, best), np.where(np.isinf(best), 1, known)
    excess = (known - best) / (SHARPNESS * np.maximum(best, 1e-9))
    share = np.exp(-excess)
    return np.asarray(share / share.sum(axis=0))


def _left_out(
    name: str,
    points: Array,
    joints: Array,
    shown: NDArray[np.bool_],
    penalty: float,
    folds: list[NDArray[np.int64]],
) -> Array:
    """(turns, n, J, 2)."""
    found = np.full((len(folds), *joints.shape), np.nan)
    for turn, fold in enumerate(folds):
        for number in np.unique(fold):
            held = fold == number
            if not held.all():
                slope, offset = forms.fit(name, points[~held], joints[~held], shown[~held], penalty)
                found[turn, held] = forms.apply(points[held], slope, offset)
    return found
