"""The published state dicts and ours: names, layers that we run as one, and (row, column) for (x, y); both ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from math import isqrt

import torch
from torch import Tensor

from ppl_fast.models import LinkModel
from ppl_fast.models.config import LinkModelConfig
from ppl_fast.models.perceptual import PerceptualLoss
from ppl_fast.models.regressor import cells

# Ours -> published, where a parameter or buffer of one module is called otherwise.
LEAVES = {"link_parameters": "skeleton_scalar", "sizes": "ema_cluster_size", "sums": "ema_w"}
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
# What exchanges the two coordinates of a published entry; each is its own inverse.
TURNS: dict[str, Callable[[Tensor], Tensor]] = {
    "memory.encoder_start.weight": lambda value: value.flip(1),
    "memory.recover_embed.weight": lambda value: value.flip(0),
    "memory.recover_embed.bias": lambda value: value.flip(0),
    "regressor.emb.weight": lambda value: value.flip(1),
    "regressor.predict.2.weight": lambda value: value[AFFINE_ORDER],
    "regressor.predict.2.bias": lambda value: value[AFFINE_ORDER],
}
COORDINATES = {"PPL": "regressor.coord", "AutoLink": "encoder.detector.coord"}
VGG = "vgg_loss."


def kind_of(state: Mapping[str, Tensor]) -> str | None:
    """ "PPL" or "AutoLink", whose published state dict this looks like, or None."""
    if any(key.startswith("encoder.detector.") for key in state):
        return "AutoLink"
    return "PPL" if any(key.startswith(("memory.", "regressor.")) for key in state) else None


def sizes(kind: str, state: Mapping[str, Tensor]) -> dict[str, int]:
    """The options that a published state dict's shapes determine.

    Raises: KeyError, IndexError, ValueError for a missing entry or one of another number of dimensions.
    """
    conv, head = {"PPL": ("regressor.conv", ""), "AutoLink": ("encoder.detector.conv", "decoder.")}[kind]
    down = "translator." if kind == "PPL" else "decoder."
    part = "regressor" if kind == "PPL" else "detector"
    levels, blocks = (_count(rf"{re.escape(conv)}\.(\d+)\.{path}\..*", state) for path in ("conv_res", "net"))
    options = {
        "num_keypoints": state[f"{head}skeleton_scalar"].shape[0],
        f"{part}_base": state[f"{conv}.0.net.0.weight"].shape[0],
        f"{part}_levels": levels,
        "map_stride": 2 ** (2 * levels - blocks),
        "translator_base": state[f"{down}down0.0.weight"].shape[0],
        "translator_levels": _count(rf"{down}up(\d+)\..*", state),
    }
    if COORDINATES[kind] in state:
        side = isqrt(state[COORDINATES[kind]].numel() // 2) * options["map_stride"]
        options["image_size" if kind == "PPL" else "detector_size"] = side
    return options | (_memory_sizes(state) if kind == "PPL" else {})


def _memory_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    banks, prototypes, width = state["memory.codebook"].shape
    options = {
        "memory_banks": banks,
        "memory_prototypes": prototypes,
        "memory_width": width,
        "memory_layers": _count(r"memory\.encoder\.(\d+)\..*", state),
        "memory_decoder_width": state["memory.decoder_start.weight"].shape[0],
        "memory_decoder_layers": _count(r"memory\.decoder\.(\d+)\..*", state),
    }
    if options["memory_layers"]:
        options["memory_hidden"] = state["memory.encoder.0.MLP_channel.ff.0.weight"].shape[0]
        options["memory_token_hidden"] = state["memory.encoder.0.MLP_token.ff.0.weight"].shape[0]
    if options["memory_decoder_layers"]:
        options["memory_decoder_hidden"] = state["memory.decoder.0.MLP_channel.ff.0.weight"].shape[0]
    return options


def _count(pattern: str, state: Mapping[str, Tensor]) -> int:
    return len({match[1] for key in state if (match := re.fullmatch(pattern, key))})


def from_published(state: Mapping[str, Tensor], settings: LinkModelConfig) -> dict[str, Tensor]:
    """A complete published state dict as one for our model of these settings."""
    ours = {name: (module, place) for module, names in _modules(settings) for place, name in enumerate(names)}
    leaves = {published: leaf for leaf, published in LEAVES.items()}
    parts: dict[str, dict[int, Tensor]] = {}
    for key, value in state.items():
        if key.startswith(VGG) or key == COORDINATES[settings.owner()]:
            continue
        name, _, leaf = key.rpartition(".")
        module, place = ours[name]
        if leaf == "skeleton_scalar":
            i, j = torch.triu_indices(len(value), len(value), 1, device=value.device)
            value = value[i, j]
        value = TURNS[key](value) if key in TURNS else value
        parts.setdefault(f"{module}.{leaves.get(leaf, leaf)}".lstrip("."), {})[place] = value
    # Both layers of a pair have counted the same batches; everything else is stacked.
    found = {
        key: torch.cat([two[0], two[1]]) if len(two) == 2 and two[0].dim() else two[0] for key, two in parts.items()
    }
    if settings.owner() == "PPL":
        found["memory.idle"] = torch.zeros_like(found["memory.sizes"], dtype=torch.int64)
    found.setdefault("alpha", found["link_parameters"].new_ones(()))  # a model trained without use_alpha has none
    return found


def to_published(model: LinkModel) -> dict[str, Tensor]:
    """The published state dict of a model; its tensors are copies."""
    s = model.settings
    published = dict(_modules(s))
    found: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        module, _, leaf = key.rpartition(".")
        if leaf == "idle":
            continue
        if leaf == "link_parameters":
            i, j = model.links.unbind(dim=1)
            matrix = value.new_zeros(s.num_keypoints, s.num_keypoints)
            matrix[i, j] = value
            value = matrix
        names = published[module]
        parts = value.chunk(len(names)) if value.dim() else [value] * len(names)
        for name, part in zip(names, parts, strict=True):
            entry = f"{name}.{LEAVES.get(leaf, leaf)}".lstrip(".")
            found[entry] = (TURNS[entry](part) if entry in TURNS else part).clone()
    return found | _coordinates(model) | _vgg(model)


def _modules(s: LinkModelConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each of our modules with the published one; with two where our layer computes both."""
    if s.owner() == "PPL":
        yield "", ("",)
        yield from _memory(s)
        ups = yield from _trunk("regressor.trunk", "regressor.conv", s.regressor_levels, s.map_stride)
        yield "regressor.maps", ("regressor.pred_prob",)
        yield "regressor.embed", ("regressor.emb",)
        yield "regressor.affine.0", ("regressor.predict.0",)
        yield "regressor.affine.2", ("regressor.predict.2",)
        translator = "translator"
    else:
        yield "", ("decoder",)
        ups = yield from _trunk("detector.trunk", "encoder.detector.conv", s.detector_levels, s.map_stride)
        yield "detector.maps", (f"encoder.detector.conv.{s.detector_levels + ups}",)
        translator = "decoder"
    yield "translator.start.0", (f"{translator}.down0.0",)
    for level in range(s.translator_levels):
        for layer in (0, 1, 3, 4):
            yield f"translator.down.{level}.{layer}", (f"{translator}.down{level + 1}.net.{layer}",)
        for layer in (1, 2, 4, 5):
            yield f"translator.up.{level}.{layer}", (f"{translator}.up{level + 1}.net.{layer}",)
    yield "translator.end", (f"{translator}.conv",)


