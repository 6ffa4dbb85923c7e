"""What the layouts of published models have in common.

Names both ways, layers that we run as one, and (row, column) for (x, y).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ppl_fast.models import MODELS, KeypointModel, LinkModel
from ppl_fast.models.blocks import spare_biases
from ppl_fast.models.perceptual import PerceptualLoss
from ppl_fast.models.regressor import cells

# Ours -> published, where a parameter or buffer of one module is called otherwise.
LEAVES = {"link_parameters": "skeleton_scalar", "sizes": "ema_cluster_size", "sums": "ema_w"}
VGG = "vgg_loss."
Modules = Iterator[tuple[str, tuple[str, ...]]]


class Layout(ABC):
    """What is known of one published model. A subclass holds everything that is of that model alone.

    Attributes:
        architecture: our name of the model.
        signs: starts of entries by which a state dict is known.
        coordinates: the entry with the (row, column) of the attention maps' cells, which is recomputed.
        optional: entries that need not be there.
        options: what the published modules and hyper-parameters call our options.
        ours: entries of our state dict that the published one has nothing for.
        only: options of ours of which the published code has one value.
        turns: what exchanges the two coordinates of an entry; each is its own inverse.
    """

    architecture: ClassVar[str]
    signs: ClassVar[tuple[str, ...]]
    coordinates: ClassVar[str]
    optional: ClassVar[frozenset[str]]
    options: ClassVar[dict[str, str]] = {
        "thick": "thickness",
        "sklr": "link_factor",
        "block": "mask_blocks",
        "missing": "mask_ratio",
        "image_size": "image_size",
    }
    ours: ClassVar[frozenset[str]] = frozenset()
    only: ClassVar[dict[str, Any]] = {"translator": "unet"}
    turns: ClassVar[dict[str, Callable[[Tensor], Tensor]]] = {}

    @property
    def model(self) -> type[KeypointModel]:
        """Our class."""
        return MODELS[self.architecture]

    def matches(self, state: Mapping[str, Any]) -> bool:
        """Whether a state dict looks like this model's."""
        return any(key.startswith(self.signs) for key in state)

    @abstractmethod
    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """The options that a published state dict's shapes determine.

        Raises:
            KeyError, IndexError, ValueError: a missing entry, or one of another number of dimensions.
        """

    @abstractmethod
    def modules(self, settings: Any) -> Modules:
        """Each of our modules with the published one; with two where our layer computes both."""

    @abstractmethod
    def cells(self, model: Any) -> Tensor:
        """The entry `coordinates`."""

    def completed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of ours with the entries that the published one has nothing for."""
        state.setdefault("alpha", state["link_parameters"].new_ones(()))  # one trained without use_alpha has none
        return state

    def from_published(self, state: Mapping[str, Tensor], settings: Any) -> dict[str, Tensor]:
        """A complete published state dict as one for our model of these settings."""
        ours = {name: (module, place) for module, names in self.modules(settings) for place, name in enumerate(names)}
        leaves = {published: leaf for leaf, published in LEAVES.items()}
        parts: dict[str, dict[int, Tensor]] = {}
        for key, value in state.items():
            if key.startswith(VGG) or key == self.coordinates:
                continue
            name, _, leaf = key.rpartition(".")
            module, place = ours[name]
            if leaf == "skeleton_scalar":
                i, j = torch.triu_indices(len(value), len(value), 1, device=value.device)
                value = value[i, j]
            value = self.turns[key](value) if key in self.turns else value
            parts.setdefault(f"{module}.{leaves.get(leaf, leaf)}".lstrip("."), {})[place] = value
        # Both layers of a pair have counted the same batches; everything else is stacked.
        found = {
            key: torch.cat([two[0], two[1]]) if len(two) == 2 and two[0].dim() else two[0] for key, two in parts.items()
        }
        return self.completed(found)

    def to_published(self, model: LinkModel) -> dict[str, Tensor]:
        """The published state dict of a model; its tensors are copies."""
        published = dict(self.modules(model.settings))
        found: dict[str, Tensor] = {}
        state = model.state_dict()
        state |= {bias: torch.zeros_like(state[mean]) for bias, mean in spare_biases(model).items()}
        for key, value in state.items():
            module, _, leaf = key.rpartition(".")
            if key in self.ours:
                continue
            if leaf == "link_parameters":
                i, j = model.links.unbind(dim=1)
                matrix = value.new_zeros(model.settings.num_keypoints, model.settings.num_keypoints)
                matrix[i, j] = value
                value = matrix
            names = published[module]
            parts = value.chunk(len(names)) if value.dim() else [value] * len(names)
            for name, part in zip(names, parts, strict=True):
                entry = f"{name}.{LEAVES.get(leaf, leaf)}".lstrip(".")
                found[entry] = (self.turns[entry](part) if entry in self.turns else part).clone()
        return found | {self.coordinates: self.cells(model)} | _vgg(model)


def count(pattern: str, state: Mapping[str, Tensor]) -> int:
    """How many values the pattern's group has among the entries."""
    return len({match[1] for key in state if (match := re.fullmatch(pattern, key))})


