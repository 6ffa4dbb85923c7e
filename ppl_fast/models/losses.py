"""The loss terms on keypoints, each a scalar averaged over the batch (paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def boundary(keypoints: Tensor) -> Tensor:
    """How far keypoints (B, N, 2) lie outside [-1, 1]: max(0, |p| - 1), summed over N, mean over batch and axis."""
    return (keypoints.abs() - 1).clamp_min(0).sum(dim=1).mean()


def separation(keypoints: Tensor, links: Tensor, sigma: float) -> Tensor:
    """Repulsion of the keypoints (B, N, 2): sum over links (E, 2) of exp(-|P_i - P_j|^2 / (2 sigma^2))."""
    squares = (keypoints[:, links[:, 0]] - keypoints[:, links[:, 1]]).square().sum(dim=2)
    return torch.exp(squares / (-2 * sigma**2)).sum(dim=1).mean()


def link_length(keypoints: Tensor, prior: Tensor, links: Tensor, weights: Tensor) -> Tensor:
    """Sum over links (E, 2) of w_ij * | |P_i - P_j| - |P'_i - P'_j| |, P' (B, N, 2) the pose, P (N, 2) the prior."""

    def lengths(points: Tensor) -> Tensor:
        offset = points[..., links[:, 0], :] - points[..., links[:, 1], :]
        # The norm has no gradient at 0; a tiny floor under the root keeps coinciding keypoints from giving NaN.
        return offset.square().sum(dim=-1).clamp_min(1e-12).sqrt()

    return (weights * (lengths(prior) - lengths(keypoints)).abs()).sum(dim=1).mean()
