"""The published AutoLink, whose checkpoints are Lightning's."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from ppl_fast.published.layouts.layout import (
    Layout,
    Modules,
    rows_and_columns,
    translator,
    translator_sizes,
    trunk,
    trunk_sizes,
)


class AutoLinkLayout(Layout):
    """Of `models.model.Model`: an encoder, which holds the detector, and a decoder with links and translator."""

    architecture = "autolink"
    signs = ("encoder.detector.",)
    coordinates = "encoder.detector.coord"
    optional = frozenset({coordinates})

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """See `Layout.sizes`."""
        options = {"num_keypoints": state["decoder.skeleton_scalar"].shape[0]}
        options |= trunk_sizes("detector", "encoder.detector.conv", state) | translator_sizes("decoder", state)
        if self.coordinates in state:
            options["detector_size"] = isqrt(state[self.coordinates].numel() // 2) * options["map_stride"]
        return options

    def modules(self, settings: Any) -> Modules:
        """See `Layout.modules`."""
        yield "", ("decoder",)
        levels = settings.detector_levels
        ups = yield from trunk("detector.trunk", "encoder.detector.conv", levels, settings.map_stride)
        yield "detector.maps", (f"encoder.detector.conv.{levels + ups}",)
        yield from translator("decoder", settings.translator_levels)

    def cells(self, model: Any) -> Tensor:
        """See `Layout.cells`."""
        return rows_and_columns(model.settings.detector_size // model.settings.map_stride, model.alpha)[None, None]
