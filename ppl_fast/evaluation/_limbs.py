"""Do the learned links lie on limbs? A low regression error alone does not say so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppl_fast.evaluation._score import Score, detected, labelled, same_count

POINTS_PER_LINK = 21
CHANCE_GRID = 32  # chance is the share of this many squared grid points that are near a bone
CHUNK = 64  # images at a time, to bound the (images, points, bones) distances


def limb_share(
    keypoints: Any,
    links: Any,
    weights: Any,
    joints: Any,
    skeleton: Sequence[tuple[int, int]],
    visible: Any = None,
    *,
    heaviest: int = 12,
    within: float = 0.05,
) -> Score:
    """Share of points along the heaviest links that lie within `within` of the image size of a bone.

    The baseline is the share of the image area that near a bone: what links at random places would score.

    Args:
        keypoints: (n, N, 2) detected, xy in [-1, 1].
        links: (E, 2) keypoint numbers.
        weights: (E,).
        joints: (n, J, 2) labelled, xy in [0, 1].
        skeleton: (joint, joint) bones.
        visible: (n, J) bool, default all; a bone counts where both ends are visible, an image where any bone does.
        heaviest: how many links count.
        within: distance, as a fraction of the image size.

    Returns:
        The score; `details["links"]` lists the links counted, heaviest first.

    Raises:
        ValueError: wrong shapes, differing counts, non-finite values, no skeleton or no visible bone.
    """
    points = detected(keypoints, "keypoints", "limb_share")
    targets, shown = labelled(joints, visible, "joints", "limb_share")
    same_count("limb_share", keypoints=points, joints=targets)
    link_ends, weight = np.asarray(links), np.asarray(weights, np.float64)
    if link_ends.ndim != 2 or link_ends.shape != (len(weight), 2):
        raise ValueError(
            f"limb_share: links must have shape (E, 2) and weights (E,), got {link_ends.shape} and {weight.shape}"
        )
    bones = np.asarray(skeleton, dtype=np.int64).reshape(-1, 2)
    if not len(bones) or bones.min() < 0 or bones.max() >= targets.shape[1]:
        expected = f"pairs of joint numbers below {targets.shape[1]}"
        raise ValueError(f"limb_share: skeleton must hold {expected}, got {skeleton}")
    bone_shown = np.all(shown[:, bones], axis=2)
    if not bone_shown.any():
        raise ValueError("limb_share: at least one bone must have both ends visible, got none")

    order = np.argsort(-weight, kind="stable")[:heaviest]
    along = np.linspace(0, 1, POINTS_PER_LINK)[:, None]
    axis = (np.arange(CHANCE_GRID) + 0.5) / CHANCE_GRID
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    hits = counted = chance = 0.0
    used = np.flatnonzero(bone_shown.any(axis=1))
    for part in np.array_split(used, -(-len(used) // CHUNK)):
        ends = points[part][:, link_ends[order]]
        samples = ends[:, :, :1] + along * (ends[:, :, 1:] - ends[:, :, :1])
        bone_ends = targets[part][:, bones]
        near = _near(samples.reshape(len(part), -1, 2), bone_ends, bone_shown[part], within)
        hits, counted = hits + near.sum(), counted + near.size
        everywhere = np.broadcast_to(grid, (len(part), *grid.shape))
        chance += _near(everywhere, bone_ends, bone_shown[part], within).mean(1).sum()
    protocol = (
        f"limb share: points along the {len(order)} heaviest links within {within:g} of the image size of a bone, "
        f"on {len(used)} images; chance is the share of the image area that near a bone"
    )
    listed = [tuple(int(i) for i in link) for link in link_ends[order]]
    baseline = float(chance / len(used))
    return Score(float(hits / counted), protocol, None, baseline, baseline_name="chance", details={"links": listed})


def _near(points: np.ndarray, bone_ends: np.ndarray, bone_shown: np.ndarray, within: float) -> np.ndarray:
    """(n, P) bool: is the point (n, P, 2) within a distance of a shown bone (n, K, 2 ends, 2)?"""
    start, span = bone_ends[:, None, :, 0], bone_ends[:, None, :, 1] - bone_ends[:, None, :, 0]
    offset = points[:, :, None] - start
    length = (span**2).sum(-1)
    fraction = np.clip((offset * span).sum(-1) / np.where(length > 0, length, 1), 0, 1)
    distance = ((offset - fraction[..., None] * span) ** 2).sum(-1)
    return ((distance <= within**2) & bone_shown[:, None]).any(-1)
