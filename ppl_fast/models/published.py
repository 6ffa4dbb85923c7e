"""From the published model's state dict to ours: names, fused layers, and (row, column) to (x, y)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

# Published name -> ours, where nothing but the name differs.
RENAMED = (
    (r"alpha", "alpha"),
    (r"memory\.codebook", "memory.codebook"),
    (r"memory\.ema_cluster_size", "memory.sizes"),
    (r"memory\.ema_w", "memory.sums"),
    (r"memory\.token_mlp\.(.+)", r"memory.to_banks.\1"),
    (r"memory\.feature_embed\.(.+)", r"memory.to_token.\1"),
    (r"memory\.decoder_token_mlp\.(.+)", r"memory.from_banks.\1"),
    (r"memory\.decoder_start\.(.+)", r"memory.decoder.0.\1"),
    (r"regressor\.pred_prob\.(.+)", r"regressor.maps.\1"),
    (r"regressor\.predict\.0\.(.+)", r"regressor.affine.0.\1"),
    (r"translator\.down0\.(.+)", r"translator.start.\1"),
    (r"translator\.conv\.(.+)", r"translator.end.\1"),
)
MIXER = {"layernorm1": "token_norm", "layernorm2": "channel_norm"}
MLP = {"MLP_token.ff.0": "token_mlp.0", "MLP_token.ff.3": "token_mlp.2"}
MLP |= {"MLP_channel.ff.0": "channel_mlp.0", "MLP_channel.ff.3": "channel_mlp.2"}
LAYERS = {"encoder": "memory_layers", "decoder": "memory_decoder_layers"}
# The affine map's entries: rows give (row, column) from (row, column, 1) there, (x, y) from (x, y, 1) here.
AFFINE_ORDER = [4, 3, 5, 1, 0, 2]


def published_options(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The options of `PPLConfig` that a published state dict's shapes determine."""
    banks, prototypes, width = state["memory.codebook"].shape
    layers = {name: _count(rf"memory\.{name}\.(\d+)\..*", state) for name in ("encoder", "decoder")}
    options = {
        "num_keypoints": len(state["skeleton_scalar"]),
        "memory_banks": banks,
        "memory_prototypes": prototypes,
        "memory_width": width,
        "memory_layers": layers["encoder"],
        "memory_decoder_width": len(state["memory.decoder_start.weight"]),
        "memory_decoder_layers": layers["decoder"],
        "regressor_base": len(state["regressor.conv.0.net.0.weight"]),
        "regressor_levels": _count(r"regressor\.conv\.(\d+)\.conv_res\..*", state),
        "translator_base": len(state["translator.down0.0.weight"]),
        "translator_levels": _count(r"translator\.up(\d+)\..*", state),
    }
    if layers["encoder"]:
        options["memory_hidden"] = len(state["memory.encoder.0.MLP_channel.ff.0.weight"])
        options["memory_token_hidden"] = len(state["memory.encoder.0.MLP_token.ff.0.weight"])
    if layers["decoder"]:
        options["memory_decoder_hidden"] = len(state["memory.decoder.0.MLP_channel.ff.0.weight"])
    return options


def from_published_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a published state dict into one of `PPL`, built with `published_options(state)`.

    The perceptual network's weights (`vgg_loss.*`) and recomputed buffers are dropped.

    Raises: KeyError for a missing entry; ValueError naming an entry that the published model does not have.
    """
    options = published_options(state)
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        if not re.match(r"vgg_loss\.|regressor\.coord$|regressor\.conv\.\d+\.conv_res\.", key):
            name, tensor = _convert(key, value, options, state)
            ours[name] = tensor
    ours["memory.idle"] = torch.zeros_like(ours["memory.sizes"], dtype=torch.int64)
    return ours


def _convert(key: str, value: Tensor, options: Mapping[str, int], state: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    for pattern, name in RENAMED:
        if match := re.fullmatch(pattern, key):
            return match.expand(name), value
    if key == "skeleton_scalar":
        i, j = torch.triu_indices(len(value), len(value), 1)
        return "link_parameters", value[i, j]
    if match := re.fullmatch(r"memory\.encoder_start\.(\w+)", key):
        return f"memory.encoder.0.{match[1]}", value.flip(1) if match[1] == "weight" else value
    if match := re.fullmatch(r"memory\.recover_embed\.(\w+)", key):
        return f"memory.decoder.{options[LAYERS['decoder']] + 2}.{match[1]}", value.flip(0)
    if match := re.fullmatch(r"memory\.(encoder|decoder)_layer_norm\.(\w+)", key):
        return f"memory.{match[1]}.{options[LAYERS[match[1]]] + 1}.{match[2]}", value
    if match := re.fullmatch(r"memory\.(encoder|decoder)\.(\d+)\.(layernorm\d|MLP_\w+\.ff\.\d)\.(\w+)", key):
        return f"memory.{match[1]}.{int(match[2]) + 1}.{(MIXER | MLP)[match[3]]}.{match[4]}", value
    if match := re.fullmatch(r"regressor\.emb\.(\w+)", key):
        return f"regressor.embed.{match[1]}", value.flip(1) if match[1] == "weight" else value
    if match := re.fullmatch(r"regressor\.predict\.2\.(\w+)", key):
        return f"regressor.affine.2.{match[1]}", value[AFFINE_ORDER]
    if match := re.fullmatch(r"regressor\.conv\.(\d+)\.net\.(\d)\.(\w+)", key):
        return _trunk(int(match[1]), int(match[2]), match[3], value, state)
    if match := re.fullmatch(r"translator\.(down|up)(\d+)\.net\.(.+)", key):
        return f"translator.{match[1]}.{int(match[2]) - 1}.{match[3]}", value
    raise ValueError(f"published state dict: unexpected entry {key}")


def _trunk(block: int, layer: int, leaf: str, value: Tensor, state: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    """A layer of a block's main path; in down-blocks, the first convolution and its norm run with the side path's."""
    prefix = f"regressor.conv.{block}"
    if f"{prefix}.conv_res.0.weight" not in state:
        return f"regressor.trunk.{block}.{layer}.{leaf}", value
    if layer in (0, 2):
        side = state[f"{prefix}.conv_res.{layer}.{leaf}"]
        return f"regressor.trunk.{block}.entry.{layer // 2}.{leaf}", torch.cat([value, side]) if value.dim() else value
    return f"regressor.trunk.{block}.main.{layer - 3}.{leaf}", value


def _count(pattern: str, state: Mapping[str, Tensor]) -> int:
    return len({match[1] for key in state if (match := re.fullmatch(pattern, key))})
