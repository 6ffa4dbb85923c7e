"""Linear maps from keypoints to named joints, in several forms: which is best depends on how many labels there are.

Every form gives coefficients (N, 2, J, 2) from keypoint and axis to joint and axis, and an offset (J, 2), each joint on
the samples that show it:

- `full`: every coordinate of a joint from all coordinates of all keypoints, ridge. The most flexible one.
- `shared`: one weight a keypoint for x and y, ridge. Half as many coefficients; a joint moves as keypoints do.
- `convex`: likewise, weights of at least 0 that sum to 1, and an offset held near 0: a joint lies between keypoints.
- `mean`: the mean pose, whatever the keypoints.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ppl_fast._extras import needing
from ppl_fast.evaluation import ridge_maps, ridge_slopes

Array = NDArray[np.float64]
Form = Callable[[Array, Array, float], tuple[Array, Array]]

SUM_WEIGHT = 1e2  # of the equation that a convex form's weights sum to 1, beside those of the samples


def full(points: Array, joints: Array, penalty: float) -> tuple[Array, Array]:
    """Ridge of points (n, N, 2) to joints (n, 1, 2); see the top."""
    flat = points.reshape(len(points), -1)
    slopes, offsets = ridge_maps(flat, joints[:, 0], np.array([penalty]))
    return slopes.reshape(*points.shape[1:], 1, 2), offsets


def shared(points: Array, joints: Array, penalty: float) -> tuple[Array, Array]:
    """One weight a keypoint for both axes; see the top."""
    middle, target = points.mean(axis=0), joints[:, 0].mean(axis=0)
    rows = (points - middle).transpose(2, 0, 1).reshape(-1, points.shape[1])
    weights = ridge_slopes(rows, (joints[:, 0] - target).T.reshape(-1, 1), np.array([penalty]))[0]
    return _alike(weights[:, 0]), (target - middle.T @ weights[:, 0])[None]


def convex(points: Array, joints: Array, penalty: float) -> tuple[Array, Array]:
    """Weights of at least 0 that sum to 1, and an offset that the penalty is on; see the top."""
    with needing("named joints need", "evaluation"):
        from scipy.optimize import nnls

    count, number = points.shape[:2]
    rows = np.zeros((2 * count + 5, number + 4))  # the offset as two differences of numbers of at least 0
    rows[: 2 * count, :number] = points.transpose(2, 0, 1).reshape(-1, number)
    for axis in (0, 1):
        rows[axis * count : (axis + 1) * count, number + 2 * axis : number + 2 * axis + 2] = 1, -1
    rows[2 * count, :number] = SUM_WEIGHT
    rows[2 * count + 1 :, number:] = np.sqrt(penalty) * np.eye(4)
    target = np.concatenate([joints[:, 0].T.ravel(), [SUM_WEIGHT, 0, 0, 0, 0]])
    found, _ = nnls(rows, target, maxiter=30 * rows.shape[1])
    return _alike(found[:number]), np.array([[found[-4] - found[-3], found[-2] - found[-1]]])


def mean(points: Array, joints: Array, penalty: float) -> tuple[Array, Array]:
    """No weight at all."""
    return np.zeros((*points.shape[1:], 1, 2)), joints.mean(axis=0)


# With the penalties to choose from.
FORMS: dict[str, tuple[Form, Array]] = {
    "full": (full, np.logspace(-5, 1.5, 14)),
    "shared": (shared, np.logspace(-5, 1.5, 14)),
    "convex": (convex, np.logspace(-3, 2, 6)),
    "mean": (mean, np.zeros(1)),
}


def fit(name: str, points: Array, joints: Array, shown: NDArray[np.bool_], penalty: float) -> tuple[Array, Array]:
    """A form's coefficients (N, 2, J, 2) and offsets (J, 2), joint by joint; NaN for a joint that no sample shows."""
    form, _ = FORMS[name]
    slope = np.full((*points.shape[1:], joints.shape[1], 2), np.nan)
    offset = np.full((joints.shape[1], 2), np.nan)
    for j, rows in enumerate(shown.T):
        if rows.any():
            slope[:, :, j : j + 1], offset[j : j + 1] = form(points[rows], joints[rows, j : j + 1], penalty)
    return slope, offset


def apply(points: Array, slope: Array, offset: Array) -> Array:
    """Joints (n, J, 2) of points (n, N, 2)."""
    return np.tensordot(points, slope, axes=([1, 2], [0, 1])) + offset


def _alike(weights: Array) -> Array:
    """Weights (N,) of keypoints as coefficients (N, 2, 1, 2): x from x, and y from y."""
    return weights[:, None, None, None] * np.eye(2)[None, :, None, :]
