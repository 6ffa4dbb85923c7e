"""What the operators are measured against: the published formulas, as a researcher would write them in PyTorch."""

import torch


def published_link_heatmap(keypoints, weights, size, thickness):
    """Draw all links as (B, E, H*W) tensors and take the largest: the eager formula of the published models.

    keypoints (B, N, 2), (x, y) in [-1, 1]; weights (E,) for the pairs i < j; returns (B, 1, H, W). A link of zero
    length divides by zero, as it does there.
    """
    height, width = (size, size) if isinstance(size, int) else size
    i, j = torch.triu_indices(keypoints.shape[1], keypoints.shape[1], 1, device=keypoints.device)
    ys = torch.linspace(-1, 1, height, dtype=keypoints.dtype, device=keypoints.device)
    xs = torch.linspace(-1, 1, width, dtype=keypoints.dtype, device=keypoints.device)
    pixels = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).reshape(1, 1, -1, 2)
    start, end = keypoints[:, i, None], keypoints[:, j, None]  # (B, E, 1, 2)
    along = end - start
    t = ((pixels - start) * along).sum(-1, keepdim=True) / (along * along).sum(-1, keepdim=True)
    before = ((pixels - start) ** 2).sum(-1)
    beyond = ((pixels - end) ** 2).sum(-1)
    beside = ((pixels - (start + t * along)) ** 2).sum(-1)
    t = t.squeeze(-1)
    squared = torch.where(t <= 0, before, torch.where(t >= 1, beyond, beside))
    values = torch.exp(-squared / thickness) * weights[:, None]
    return values.max(1).values.reshape(-1, 1, height, width)


def published_memory_attention(tokens, prototypes):
    """Choose by |t|^2 - 2 t.p + |p|^2, gather through a one-hot product, pass the gradient straight through."""
    t, p = tokens.transpose(0, 1), prototypes
    squared = (t**2).sum(-1, keepdim=True) - 2 * t @ p.transpose(1, 2) + (p**2).sum(-1).unsqueeze(1)
    indices = squared.argmin(-1)
    chosen = torch.nn.functional.one_hot(indices, p.shape[1]).to(t.dtype) @ p
    distances = (t - chosen).square().sum(-1)
    values = t + (chosen - t).detach()
    return values.transpose(0, 1), indices.T, distances.T


def published_affine_warp(keypoints, affine):
    """Append 1 to each keypoint and multiply by its 2 x 3 matrix."""
    homogeneous = torch.cat([keypoints, torch.ones_like(keypoints[..., :1])], -1)
    homogeneous = homogeneous.expand(affine.shape[0], -1, -1)
    return (affine @ homogeneous.unsqueeze(-1)).squeeze(-1)
