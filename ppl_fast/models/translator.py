"""The translators: from the reference image and the link heatmap to a reconstruction (paper, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ppl_fast.models.blocks import Layers, act, conv, init_kaiming, laid_out
from ppl_fast.models.recompute import Block, Recomputing
from ppl_fast.models.resizing import DoublingConv2d, Halve, upsample2x


class UNetTranslator(Recomputing):
    """The published U-Net. Channels base * (1, 2, 4, 8, 8, ...); skips are concatenated.

    Args:
        base: channels at full resolution.
        levels: number of halvings.
    """

    def __init__(self, base: int = 64, levels: int = 4):
        super().__init__()
        sizes = [base * min(2**level, 8) for level in range(levels + 1)]
        self.start = nn.Sequential(conv(4, base), act())
        self.down = nn.ModuleList(self._down(a, b) for a, b in zip(sizes, sizes[1:], strict=False))
        # All but the deepest up-block take the block below concatenated with its skip, hence twice the channels.
        deep = [sizes[-1], *(2 * size for size in sizes[-2:0:-1])]
        self.up = nn.ModuleList(self._up(a, b) for a, b in zip(deep, sizes[-2::-1], strict=True))
        self.end = conv(2 * base, 3)
        init_kaiming(self)

    @staticmethod
    def _down(inputs: int, outputs: int) -> Block:
        first = conv(inputs, outputs), nn.BatchNorm2d(outputs), act()
        return Block(*first, conv(outputs, outputs), nn.BatchNorm2d(outputs), Halve(), act())

    @staticmethod
    def _up(inputs: int, outputs: int) -> Block:
        first = nn.Identity(), DoublingConv2d(inputs, outputs), nn.BatchNorm2d(outputs), act()  # as the published names
        return Block(*first, conv(outputs, outputs), nn.BatchNorm2d(outputs), act())

    def forward(self, reference: Tensor, heatmap: Tensor) -> Tensor:
        """Reconstruction (B, 3, H, W), unbounded, from reference (B, 3, H, W) and heatmap (B, 1, H, W)."""
        x: Tensor = self.start(laid_out(torch.cat([reference, heatmap.to(reference.dtype)], dim=1)))
        skips = [x]
        for block in self.down:
            x = block(x)
            skips.append(x)
        maps = [skips.pop()]
        for block in self.up:
            maps = [block(*maps), skips.pop()]
        x = self.spared(self._ended, *maps) if self.recompute != "nothing" else self._ended(*maps)
        return x

    def _ended(self, *maps: Tensor) -> Tensor:
        x: Tensor = self.end(torch.cat(maps, dim=1))
        return x


class LightTranslator(nn.Module):
    """For training on a CPU: strided convolutions down; convolution, then upsampling and an added skip, up.

    Not in the paper. About a tenth of the U-Net's operations at equal base, and no concatenations.

    Args:
        base: channels at full resolution, doubled by each level.
        levels: number of halvings.
    """

    def __init__(self, base: int = 16, levels: int = 3):
        super().__init__()
        sizes = [base * 2**level for level in range(levels + 1)]
        self.start = nn.Sequential(conv(4, base), act())
        self.down = nn.ModuleList(self._block(a, b, 2) for a, b in zip(sizes, sizes[1:], strict=False))
        self.up = nn.ModuleList(self._block(b, a, 1) for a, b in reversed(list(zip(sizes, sizes[1:], strict=False))))
        self.end = conv(base, 3)
        init_kaiming(self)

    @staticmethod
    def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return Layers(conv(inputs, outputs, stride), nn.BatchNorm2d(outputs), act())

    def forward(self, reference: Tensor, heatmap: Tensor) -> Tensor:
        """Reconstruction (B, 3, H, W), unbounded, from reference (B, 3, H, W) and heatmap (B, 1, H, W)."""
        x: Tensor = self.start(laid_out(torch.cat([reference, heatmap.to(reference.dtype)], dim=1)))
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(x)
        for block in self.up:
            x = upsample2x(block(x)).add_(skips.pop())
        x = self.end(x)
        return x


TRANSLATORS = {"unet": UNetTranslator, "light": LightTranslator}