def trunk_sizes(part: str, conv: str, state: Mapping[str, Tensor]) -> dict[str, int]:
    """The options of our `part`, regressor or detector, from the published layers `conv`."""
    levels, blocks = (count(rf"{re.escape(conv)}\.(\d+)\.{path}\..*", state) for path in ("conv_res", "net"))
    base = state[f"{conv}.0.net.0.weight"].shape[0]
    return {f"{part}_base": base, f"{part}_levels": levels, "map_stride": 2 ** (2 * levels - blocks)}


def translator_sizes(published: str, state: Mapping[str, Tensor]) -> dict[str, int]:
    """The options of the translator, from the published module."""
    levels = count(rf"{published}\.up(\d+)\..*", state)
    return {"translator_base": state[f"{published}.down0.0.weight"].shape[0], "translator_levels": levels}


def trunk(ours: str, published: str, levels: int, stride: int) -> Generator[tuple[str, tuple[str, ...]], None, int]:
    """The down-blocks, whose first convolutions and norms of main and side path are one here; and the up-blocks.

    Returns:
        The number of up-blocks.
    """
    for block in range(levels):
        for layer in (0, 1):
            pair = tuple(f"{published}.{block}.{path}.{2 * layer}" for path in ("net", "conv_res"))
            yield f"{ours}.{block}.entry.{layer}", pair
            yield f"{ours}.{block}.main.{layer + 1}", (f"{published}.{block}.net.{layer + 4}",)
    ups: int = (2**levels // stride).bit_length() - 1
    for block in range(levels, levels + ups):
        for layer in (1, 2):
            yield f"{ours}.{block}.{layer}", (f"{published}.{block}.net.{layer}",)
    return ups


def translator(published: str, levels: int) -> Modules:
    """The U-Net."""
    yield "translator.start.0", (f"{published}.down0.0",)
    for level in range(levels):
        for layer in (0, 1, 3, 4):
            yield f"translator.down.{level}.{layer}", (f"{published}.down{level + 1}.net.{layer}",)
        for layer in (1, 2, 4, 5):
            yield f"translator.up.{level}.{layer}", (f"{published}.up{level + 1}.net.{layer}",)
    yield "translator.end", (f"{published}.conv",)


def rows_and_columns(side: int, like: Tensor) -> Tensor:
    """(side * side, 2): (row, column) of the cells of attention maps, row by row."""
    return cells(like.new_empty(1, 1, side, side)).flip(1)


def _vgg(model: LinkModel) -> dict[str, Tensor]:
    """The perceptual loss's entries, where it is loaded and the published network."""
    found: dict[str, Tensor] = {}
    for loss in model._perceptual:
        if isinstance(loss, PerceptualLoss) and loss.network == "vgg16":
            found |= {f"{VGG}{name}": getattr(loss, name).unsqueeze(0).clone() for name in ("mean", "std")}
            layers = [(number, layer) for number, stage in enumerate(loss.stages) for layer in stage.children()]
            for (number, layer), index in zip(layers, loss.indices, strict=True):
                for leaf, value in layer.state_dict().items():
                    found[f"{VGG}blocks.{number}.{index}.{leaf}"] = value.clone()
    return found
