"""Do keypoints lie on the subject? By masks of it; a low regression error alone does not say so."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppl_fast.evaluation._matching import check_scipy
from ppl_fast.evaluation._score import Score, detected


def subject_share(keypoints: Any, masks: Any, *, within: float = 0.03) -> Score:
    """Share of keypoints on the subject, or no farther than `within` of the image size from it.

    The baseline is the share of the image area that is so: what keypoints at random places would score.

    Args:
        keypoints: (n, N, 2) detected, xy in [-1, 1].
        masks: (n, S, S), the subject's share of each pixel; one counts from one half on. Images without such a pixel,
            and so those without a mask, do not count.
        within: distance, as a fraction of the image size.

    Returns:
        The score; `details["keypoints"]` has it keypoint by keypoint.

    Raises:
        ValueError: wrong shapes, differing counts, non-finite keypoints, or no image with a subject.
        ImportError: scipy is not installed.
    """
    points = detected(keypoints, "keypoints", "subject_share")
    shares = np.asarray(masks)
    if shares.ndim != 3 or len(shares) != len(points) or shares.shape[1] != shares.shape[2]:
        raise ValueError(f"subject_share: masks must have shape ({len(points)}, S, S), got {shares.shape}")
    check_scipy()
    from scipy.ndimage import distance_transform_edt

    used = np.flatnonzero((shares >= 0.5).any(axis=(1, 2)))
    if not len(used):
        raise ValueError("subject_share: at least one mask must show a subject, got none")
    last = shares.shape[1] - 1
    hits, chance = np.zeros(points.shape[1]), 0.0
    for i in used:
        away = distance_transform_edt(shares[i] < 0.5) / last
        inside = points[i].clip(0, 1)
        x, y = np.rint(inside * last).astype(int).T
        beyond = np.linalg.norm(points[i] - inside, axis=1)
        hits += away[y, x] + beyond <= within
        chance += (away <= within).mean()
    protocol = (
        f"subject share: keypoints on the subject's mask or within {within:g} of the image size of it, on {len(used)} "
        "images; chance is the share of the image area that is so"
    )
    per_keypoint = hits / len(used)
    details = {"keypoints": per_keypoint.round(4).tolist()}
    value = float(per_keypoint.mean())
    return Score(value, protocol, None, float(chance / len(used)), baseline_name="chance", details=details)
