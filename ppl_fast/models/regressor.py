"""The regressor: from an image and the prior to one affine transformation per keypoint (paper, section 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_fast.models.blocks import Layers, act, conv, init_kaiming, no_autocast
from ppl_fast.models.recompute import Block, Recomputing
from ppl_fast.models.resizing import DoublingConv2d, HalvingConv2d


class DownBlock(Recomputing):
    """Residual block that halves the resolution; the first convolutions of main and side path are run as one."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.outputs = outputs
        self.entry = Layers(HalvingConv2d(inputs, 2 * outputs), nn.BatchNorm2d(2 * outputs))
        self.main = Layers(act(inplace=False), conv(outputs, outputs), nn.BatchNorm2d(outputs))
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
        return self.spared(self._joined, x) if self.recompute == "blocks" else self._joined(x)

    def _joined(self, x: Tensor) -> Tensor:
        main, side = self.entry(x).split(self.outputs, dim=1)
        joined: Tensor = self.act(self.main(main).add_(side))
        return joined


class UpBlock(Block):
    """Doubles the resolution."""

    def __init__(self, inputs: int, outputs: int):
        # The first was the doubling once, and has its number in state dicts.
        super().__init__(nn.Identity(), DoublingConv2d(inputs, outputs), nn.BatchNorm2d(outputs), act())


def image_trunk(base: int, levels: int, map_stride: int) -> tuple[nn.Sequential, int]:
    """Layers from an image (B, 3, H, W) to features (B, C, H / map_stride, W / map_stride), and C.

    `levels` down-blocks of base * (1, 2, 4, ...) channels, then as many up-blocks as lead back to `map_stride`.
    """
    sizes = [base * 2**level for level in range(levels)]
    blocks: list[nn.Module] = [DownBlock(a, b) for a, b in zip([3, *sizes], sizes, strict=False)]
    features = base * map_stride // 2
    ups = 2**levels // map_stride
    blocks += [UpBlock(features * ups >> k, features * ups >> (k + 1)) for k in range(ups.bit_length() - 1)]
    return nn.Sequential(*blocks), features


class Regressor(nn.Module):
    """Attention maps over image features, and from what they attend to an affine transformation per keypoint.

    Args:
        num_keypoints: N.
        base: channels of the first down-block; each further one doubles them.
        levels: number of down-blocks.
        map_stride: image pixels per map cell, a power of two up to 2**levels.
        head: "affine", "residual" or "position" (see ExtendedPPLConfig).
        trunk: another trunk and its features C, as it is, in the place of one of base, levels and map_stride.
    """

    def __init__(
        self,
        num_keypoints: int,
        base: int = 64,
        levels: int = 4,
        map_stride: int = 4,
        head: str = "affine",
        trunk: tuple[nn.Module, int] | None = None,
    ):
        super().__init__()
        self.head = head
        self.trunk, features = trunk or image_trunk(base, levels, map_stride)
        self.maps = conv(features, num_keypoints)
        if head == "position":
            init_kaiming(self, spare=trunk and trunk[0])
            return
        self.embed = nn.Linear(2, features)
        hidden, last = nn.Linear(3 * features, features), nn.Linear(features, 6)
        self.affine = nn.Sequential(hidden, nn.LeakyReLU(0.01), last)
        init_kaiming(self, spare=trunk and trunk[0])
        if head == "residual":
            # Keypoints start near the expected positions, apart from one another.
            with torch.no_grad():
                last.weight.mul_(0.1)

    def forward(self, images: Tensor, prior: Tensor) -> Tensor:
        """Affine maps of images.

        Args:
            images: (B, 3, H, W).
            prior: (N, 2), (x, y).

        Returns:
            (B, N, 2, 3), float32, or float64 as the parameters.
        """
        if self.head == "position":
            return F.pad(self.positions(images).unsqueeze(3), (2, 0))
        features = self.trunk(images)
        logits = self.maps(features)
        # Positions need more digits than bfloat16 has: from here on nothing is autocast.
        with no_autocast(images.device):
            # The dtype is asked of a convolution: a quantized linear layer has none.
            dtype = self.maps.weight.dtype
            attention, position = attend(logits, dtype)
            features = features.flatten(2).to(dtype)
            # The embedding is linear and attention sums to one: embedding the mean is the mean of the embeddings.
            attended, prior = attention.to(dtype) @ features.mT, prior.to(dtype).expand_as(position)
            parts = attended, self.embed(position.to(dtype)), self.embed(prior)
            affine: Tensor = self.affine(torch.cat(parts, dim=2)).to(position.dtype).unflatten(2, (2, 3))
            if self.head == "residual":
                affine = affine + F.pad(position.unsqueeze(3), (2, 0))
            return affine

    def positions(self, images: Tensor) -> Tensor:
        """Where attention expects each keypoint in images (B, 3, H, W): (B, N, 2), all that the head "position" has."""
        logits = self.maps(self.trunk(images))
        with no_autocast(images.device):
            return attend(logits, self.maps.weight.dtype)[1]

    def attention(self, images: Tensor) -> Tensor:
        """Where each keypoint is looked for in images (B, 3, H, W): (B, N, h, w), which sums to 1 over the cells."""
        logits = self.maps(self.trunk(images))
        with no_autocast(images.device):
            return attend(logits, self.maps.weight.dtype)[0].view(logits.shape)


def concentration(attention: Tensor) -> dict[str, Tensor]:
    """`spread` and `flatness`, (B, N) each, of attention (B, N, h, w); see `KeypointModel.evidence`."""
    flat, positions = attention.flatten(2), cells(attention).to(attention.dtype)
    variance = flat @ positions.square() - (flat @ positions).square()
    return {"spread": variance.sum(dim=2).clamp_min(0).sqrt(), "flatness": -flat.amax(dim=2).log()}


def attend(logits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Maps (B, N, H, W) -> attention (B, N, H * W), a softmax over the cells, and expected (x, y) (B, N, 2).

    Both in `dtype`, or float32 where that has fewer digits.
    """
    attention = logits.flatten(2).to(torch.promote_types(dtype, torch.float32)).softmax(dim=2)
    return attention, attention @ cells(logits).to(attention.dtype)


def cells(maps: Tensor) -> Tensor:
    """(x, y) of the cells of maps (B, N, H, W), row by row: (H * W, 2), -1 and +1 at the first and last cell."""
    dtype = torch.float64 if maps.dtype == torch.float64 else torch.float32
    x = torch.linspace(-1, 1, maps.shape[3], device=maps.device, dtype=dtype)
    y = torch.linspace(-1, 1, maps.shape[2], device=maps.device, dtype=dtype)
    return torch.cartesian_prod(y, x).flip(1)
