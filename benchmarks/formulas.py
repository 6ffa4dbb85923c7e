"""What is measured against: the published formulas, as a researcher would write them in PyTorch.

Of the operators, and of the whole model, whose layers are in formula_layers.py.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from formula_layers import Mixer, PublishedRegressor, PublishedTranslator, PublishedVGG
from torch import nn


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
    chosen = F.one_hot(indices, p.shape[1]).to(t.dtype) @ p
    distances = (t - chosen).square().sum(-1)
    values = t + (chosen - t).detach()
    return values.transpose(0, 1), indices.T, distances.T


def published_affine_warp(keypoints, affine):
    """Append 1 to each keypoint and multiply by its 2 x 3 matrix."""
    homogeneous = torch.cat([keypoints, torch.ones_like(keypoints[..., :1])], -1)
    homogeneous = homogeneous.expand(affine.shape[0], -1, -1)
    return (affine @ homogeneous.unsqueeze(-1)).squeeze(-1)


class PublishedMemory(nn.Module):
    """Recalls keypoints (B, N, 2), (row, column), from a codebook that follows them by moving averages."""

    def __init__(self, s):
        super().__init__()
        n, m, d, thin = s.num_keypoints, s.memory_banks, s.memory_width, s.memory_decoder_width
        tokens, shape = s.memory_token_hidden, (m, s.memory_prototypes)
        self.register_buffer("codebook", torch.randn(*shape, d))
        self.register_buffer("ema_cluster_size", torch.zeros(shape))
        self.register_buffer("ema_w", torch.randn(*shape, d))
        self.encoder_start, self.encoder_layer_norm = nn.Linear(2, d), nn.LayerNorm(d)
        self.encoder = nn.Sequential(*(Mixer(n, d, tokens, s.memory_hidden) for _ in range(s.memory_layers)))
        self.token_mlp, self.feature_embed, self.decoder_token_mlp = nn.Linear(n, m), nn.Linear(d, d), nn.Linear(m, n)
        self.decoder_start, self.decoder_layer_norm = nn.Linear(d, thin), nn.LayerNorm(thin)
        layers = (Mixer(n, thin, tokens, s.memory_decoder_hidden) for _ in range(s.memory_decoder_layers))
        self.decoder, self.recover_embed = nn.Sequential(*layers), nn.Linear(thin, 2)
        self.decay = s.memory_decay

    def forward(self, keypoints):
        x = self.encoder_layer_norm(self.encoder(self.encoder_start(keypoints)))
        tokens = self.feature_embed(self.token_mlp(x.transpose(1, 2)).transpose(1, 2))
        values, indices, distances = published_memory_attention(tokens, self.codebook.clone())
        if self.training:
            self.follow(tokens.detach(), indices)
        return self.decode(values), distances.mean() / tokens.shape[2]

    def decode(self, values):
        x = self.decoder_token_mlp(values.transpose(1, 2)).transpose(1, 2)
        return self.recover_embed(self.decoder_layer_norm(self.decoder(self.decoder_start(x))))

    @torch.no_grad()
    def prior(self):
        return self.decode(self.codebook.mean(1).unsqueeze(0)).squeeze(0)

    @torch.no_grad()
    def follow(self, tokens, indices):
        k, decay = self.codebook.shape[1], self.decay
        chosen = F.one_hot(indices, k).to(tokens.dtype).permute(1, 2, 0)  # (m, k, B)
        size = self.ema_cluster_size * decay + (1 - decay) * chosen.sum(2)
        total = size.sum(1, keepdim=True)
        self.ema_cluster_size.copy_((size + 1e-5) / (total + k * 1e-5) * total)
        self.ema_w.copy_(self.ema_w * decay + (1 - decay) * (chosen @ tokens.transpose(0, 1)))
        self.codebook.copy_(self.ema_w / self.ema_cluster_size.unsqueeze(2))


class PublishedOutput(NamedTuple):
    """Of a pass; keypoints and affine maps are in the published order, (row, column)."""

    keypoints: torch.Tensor
    affine: torch.Tensor
    recalled: torch.Tensor
    link_heatmap: torch.Tensor
    reconstruction: torch.Tensor
    losses: dict
    loss: torch.Tensor | None


class PublishedPPL(nn.Module):
    """The published Pose Prior Learner of the options `s`, a `PPLConfig`, with the published state dict.

    Training draws three link heatmaps, of the pose, of the pose as the memory recalls it and of the prior, of which the
    loss needs one. Spared is what only costs: moving averages in eval mode.
    """

    def __init__(self, s):
        super().__init__()
        n = s.num_keypoints
        self.size, self.thickness, self.factor, self.missing = s.image_size, s.thickness, s.link_factor, s.mask_ratio
        self.grid = s.mask_blocks
        self.skeleton_scalar, self.alpha = nn.Parameter(torch.randn(n, n)), nn.Parameter(torch.ones(()))
        self.memory, self.regressor, self.translator = PublishedMemory(s), PublishedRegressor(s), PublishedTranslator(s)
        self.vgg_loss = PublishedVGG()

    def rasterize(self, keypoints):
        i, j = torch.triu_indices(*self.skeleton_scalar.shape, 1, device=keypoints.device)
        weights = F.softplus(self.factor * self.skeleton_scalar[i, j])
        return published_link_heatmap(keypoints.flip(-1), weights, self.size, self.thickness)

    def find(self, images):
        """The prior, the affine maps, and the keypoints that they make of it."""
        prior = self.memory.prior()
        affine = self.regressor(images, prior)
        return prior, affine, published_affine_warp(prior, affine)

    def forward(self, images, losses=True):
        prior, affine, keypoints = self.find(images)
        recalled, commitment = self.memory(keypoints.detach())
        heatmap, reference = self.rasterize(keypoints), images
        if self.training:
            keep = torch.rand(len(images), 1, self.grid, self.grid, device=images.device) > self.missing
            reference = images * F.interpolate(keep.to(images.dtype), images.shape[2:])
        reconstruction = self.translator(self.alpha * reference, heatmap)
        out = PublishedOutput(keypoints, affine, recalled, heatmap, reconstruction, {}, None)
        if not losses:
            return out
        self.rasterize(recalled), self.rasterize(prior.unsqueeze(0))
        outside = keypoints.abs()
        terms = {
            "boundary": torch.where(outside > 1, outside, 0).sum(1).mean(),
            "reconstruction": self.vgg_loss(reconstruction, images),
            "memory": 100 * F.mse_loss(recalled, keypoints.detach()),
            "commitment": commitment,
        }
        return out._replace(losses=terms, loss=sum(terms.values()))
