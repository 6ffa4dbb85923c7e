"""Second views of images: turned, scaled, shifted and recoloured, for keypoints that move with what they lie on."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def random_similarities(count: int, turn: float, scale: float, shift: float, like: Tensor) -> Tensor:
    """Random maps (count, 2, 3) of positions (x, y) in [-1, 1], p -> A p + b.

    Turned by up to `turn` degrees, scaled by 1 - scale to 1 + scale, shifted by up to `shift` along each axis.
    """
    draws = torch.rand(count, 4, device=like.device, dtype=like.dtype) * 2 - 1
    angle, factor = draws[:, 0] * math.radians(turn), 1 + draws[:, 1] * scale
    cosine, sine = factor * angle.cos(), factor * angle.sin()
    linear = torch.stack([cosine, -sine, sine, cosine], dim=1).unflatten(1, (2, 2))
    return torch.cat([linear, draws[:, 2:, None] * shift], dim=2)


def moved(points: Tensor, maps: Tensor) -> Tensor:
    """Points (B, N, 2) after maps (B, 2, 3)."""
    return points @ maps[:, :, :2].mT + maps[:, None, :, 2]


def warped(images: Tensor, maps: Tensor) -> Tensor:
    """Images (B, C, H, W) whose content maps (B, 2, 3) have moved; what comes in from outside is mirrored."""
    linear, shift = maps.split([2, 1], dim=2)
    back = linear.mT / linear[:, :1].square().sum(dim=2, keepdim=True)  # a similarity's inverse
    grid = F.affine_grid(torch.cat([back, -(back @ shift)], dim=2), list(images.shape), align_corners=True)
    found = F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)
    return found.contiguous(memory_format=torch.channels_last) if _is_channels_last(images) else found


def recoloured(images: Tensor, amount: float) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1], each channel times up to 1 - amount to 1 + amount, plus up to +-amount."""
    draws = amount * (torch.rand(2, images.shape[0], 3, 1, 1, device=images.device, dtype=images.dtype) * 2 - 1)
    return (images * (1 + draws[0]) + draws[1]).clamp(-1, 1)


def _is_channels_last(images: Tensor) -> bool:
    return images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
