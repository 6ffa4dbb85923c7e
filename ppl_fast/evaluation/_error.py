"""The error of regressed joints, by AutoLink's protocol and its variants: sides, sum, distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_fast.evaluation._score import joint_errors, labelled, mean_over


def regression_error(
    predicted: Any,
    joints: Any,
    visible: Any = None,
    *,
    swap: Sequence[tuple[int, int]] | None = None,
    summed_at: int | None = None,
    norm: str = "l2",
) -> tuple[float, np.ndarray]:
    """What `regression` reports of predicted joints.

    Args:
        predicted: (n, J, 2) as a `RegressionMap` gives them, xy in [0, 1].
        joints: (n, J, 2) labelled, xy in [0, 1].
        visible: (n, J) bool, default all.
        swap: as for `regression`.
        summed_at: as for `regression`.
        norm: as for `regression`.

    Returns:
        The error, and joint by joint (J,), NaN where never counted.

    Raises:
        ValueError: no joint was ever visible.
    """
    targets, shown = labelled(joints, visible, "joints", "regression_error")
    predicted = np.asarray(predicted, np.float64)
    errors = joint_errors(predicted, *nearer_sides(predicted, targets, shown, swap, norm), norm)
    per_joint = mean_over(errors, axis=0)
    if np.isnan(per_joint).all():
        raise ValueError("regression: no joint is visible in both the training and the test images")
    if summed_at is None:
        return float(mean_over(errors)), per_joint
    per_joint = per_joint * (summed_at - 1)
    return float(np.nansum(per_joint)), per_joint


def nearer_sides(
    predicted: np.ndarray,
    joints: np.ndarray,
    visible: np.ndarray,
    swap: Sequence[tuple[int, int]] | None,
    norm: str = "l2",
) -> tuple[np.ndarray, np.ndarray]:
    """Joints and visibility with left and right swapped in each image where that is nearer to `predicted`."""
    if not swap:
        return joints, visible
    permutation = permutation_of(swap, joints.shape[1])
    better = nearer_swapped(predicted, joints, visible, permutation, norm)[:, None]
    joints = np.where(better[..., None], joints[:, permutation], joints)
    return joints, np.where(better, visible[:, permutation], visible)


def error_unit(summed_at: int | None = None) -> str:
    """The unit of what `regression_error` returns."""
    return "fraction of the image size" if summed_at is None else f"pixels at {summed_at}, summed over the joints"


def error_text(images: int, summed_at: int | None = None, norm: str = "l2") -> str:
    """What `regression_error` measures on so many test images, with its unit."""
    distance = "L1 distance |dx| + |dy|" if norm == "l1" else "L2 distance"
    article = ", as a" if summed_at is None else " in"
    return f"mean {distance} on {images} test images{article} {error_unit(summed_at)}"


def checked_norm(norm: str, caller: str) -> str:
    """`norm`, or a ValueError where it is neither l1 nor l2."""
    if norm not in ("l1", "l2"):
        raise ValueError(f"{caller}: norm must be 'l1' or 'l2', got {norm!r}")
    return norm


def permutation_of(swap: Sequence[tuple[int, int]], joints: int) -> np.ndarray:
    """Which joint takes each one's place when left and right are swapped, (J,).

    Raises:
        ValueError: a number that is no joint's.
    """
    permutation = np.arange(joints)
    for left, right in swap:
        if not (0 <= left < joints and 0 <= right < joints):
            raise ValueError(f"regression: swap must hold joint numbers from 0 to {joints - 1}, got ({left}, {right})")
        permutation[[left, right]] = right, left
    return permutation


def nearer_swapped(
    predicted: np.ndarray, joints: np.ndarray, visible: np.ndarray, permutation: np.ndarray, norm: str
) -> np.ndarray:
    """(n,) bool: are the labels with left and right swapped nearer to what was predicted?"""
    errors = joint_errors(predicted, joints, visible, norm)
    swapped = joint_errors(predicted, joints[:, permutation], visible[:, permutation], norm)
    return mean_over(swapped, 1) < mean_over(errors, 1)
