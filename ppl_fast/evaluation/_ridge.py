"""Ridge regression from keypoints to joints, with an intercept and a penalty chosen by cross-validation.

Plain least squares, AutoLink's protocol, overfits where there are not some ten labelled images for each coefficient: it
then measures the number of labels as much as the keypoints.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_fast.evaluation._error import error_text, nearer_sides, regression_error
from ppl_fast.evaluation._regression import RegressionMap, Sides, fit_regression
from ppl_fast.evaluation._score import Score, detected, joint_errors, labelled, mean_over, same_count

PENALTIES = 10.0 ** np.arange(-6, 2.5, 0.5)  # on coefficients between coordinates in [0, 1]
FOLDS = 5


def fit_ridge(
    keypoints: Any, joints: Any, visible: Any = None, *, swap: Sides = None, norm: str = "l2"
) -> RegressionMap:
    """Penalised least squares from flattened keypoints to joints, each joint on the samples that show it.

    One penalty serves all joints: of `PENALTIES`, the one with the smallest mean error on samples left out, by five
    folds that follow from the number of samples alone. It is not laid on the intercept, so that the strongest predicts
    the mean pose.

    Args:
        keypoints: (n, N, 2) detected, xy in [-1, 1]; scaled to [0, 1] before the fit.
        joints: (n, J, 2) labelled, xy in [0, 1].
        visible: (n, J) bool, default all.
        swap: (left, right) joint pairs; each sample takes the side that `fit_regression` settles on.
        norm: `l2` or `l1`, the distance by which the penalty is chosen.

    Raises:
        ValueError: wrong shapes, differing counts, non-finite values or no visible joint.
    """
    points = detected(keypoints, "keypoints", "fit_ridge")
    targets, shown = labelled(joints, visible, "joints", "fit_ridge")
    same_count("fit_ridge", keypoints=points, joints=targets)
    if swap:
        plain = fit_regression(keypoints, targets, shown, swap=swap, intercept=True, norm=norm)
        targets, shown = nearer_sides(plain(keypoints), targets, shown, swap, norm)
    features = points.reshape(len(points), -1)
    errors = np.array([float(mean_over(each)) for each in _left_out(features, targets, shown, norm)])
    # With too few samples to leave any out, the strongest penalty.
    best = int(np.nanargmin(errors)) if np.isfinite(errors).any() else len(PENALTIES) - 1
    coefficients = _solutions(features, targets, shown)[best]
    return RegressionMap(coefficients, intercept=True, penalty=float(PENALTIES[best]))


def ridge_maps(rows: np.ndarray, targets: np.ndarray, penalties: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression with an intercept that no penalty is laid on.

    Args:
        rows: (n, F).
        targets: (n, T).
        penalties: (P,), each above 0.

    Returns:
        Slopes (P, F, T) and offsets (P, T), one of each a penalty.
    """
    middle, target = rows.mean(axis=0), targets.mean(axis=0)
    slopes = ridge_slopes(rows - middle, targets - target, penalties)
    return slopes, target - middle @ slopes


def ridge_slopes(rows: np.ndarray, targets: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """`ridge_maps` without an intercept: its slopes, of rows and targets whose means are 0."""
    gram = rows.T @ rows + penalties[:, None, None] * np.eye(rows.shape[1])
    return np.linalg.solve(gram, np.broadcast_to(rows.T @ targets, (len(penalties), rows.shape[1], targets.shape[1])))


def ridge(
    fitted: RegressionMap,
    train_images: int,
    test_keypoints: Any,
    test_joints: Any,
    test_visible: Any = None,
    *,
    swap: Sides = None,
    summed_at: int | None = None,
    norm: str = "l2",
    baseline: float | None = None,
) -> Score:
    """The error on the test split of what `fit_ridge` gave; options as those of `regression`.

    Args:
        fitted: the map.
        train_images: how many it was fitted on, for the protocol's text.
        test_keypoints: (n, N, 2) detected, xy in [-1, 1].
        test_joints: (n, J, 2) labelled, xy in [0, 1].
        test_visible: (n, J) bool, default all.
        swap: as for `regression`.
        summed_at: as for `regression`.
        norm: as for `regression`.
        baseline: the mean pose's error.

    Raises:
        ValueError: wrong shapes, differing counts, non-finite values or no visible joint.
    """
    joints, shown = labelled(test_joints, test_visible, "test_joints", "ridge")
    predicted = fitted(test_keypoints)
    same_count("ridge", test_keypoints=predicted, test_joints=joints)
    value, per_joint = regression_error(predicted, joints, shown, swap=swap, summed_at=summed_at, norm=norm)
    text = (
        f"ridge regression with intercept on {train_images} training images, its penalty ({fitted.penalty:.2g}) chosen "
        f"by {FOLDS}-fold cross-validation among them; {error_text(len(joints), summed_at, norm)}"
    )
    return Score(value, text, per_joint, baseline)


def _left_out(features: np.ndarray, joints: np.ndarray, shown: np.ndarray, norm: str) -> np.ndarray:
    """Errors (penalties, n, J) of samples predicted by the fit without their fold, NaN where there is none."""
    folds = np.random.default_rng(0).permutation(len(features)) % min(FOLDS, len(features))
    errors = np.full((len(PENALTIES), *shown.shape), np.nan)
    for fold in range(FOLDS):
        held = folds == fold
        if not held.any() or not shown[~held].any():
            continue
        for each, coefficients in zip(errors, _solutions(features[~held], joints[~held], shown[~held]), strict=True):
            predicted = RegressionMap(coefficients, intercept=True).apply(features[held])
            each[held] = joint_errors(predicted, joints[held], shown[held], norm)
    return errors


def _solutions(features: np.ndarray, joints: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The coefficients (penalties, F + 1, 2J) of features (n, F), the last row the intercept; NaN where none shows."""
    found = np.full((len(PENALTIES), features.shape[1] + 1, joints.shape[1], 2), np.nan)
    patterns, which = np.unique(shown, axis=1, return_inverse=True)
    for number, rows in enumerate(patterns.T):
        of = which.ravel() == number
        if not rows.any():
            continue
        targets = joints[rows][:, of]
        slopes, offsets = ridge_maps(features[rows], targets.reshape(len(targets), -1), PENALTIES)
        found[:, :-1, of] = slopes.reshape(*slopes.shape[:2], *targets.shape[1:])
        found[:, -1, of] = offsets.reshape(len(offsets), *targets.shape[1:])
    return found.reshape(len(PENALTIES), features.shape[1] + 1, -1)
