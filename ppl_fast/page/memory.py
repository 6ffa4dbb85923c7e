"""The memory: what its vectors decode to, in full, and how far a pose lies from what it holds."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ppl_fast.models import KeypointModel
from ppl_fast.models.blocks import MixerLayer, no_autocast
from ppl_fast.models.hierarchical_memory import HierarchicalMemory
from ppl_fast.ops import memory_attention
from ppl_fast.page.numbers import rounded, significant


class Recalled(NamedTuple):
    """Poses as the memory holds them."""

    keypoints: Tensor  # (B, N, 2), xy in [-1, 1]
    codes: Tensor  # (B, m) int64, the vector chosen in each bank
    distances: Tensor  # (B, N), of each keypoint to the pose's, as a fraction of the image size


def memory_of(model: KeypointModel) -> HierarchicalMemory | None:
    """The model's memory; None for a model that has none."""
    return next((module for module in model.modules() if isinstance(module, HierarchicalMemory)), None)


@torch.no_grad()
def recall(memory: HierarchicalMemory, keypoints: Tensor) -> Recalled:
    """What the memory makes of poses (B, N, 2), xy in [-1, 1]."""
    with no_autocast(memory.codebook.device):
        values, codes, _ = memory_attention(memory.encode(keypoints), memory.codebook)
        held = memory.decode(values)
    return Recalled(held, codes, (held - keypoints.to(held.dtype)).norm(dim=2) / 2)


@torch.no_grad()
def held(memory: HierarchicalMemory) -> dict[str, Any]:
    """The memory's decoder and vectors, for the page to decode any choice of one vector a bank.

    The decoder begins with two linear maps, across the banks and across a vector's numbers. They commute, so the
    vectors go through the second one here, which leaves as many numbers of each as the decoder is wide, c.

    Returns:
        {"shares": (m, k), how often each vector of a bank is chosen, "codes": (m, k, c), "banks": (N, m), "offset":
        (N, c): a pose's features are banks @ codes + offset; "layers", "norm" and "out", what follows, as weights}.
    """
    first, *mixers, norm, last = cast("list[nn.Module]", list(memory.decoder))
    assert isinstance(first, nn.Linear) and isinstance(norm, nn.LayerNorm) and isinstance(last, nn.Linear)
    across = memory.from_banks
    # (F t + f 1') W' + w = F (t W') + (f (W 1)' + w), f the banks' bias, w the features'.
    offset = torch.outer(across.bias, first.weight.sum(dim=1)) + first.bias
    shares = memory.sizes / memory.sizes.sum(dim=1, keepdim=True).clamp_min(torch.finfo(memory.sizes.dtype).tiny)
    return {
        "shares": rounded(shares, 4),
        "codes": significant(memory.codebook @ first.weight.mT),
        "banks": significant(across.weight),
        "offset": significant(offset),
        "layers": [_mixer(cast(MixerLayer, mixer)) for mixer in mixers],
        "norm": _norm(norm),
        "out": _linear(last),
    }


def _mixer(layer: MixerLayer) -> dict[str, Any]:
    return {
        "tokenNorm": _norm(layer.token_norm),
        "tokenMlp": [_linear(cast(nn.Linear, layer.token_mlp[i])) for i in (0, 2)],
        "channelNorm": _norm(layer.channel_norm),
        "channelMlp": [_linear(cast(nn.Linear, layer.channel_mlp[i])) for i in (0, 2)],
    }


def _linear(layer: nn.Linear) -> dict[str, Any]:
    return {"weight": significant(layer.weight), "bias": significant(layer.bias)}


def _norm(layer: nn.LayerNorm) -> dict[str, Any]:
    return {"weight": significant(layer.weight), "bias": significant(layer.bias), "eps": layer.eps}
