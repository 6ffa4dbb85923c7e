"""What the backward computes again, in place of what autograd would have kept for it.

Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016, by torch's checkpoints: the same kernels on the same
values, so that gradients are the same to the bit wherever kernels repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ppl_fast.models.blocks import Layers, is_followed

Result = TypeVar("Result")


class Recomputing(nn.Module):
    """A module that may compute again what is inside of it; `recompute` is a value of the option of that name."""

    recompute = "nothing"

    def spared(self, function: Callable[..., Result], *maps: Tensor) -> Result:
        """What a function of maps gives, which draws nothing by chance; autograd keeps the maps alone.

        A convolution that comes last is not computed again: the backward needs what goes into it. Nothing is spared
        where there is no gradient, and inside of torch.compile, which chooses by itself, and of torch.func.
        """
        if is_followed() or not torch.is_grad_enabled():
            return function(*maps)

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), _averages_at_rest(self)

        found: Result = checkpoint(function, *maps, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
        return found


class Block(Recomputing, Layers):
    """Layers in order, on maps (B, C, H, W) that are laid one after another along the channels first."""

    def forward(self, *maps: Tensor) -> Tensor:
        """What the last layer gives."""
        if self.recompute == "nothing":
            return _through(self, *maps)
        layers: list[nn.Module] = []
        for layer in self:
            layers.append(layer)
            if self.recompute == "layers" and isinstance(layer, nn.Conv2d):
                maps, layers = (self.spared(partial(_through, layers), *maps),), []
        return self.spared(partial(_through, layers), *maps) if layers else maps[0]


def recompute(model: nn.Module, what: str) -> None:
    """Let the modules of a model compute again what the word says: nothing, layers or blocks."""
    for module in model.modules():
        if isinstance(module, Recomputing):
            module.recompute = what


def _through(layers: Iterable[nn.Module], *maps: Tensor) -> Tensor:
    x = torch.cat(maps, dim=1) if len(maps) > 1 else maps[0]
    for layer in layers:
        x = layer(x)
    return x


@contextmanager
def _averages_at_rest(module: nn.Module) -> Iterator[None]:
    """A block in which BatchNorms move copies of their running averages, which are left behind."""
    norms = [each for each in module.modules() if isinstance(each, nn.BatchNorm2d) and each.training]
    kept = [dict(norm._buffers) for norm in norms]
    try:
        for norm in norms:
            norm._buffers.update({name: x if x is None else x.clone() for name, x in norm._buffers.items()})
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            norm._buffers.update(buffers)
