"""The matching protocol: each labelled joint is paired with one detected keypoint, without any fitting."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_fast._extras import needing
from ppl_fast.evaluation._score import Score, detected, labelled, mean_over, same_count


def check_scipy() -> None:
    """Raise an ImportError where `matching` would, before models are trained or run for it."""
    with needing("matching needs", "data"):
        import scipy.optimize  # noqa: F401


def matching(keypoints: Any, joints: Any, visible: Any = None) -> Score:
    """Mean squared distance between joints and detected keypoints under the best fixed pairing.

    The published Pose Prior Learner test: the squared distance of every (keypoint, joint) pair is averaged over
    the images, one optimal assignment is made for the whole set, and its mean cost is the result.
    With J > N a keypoint serves up to ceil(J / N) joints.

    Args:
        keypoints: (n, N, 2) detected, xy in [-1, 1].
        joints: (n, J, 2) labelled, xy in [0, 1].
        visible: (n, J) bool, default all; a joint's cost is averaged over the images that show it.

    Returns:
        The score, a squared fraction of the image size; `details["assignment"]` lists (keypoint, joint).

    Raises:
        ValueError: wrong shapes, differing counts, non-finite values or no visible joint.
        ImportError: scipy is not installed.
    """
    check_scipy()
    from scipy.optimize import linear_sum_assignment

    points = detected(keypoints, "keypoints", "matching")
    targets, shown = labelled(joints, visible, "joints", "matching")
    same_count("matching", keypoints=points, joints=targets)

    # One joint at a time: a few (n, N) arrays instead of one (n, N, J, 2).
    columns = [
        mean_over(np.where(shown[:, j, None], ((points - targets[:, j, None]) ** 2).sum(-1), np.nan), axis=0)
        for j in range(targets.shape[1])
    ]
    counted = np.flatnonzero(shown.any(axis=0))
    cost = np.stack([columns[j] for j in counted], axis=1)
    uses = -(-cost.shape[1] // cost.shape[0])
    rows, picked = linear_sum_assignment(np.tile(cost, (uses, 1)))
    rows = rows % cost.shape[0]

    per_joint = np.full(targets.shape[1], np.nan)
    per_joint[counted[picked]] = cost[rows, picked]
    protocol = (
        f"matching (published PPL test): squared distance in [0, 1] coordinates averaged over {len(points)} test "
        f"images, one optimal {'one-to-one ' if uses == 1 else ''}assignment of {targets.shape[1]} joints to "
        f"{points.shape[1]} detected keypoints, mean cost; not comparable with regression"
    )
    pairs = sorted((int(i), int(counted[j])) for i, j in zip(rows, picked, strict=True))
    return Score(float(mean_over(per_joint)), protocol, per_joint, details={"assignment": pairs})