def _trunk(ours: str, published: str, levels: int, stride: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The down-blocks, whose first convolutions and norms of main and side path are one here; and the up-blocks."""
    for block in range(levels):
        for layer in (0, 1):
            pair = tuple(f"{published}.{block}.{path}.{2 * layer}" for path in ("net", "conv_res"))
            yield f"{ours}.{block}.entry.{layer}", pair
            yield f"{ours}.{block}.main.{layer + 1}", (f"{published}.{block}.net.{layer + 4}",)
    ups = (2**levels // stride).bit_length() - 1
    for block in range(levels, levels + ups):
        for layer in (1, 2):
            yield f"{ours}.{block}.{layer}", (f"{published}.{block}.net.{layer}",)
    return ups


def _memory(s: LinkModelConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    layers = {"encoder": s.memory_layers, "decoder": s.memory_decoder_layers}
    yield "memory", ("memory",)
    for coder, count in layers.items():
        yield f"memory.{coder}.0", (f"memory.{coder}_start",)
        for layer in range(count):
            for name, published in MIXER.items():
                yield f"memory.{coder}.{layer + 1}.{name}", (f"memory.{coder}.{layer}.{published}",)
        yield f"memory.{coder}.{count + 1}", (f"memory.{coder}_layer_norm",)
    yield f"memory.decoder.{layers['decoder'] + 2}", ("memory.recover_embed",)
    yield "memory.to_banks", ("memory.token_mlp",)
    yield "memory.to_token", ("memory.feature_embed",)
    yield "memory.from_banks", ("memory.decoder_token_mlp",)


def _coordinates(model: LinkModel) -> dict[str, Tensor]:
    """(row, column) of the attention maps' cells, which the published models keep in their state."""
    s = model.settings
    side = (s.image_size if s.owner() == "PPL" else s.detector_size) // s.map_stride
    rows = cells(model.alpha.new_empty(1, 1, side, side)).flip(1)
    return {COORDINATES[s.owner()]: rows[None] if s.owner() == "PPL" else rows[None, None]}


def _vgg(model: LinkModel) -> dict[str, Tensor]:
    """The perceptual loss's entries, where it is loaded and the published network."""
    found: dict[str, Tensor] = {}
    for loss in model._perceptual:
        if isinstance(loss, PerceptualLoss) and loss.network == "vgg16":
            found |= {f"{VGG}{name}": getattr(loss, name).unsqueeze(0).clone() for name in ("mean", "std")}
            layers = [(number, layer) for number, stage in enumerate(loss.stages) for layer in stage]
            for (number, layer), index in zip(layers, loss.indices, strict=True):
                for leaf, value in layer.state_dict().items():
                    found[f"{VGG}blocks.{number}.{index}.{leaf}"] = value.clone()
    return found
