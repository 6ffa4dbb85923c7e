"""Percentage of correct keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_fast.evaluation._score import Score, joint_errors, labelled, mean_over, point_array, same_count


def pck(predicted: Any, joints: Any, threshold: float, visible: Any = None) -> Score:
    """Share of visible joints predicted within `threshold` of the image size (a distance equal to it counts).

    Args:
        predicted: (n, J, 2) joints such as a `RegressionMap` gives, xy in [0, 1]; NaN counts as wrong.
        joints: (n, J, 2) labelled, xy in [0, 1].
        threshold: a fraction of the image size, above 0.
        visible: (n, J) bool, default all.

    Raises:
        ValueError: wrong shapes, differing counts, a threshold that is not positive or no visible joint.
    """
    guesses = point_array(predicted, "predicted", "pck")
    targets, shown = labelled(joints, visible, "joints", "pck")
    if guesses.shape != targets.shape:
        same_count("pck", predicted=guesses, joints=targets)
        raise ValueError(f"pck: predicted must have shape {targets.shape} like joints, got {guesses.shape}")
    if not threshold > 0:
        raise ValueError(f"pck: threshold must be positive, got {threshold}")
    correct = joint_errors(guesses, targets, np.ones_like(shown)) <= threshold
    hits = np.where(shown, correct, np.nan)
    protocol = (
        f"PCK@{threshold:g}: share of visible joints predicted within {threshold:g} of the image size "
        f"on {len(targets)} test images"
    )
    return Score(float(mean_over(hits)), protocol, mean_over(hits, axis=0))
