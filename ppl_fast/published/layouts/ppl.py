"""The published Pose Prior Learner."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from ppl_fast.published.layouts.layout import (
    Layout,
    Modules,
    count,
    rows_and_columns,
    translator,
    translator_sizes,
    trunk,
    trunk_sizes,
)

MIXER = {
    "token_norm": "layernorm1",
    "token_mlp.0": "MLP_token.ff.0",
    "token_mlp.2": "MLP_token.ff.3",
    "channel_norm": "layernorm2",
    "channel_mlp.0": "MLP_channel.ff.0",
    "channel_mlp.2": "MLP_channel.ff.3",
}
# The affine map's entries: rows give (row, column) from (row, column, 1) there, (x, y) from (x, y, 1) here.
AFFINE_ORDER = [4, 3, 5, 1, 0, 2]


class PPLLayout(Layout):
    """Of `models.pose_prior_learner.PosePriorLearner`."""

    architecture = "ppl"
    signs = ("memory.", "regressor.")
    coordinates = "regressor.coord"
    optional = frozenset({coordinates, "alpha"})  # one trained without use_alpha has no alpha
    ours = frozenset({"memory.idle"})
    only = Layout.only | {"head": "affine"}
    turns = {
        "memory.encoder_start.weight": lambda value: value.flip(1),
        "memory.recover_embed.weight": lambda value: value.flip(0),
        "memory.recover_embed.bias": lambda value: value.flip(0),
        "regressor.emb.weight": lambda value: value.flip(1),
        "regressor.predict.2.weight": lambda value: value[AFFINE_ORDER],
        "regressor.predict.2.bias": lambda value: value[AFFINE_ORDER],
    }

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """See `Layout.sizes`."""
        options = {"num_keypoints": state["skeleton_scalar"].shape[0]}
        options |= trunk_sizes("regressor", "regressor.conv", state) | translator_sizes("translator", state)
        if self.coordinates in state:
            options["image_size"] = isqrt(state[self.coordinates].numel() // 2) * options["map_stride"]
        return options | _memory_sizes(state)

    def modules(self, settings: Any) -> Modules:
        """See `Layout.modules`."""
        yield "", ("",)
        yield from _memory({"encoder": settings.memory_layers, "decoder": settings.memory_decoder_layers})
        yield from trunk("regressor.trunk", "regressor.conv", settings.regressor_levels, settings.map_stride)
        yield "regressor.maps", ("regressor.pred_prob",)
        yield "regressor.embed", ("regressor.emb",)
        yield "regressor.affine.0", ("regressor.predict.0",)
        yield "regressor.affine.2", ("regressor.predict.2",)
        yield from translator("translator", settings.translator_levels)

    def cells(self, model: Any) -> Tensor:
        """See `Layout.cells`."""
        return rows_and_columns(model.settings.image_size // model.settings.map_stride, model.alpha)[None]

    def completed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """See `Layout.completed`."""
        state["memory.idle"] = torch.zeros_like(state["memory.sizes"], dtype=torch.int64)
        return super().completed(state)


def _memory_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    banks, prototypes, width = state["memory.codebook"].shape
    options = {
        "memory_banks": banks,
        "memory_prototypes": prototypes,
        "memory_width": width,
        "memory_layers": count(r"memory\.encoder\.(\d+)\..*", state),
        "memory_decoder_width": state["memory.decoder_start.weight"].shape[0],
        "memory_decoder_layers": count(r"memory\.decoder\.(\d+)\..*", state),
    }
    if options["memory_layers"]:
        options["memory_hidden"] = state["memory.encoder.0.MLP_channel.ff.0.weight"].shape[0]
        options["memory_token_hidden"] = state["memory.encoder.0.MLP_token.ff.0.weight"].shape[0]
    if options["memory_decoder_layers"]:
        options["memory_decoder_hidden"] = state["memory.decoder.0.MLP_channel.ff.0.weight"].shape[0]
    return options


def _memory(layers: dict[str, int]) -> Modules:
    yield "memory", ("memory",)
    for coder, number in layers.items():
        yield f"memory.{coder}.0", (f"memory.{coder}_start",)
        for layer in range(number):
            for name, published in MIXER.items():
                yield f"memory.{coder}.{layer + 1}.{name}", (f"memory.{coder}.{layer}.{published}",)
        yield f"memory.{coder}.{number + 1}", (f"memory.{coder}_layer_norm",)
    yield f"memory.decoder.{layers['decoder'] + 2}", ("memory.recover_embed",)
    yield "memory.to_banks", ("memory.token_mlp",)
    yield "memory.to_token", ("memory.feature_embed",)
    yield "memory.from_banks", ("memory.decoder_token_mlp",)
