"""Linear regression from detected keypoints to labelled joints: AutoLink's protocol and its variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_fast.evaluation._error import checked_norm, error_text, nearer_swapped, permutation_of, regression_error
from ppl_fast.evaluation._score import Score, detected, joint_errors, labelled, mean_over, same_count

Labelled = tuple[np.ndarray, np.ndarray]  # joints (n, J, 2) and which of them count (n, J), as `labelled` gives them
Sides = Sequence[tuple[int, int]] | None

SWAP_TOLERANCE = 10  # swapping stops once at most this many training samples would change
MAX_SWAP_ROUNDS = 100  # least squares and the mean L2 criterion differ, so descent alone does not bound the loop


@dataclass(frozen=True)
class RegressionMap:
    """Linear map from detected keypoints (n, N, 2), xy in [-1, 1], to joints (n, J, 2), xy in [0, 1].

    Attributes:
        coefficients: (2N, 2J) float64, one more row with an intercept; NaN columns for joints never visible in
            training.
        intercept: whether there is one.
        penalty: on the squared coefficients, where it was fitted with one.
    """

    coefficients: np.ndarray
    intercept: bool = False
    penalty: float = 0.0

    def __call__(self, keypoints: Any) -> np.ndarray:
        points = detected(keypoints, "keypoints", "RegressionMap")
        expected = (len(self.coefficients) - self.intercept) // 2
        if points.shape[1] != expected:
            raise ValueError(
                f"RegressionMap: keypoints must have N = {expected} as when fitted, got N = {points.shape[1]}"
            )
        return self.apply(_features(points, False))

    def apply(self, features: np.ndarray) -> np.ndarray:
        """Joints (n, J, 2) of flattened keypoints in [0, 1] (n, 2N)."""
        slope = self.coefficients[:-1] if self.intercept else self.coefficients
        offset = self.coefficients[-1] if self.intercept else 0.0
        return (features @ slope + offset).reshape(len(features), -1, 2)


def fit_regression(
    keypoints: Any,
    joints: Any,
    visible: Any = None,
    *,
    swap: Sequence[tuple[int, int]] | None = None,
    intercept: bool = False,
    norm: str = "l2",
) -> RegressionMap:
    """Least squares from flattened keypoints to joints, each joint on the samples that show it.

    A rank-deficient system (fewer samples than 2N, coinciding keypoints) gets its minimum-norm solution.

    Args:
        keypoints: (n, N, 2) detected, xy in [-1, 1]; scaled to [0, 1] before the fit.
        joints: (n, J, 2) labelled, xy in [0, 1].
        visible: (n, J) bool, default all.
        swap: (left, right) joint pairs; each sample's sides are swapped when that fits better, repeatedly until at
            most 10 samples would change; then samples more than three standard deviations above the mean error are
            dropped and the map is fitted again (Human3.6M, as AutoLink's script has it).
        intercept: fit one too.
        norm: `l2` or `l1`, the distance by which samples are swapped and dropped.

    Raises:
        ValueError: wrong shapes, differing counts, non-finite values or no visible joint.
    """
    points = detected(keypoints, "keypoints", "fit_regression")
    targets, shown = labelled(joints, visible, "joints", "fit_regression")
    same_count("fit_regression", keypoints=points, joints=targets)
    return _fit(_features(points, intercept), targets, shown, intercept, swap, checked_norm(norm, "fit_regression"))


def fit_mean_pose(joints: Any, visible: Any = None, *, swap: Sides = None, norm: str = "l2") -> np.ndarray:
    """(J, 2) mean labelled pose: `fit_regression` for a detector that sees nothing; NaN for a joint never visible."""
    targets, shown = labelled(joints, visible, "joints", "fit_mean_pose")
    return _fit_mean(targets, shown, swap, checked_norm(norm, "fit_mean_pose"))


def regression(
    train_keypoints: Any,
    train_joints: Any,
    test_keypoints: Any,
    test_joints: Any,
    *,
    train_visible: Any = None,
    test_visible: Any = None,
    swap: Sequence[tuple[int, int]] | None = None,
    summed_at: int | None = None,
    intercept: bool = False,
    norm: str = "l2",
    fitted: RegressionMap | None = None,
    mean: np.ndarray | None = None,
) -> Score:
    """Error of linearly regressed joints on the test split, with the mean pose's error as baseline.

    The protocol of AutoLink (He, Wandt, Rhodin, NeurIPS 2022) as its evaluation scripts have it: the map of
    `fit_regression` is fitted on the training split; the result is the mean L2 distance over all visible
    joints of the test split, as a fraction of the image size.

    Args:
        train_keypoints: (n, N, 2) detected, xy in [-1, 1].
        train_joints: (n, J, 2) labelled, xy in [0, 1].
        test_keypoints: detected in the test images.
        test_joints: labelled in the test images.
        train_visible: (n, J) bool, default all; only visible joints are fitted (CUB).
        test_visible: likewise; only visible joints are counted.
        swap: (left, right) joint pairs; fitted as by `fit_regression`, and each test image takes the better side.
        summed_at: report the sum over joints of the mean error in pixels at this image size (Taichi, 256).
        intercept: fit one too, as Taichi figures in the literature are measured.
        norm: `l2`; or `l1`, |dx| + |dy|, as those are, which is not the L2 their name suggests.
        fitted: what `fit_regression` gave for this training split and these options, where it is at hand; else fitted
            here.
        mean: likewise, what `fit_mean_pose` gave.

    Raises:
        ValueError: wrong shapes, differing counts, non-finite values or no visible joint.
    """
    checked_norm(norm, "regression")
    train_points = detected(train_keypoints, "train_keypoints", "regression")
    test_points = detected(test_keypoints, "test_keypoints", "regression")
    if train_points.shape[1] != test_points.shape[1]:
        raise ValueError(
            f"regression: test_keypoints must have N = {train_points.shape[1]} as in training, "
            f"got N = {test_points.shape[1]}"
        )
    train, test = _splits(train_joints, train_visible, test_joints, test_visible, "regression")
    same_count("regression", train_keypoints=train_points, train_joints=train[0])
    same_count("regression", test_keypoints=test_points, test_joints=test[0])
    features = _features(train_points, intercept)
    fits = {"fitted": (fitted and fitted.coefficients, (features.shape[1], train[0][0].size))}
    for name, (given, expected) in (fits | {"mean": (mean, train[0].shape[1:])}).items():
        if given is not None and given.shape != expected:
            raise ValueError(f"regression: {name} must be of shape {expected} for these options, got {given.shape}")
    fitted = fitted or _fit(features, *train, intercept, swap, norm)
    predicted = _predict(fitted, _features(test_points, intercept))
    value, per_joint = regression_error(predicted, *test, swap=swap, summed_at=summed_at, norm=norm)
    baseline = _mean_pose(train, test, swap, summed_at, norm, mean)
    parts = [
        f"regression (AutoLink): least squares {'with' if intercept else 'without'} intercept from "
        f"{train_points.shape[1]} detected keypoints in [0, 1] to {train[0].shape[1]} joints on {len(features)} "
        "training images",
        *_measured(train, test, swap, summed_at, norm),
    ]
    if len(features) < features.shape[1]:
        parts.append(f"underdetermined: {features.shape[1]} coefficients per coordinate, minimum-norm solution")
    return Score(value, "; ".join(parts), per_joint, baseline.value)


def mean_pose(
    train_joints: Any,
    test_joints: Any,
    *,
    train_visible: Any = None,
    test_visible: Any = None,
    swap: Sequence[tuple[int, int]] | None = None,
    summed_at: int | None = None,
    norm: str = "l2",
) -> Score:
    """The baseline: `regression` for a detector that sees nothing, so that the mean training pose is predicted.

    Arguments and errors as for `regression`.
    """
    train, test = _splits(train_joints, train_visible, test_joints, test_visible, "mean_pose")
    return _mean_pose(train, test, swap, summed_at, checked_norm(norm, "mean_pose"))


def _splits(
    train_joints: Any, train_visible: Any, test_joints: Any, test_visible: Any, caller: str
) -> tuple[Labelled, Labelled]:
    train = labelled(train_joints, train_visible, "train_joints", caller)
    test = labelled(test_joints, test_visible, "test_joints", caller)
    if train[0].shape[1] != test[0].shape[1]:
        raise ValueError(
            f"{caller}: test_joints must have J = {train[0].shape[1]} as in training, got J = {test[0].shape[1]}"
        )
    return train, test


def _mean_pose(
    train: Labelled, test: Labelled, swap: Sides, summed_at: int | None, norm: str, mean: np.ndarray | None = None
) -> Score:
    mean = _fit_mean(*train, swap, norm) if mean is None else mean
    predicted = np.broadcast_to(mean, test[0].shape)
    value, per_joint = regression_error(predicted, *test, swap=swap, summed_at=summed_at, norm=norm)
    parts = [
        f"mean pose of {len(train[0])} training images instead of a regression",
        *_measured(train, test, swap, summed_at, norm),
    ]
    return Score(value, "; ".join(parts), per_joint)


def _fit_mean(joints: np.ndarray, visible: np.ndarray, swap: Sides, norm: str) -> np.ndarray:
    # Least squares on a feature that never changes is the mean, per joint over the samples that show it.
    return _fit(np.ones((len(joints), 1)), joints, visible, False, swap, norm).coefficients.reshape(-1, 2)


def _features(points: np.ndarray, intercept: bool) -> np.ndarray:
    features = points.reshape(len(points), -1)
    return np.concatenate([features, np.ones((len(points), 1))], axis=1) if intercept else features


def _fit(
    features: np.ndarray,
    joints: np.ndarray,
    visible: np.ndarray,
    intercept: bool,
    swap: Sides = None,
    norm: str = "l2",
) -> RegressionMap:
    fitted = _least_squares(features, joints, visible, intercept)
    if not swap:
        return fitted
    permutation = permutation_of(swap, joints.shape[1])
    joints, visible = joints.copy(), visible.copy()
    for _ in range(MAX_SWAP_ROUNDS):
        predicted = _predict(fitted, features)
        better = nearer_swapped(predicted, joints, visible, permutation, norm)
        if better.sum() <= SWAP_TOLERANCE:
            break
        joints[better], visible[better] = joints[better][:, permutation], visible[better][:, permutation]
        fitted = _least_squares(features, joints, visible, intercept)
    per_sample = mean_over(joint_errors(predicted, joints, visible, norm), 1)
    inlier = ~(per_sample > np.nanmean(per_sample) + 3 * np.nanstd(per_sample))
    return _least_squares(features[inlier], joints[inlier], visible[inlier], intercept)


def _least_squares(features: np.ndarray, joints: np.ndarray, visible: np.ndarray, intercept: bool) -> RegressionMap:
    if visible.all():
        targets = joints.reshape(len(joints), -1)
        return RegressionMap(np.linalg.lstsq(features, targets, rcond=None)[0], intercept)
    coefficients = np.full((features.shape[1], joints.shape[1], 2), np.nan)
    for j, shown in enumerate(visible.T):
        if shown.any():
            coefficients[:, j] = np.linalg.lstsq(features[shown], joints[shown, j], rcond=None)[0]
    return RegressionMap(coefficients.reshape(features.shape[1], -1), intercept)


def _predict(fitted: RegressionMap, features: np.ndarray) -> np.ndarray:
    return (features @ fitted.coefficients).reshape(len(features), -1, 2)


def _measured(train: Labelled, test: Labelled, swap: Sides, summed_at: int | None, norm: str) -> list[str]:
    parts = [error_text(len(test[0]), summed_at, norm)]
    if not (train[1].all() and test[1].all()):
        parts.append("each joint on the images that show it")
    if swap:
        parts.append("left and right swapped per image where that fits better, training outliers over 3 sigma dropped")
    return parts
