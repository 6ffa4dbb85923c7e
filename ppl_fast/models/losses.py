"""The loss terms on keypoints, each a scalar averaged over the batch (paper, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


def equivariance(found: Tensor, expected: Tensor, counts: Tensor | float = 1.0) -> Tensor:
    """Mean squared distance of keypoints (B, N, 2) to where they are expected; those expected outside count as 0.

    `counts`: (B,), how many times each sample does.
    """
    inside = (expected.abs() <= 1).all(dim=2, keepdim=True)
    return (((found - expected).square() * inside).mean(dim=(1, 2)) * counts).mean()


def missed(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Where a reconstruction without the pose fails, (B, 1, H, W) in [0, 1], without gradient: there is the figure.

    A pixel counts as far as its error e, the mean over the channels of images and reconstruction (B, 3, H, W), stands
    out from the image's: 1 - exp(-(e / (2 RMS(e)))^4). A translator that has not yet learned the scene errs
    everywhere, and nothing stands out.
    """
    error = (images - reconstruction).detach().float().abs().mean(dim=1, keepdim=True)
    rms = error.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-6)
    return 1 - torch.exp(-((error / (2 * rms)) ** 4))


def foreground(heatmap: Tensor, figure: Tensor, levels: int = 4) -> Tensor:
    """Mean squared difference of link heatmap and figure, both (B, 1, H, W), for each sample: (B,).

    Summed over a pyramid of `levels` resolutions, each half the one before, so that a link is drawn to a limb that it
    does not touch yet.
    """
    difference = heatmap - figure
    total = difference.square().mean(dim=(1, 2, 3))
    for _ in range(levels - 1):
        difference = F.avg_pool2d(difference, 2)
        total = total + difference.square().mean(dim=(1, 2, 3))
    return total


def figure_distances(keypoints: Tensor, figure: Tensor, cells: int = 32, even: bool = False) -> tuple[Tensor, Tensor]:
    """The two directions of the Chamfer distance of keypoints (B, N, 2) and figure (B, 1, H, W) in [0, 1], both (B,).

    Coverage: mean over the figure's pixels of the squared distance to the nearest keypoint. Stray: mean over the
    keypoints of the squared distance to the nearest pixel, one outside of the figure counting 1 more. The figure is
    first averaged to about `cells` x `cells`, which bounds the (B, N, cells^2) distances. With `even`, coverage counts
    a pixel the less, the more of the figure there is around it, so that a part counts by its length, not by its area.
    """
    height, width = figure.shape[2:]
    step = max(1, min(height, width) // cells)
    figure = F.avg_pool2d(figure, step)
    y, x = (
        (torch.arange(count, device=figure.device) * step + (step - 1) / 2) * (2 / (pixels - 1)) - 1
        for count, pixels in zip(figure.shape[2:], (height, width), strict=True)
    )
    share = figure.flatten(1)
    # Squared along each axis first: only their sum is taken for every cell, and cells lie side by side.
    along_x, along_y = (x - keypoints[..., :1]).square(), (y - keypoints[..., 1:]).square()
    distances = (along_y.unsqueeze(3) + along_x.unsqueeze(2)).flatten(2)
    counted = share
    if even:
        around = F.avg_pool2d(figure, 7, stride=1, padding=3, count_include_pad=False)
        counted = (figure.square() / (around + 0.05)).flatten(1)
    coverage = (counted * distances.amin(dim=1)).sum(dim=1) / counted.sum(dim=1).clamp_min(1e-6)
    return coverage, (distances + (1 - share).unsqueeze(1)).amin(dim=2).mean(dim=1)


def plausibility(keypoints: Tensor, recalled: Tensor) -> Tensor:
    """Mean squared distance of keypoints (B, N, 2) to their places in the pose as the memory holds it, (B, N, 2)."""
    return (keypoints - recalled).square().sum(dim=2).mean()


def prior_distance(prior: Tensor, keypoints: Tensor) -> Tensor:
    """Mean squared distance of the prior (N, 2) to the mean of keypoints (B, N, 2) over the batch."""
    return (prior - keypoints.mean(dim=0)).square().mean()
