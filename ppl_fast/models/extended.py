"""PPL and AutoLink with what their papers do not have, for learning without pretrained features (docs/demo.md).

All of it is off by default: then the models are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ppl_fast._options import option
from ppl_fast.models import terms as term
from ppl_fast.models.autolink import AutoLink
from ppl_fast.models.blocks import in_eval
from ppl_fast.models.config import AutoLinkConfig, PPLConfig
from ppl_fast.models.link_model import LinkModel
from ppl_fast.models.ppl import PPL
from ppl_fast.ops import affine_warp


@dataclass(frozen=True, eq=False, repr=False)
class ExtensionConfig:
    """The options that both extensions have."""

    separation_weight: float = option(0.0, "weight of the keypoints' repulsion (not in the paper)")
    separation_sigma: float = option(
        0.06, "reach of the repulsion in units of half the image side (not in the paper)", positive=True
    )

    equivariance_weight: float = option(
        0.0, "weight of the keypoints' distance to those of a second view of the image (not in the paper)"
    )
    view_turn: float = option(14.0, "degrees by which second views are turned, at most (not in the paper)", high=180)
    view_scale: float = option(0.2, "share by which they are larger or smaller, at most (not in the paper)", high=0.9)
    view_shift: float = option(
        0.15, "shift of theirs along each axis, at most, in units of half the image side (not in the paper)"
    )
    view_colour: float = option(0.2, "change of their colours, at most (not in the paper)", high=1)

    occlude_input: float = option(
        0.0, "share of samples partly hidden from what finds the keypoints (not in the paper)", high=1
    )
    occlude_ratio: float = option(0.5, "share of blocks hidden in such a sample (not in the paper)", high=1)

    withhold: float = option(
        0.0, "share of samples whose link heatmap is withheld from the translator (not in the paper)", high=1
    )
    foreground_weight: float = option(
        0.0, "weight of the link heatmap's difference from what those samples' reconstructions miss (not in the paper)"
    )
    coverage_weight: float = option(
        0.0, "weight of the distance from what they miss to the nearest keypoint (not in the paper)"
    )
    stray_weight: float = option(0.0, "weight of the distance from each keypoint to what they miss (not in the paper)")

    def _check_withhold(self, owner: str) -> None:
        for name in ("foreground_weight", "coverage_weight", "stray_weight"):
            if getattr(self, name) and not self.withhold:
                raise ValueError(f"{owner}: {name} needs a positive withhold, got {name}={getattr(self, name)} without")


@dataclass(frozen=True, eq=False, repr=False)
class ExtendedPPLConfig(ExtensionConfig, PPLConfig):
    """Every option of `ExtendedPPL`: those of `PPLConfig`, and what is not in the paper.

    Raises:
        TypeError: a value of the wrong type, or an unknown option.
        ValueError: a value out of bounds.
    """

    memory_start: str = option(
        "published",
        "start of the moving averages: published = sizes 0 and random sums; balanced = sizes 1 and sums equal to the "
        "vectors, which stay in place through the first steps (not in the paper)",
        choices=("published", "balanced"),
    )
    reseed_after: int = option(0, "steps after which an unused vector is re-seeded; 0: never (not in the paper)")
    head: str = option(
        "affine",
        "affine: the head gives the whole transformation; residual: its translation is counted from the expected "
        "position of the attention map (not in the paper)",
        choices=("affine", "residual"),
    )
    occlude_fill: bool = option(
        False, "fill what is hidden from the regressor as iterative inference does (not in the paper)"
    )
    prior_weight: float = option(0.0, "weight of the keypoint prior's distance to the mean pose (not in the paper)")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_withhold(self.owner())

    def memory_options(self) -> dict[str, Any]:
        """And `reseed_after`."""
        return super().memory_options() | {"reseed_after": self.reseed_after}

    def regressor_options(self) -> dict[str, Any]:
        """And `head`."""
        return super().regressor_options() | {"head": self.head}


@dataclass(frozen=True, eq=False, repr=False)
class ExtendedAutoLinkConfig(ExtensionConfig, AutoLinkConfig):
    """Every option of `ExtendedAutoLink`: those of `AutoLinkConfig`, and what is not in the paper.

    Raises:
        TypeError: a value of the wrong type, or an unknown option.
        ValueError: a value out of bounds.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_withhold(self.owner())


class Extension(LinkModel):
    """What both extensions do otherwise than the published models, in training alone: they hide more."""

    settings: Any  # an ExtensionConfig as well

    def masks(self, images: Tensor, reference: Tensor | None) -> dict[str, Tensor]:
        """`LinkModel.masks`, and what the options hide.

        "occluded": (B,) bool, the samples that are partly hidden; "visible": (B, 1, S, S) of 0 and 1, where they are
        not; "withheld": (B,) bool, the samples whose link heatmap the translator does not see.
        """
        s, found = self.settings, {}
        if self.training and s.occlude_input:
            found["occluded"] = torch.rand(len(images), device=images.device) < s.occlude_input
            found["visible"] = self.kept_blocks(images, s.occlude_ratio)
        if self.training and s.withhold:
            found["withheld"] = torch.rand(len(images), device=images.device) < s.withhold
        return found | super().masks(images, reference)

    def seen(self, images: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """The images, some of them partly hidden."""
        if "occluded" not in masks:
            return images
        hidden = self.filled(images * masks["visible"], masks)
        return torch.where(masks["occluded"].view(-1, 1, 1, 1), hidden, images)

    def filled(self, hidden: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """What stands in for the pixels of the occluded images: nothing."""
        return hidden

    def find(self, images: Tensor) -> Tensor:
        """Keypoints (B, N, 2) of images as they are."""
        raise NotImplementedError

    def drawn(self, heatmap: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """The link heatmap, 0 for the samples that it is withheld from."""
        return heatmap.masked_fill(masks["withheld"].view(-1, 1, 1, 1), 0) if "withheld" in masks else heatmap


class ExtendedPPL(Extension, PPL):
    """PPL with the options of `ExtendedPPLConfig`; `ExtendedPPLConfig.describe()` lists them.

    Arguments and errors are those of `PPL`.
    """

    Config: ClassVar[type[ExtendedPPLConfig]] = ExtendedPPLConfig
    architecture = "extended-ppl"
    terms: ClassVar[tuple[term.Term, ...]] = (
        term.reconstruction,
        term.boundary,
        term.memory,
        term.separation,
        term.equivariance,
        term.figure,
        term.prior,
        term.link_length,
    )

    settings: ExtendedPPLConfig

    def find(self, images: Tensor) -> Tensor:
        """T', without anything hidden."""
        prior = self.memory.prior()
        return affine_warp(prior, self.regressor(images, prior))

    def filled(self, hidden: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """With `occlude_fill`, the hidden pixels as a second round of `estimate` sees them."""
        occluded = masks["occluded"]
        if self.settings.occlude_fill and occluded.any():
            if torch._C._current_graph_task_id() != -1 and not torch.compiler.is_compiling():
                raise RuntimeError(
                    f"{type(self).__name__}: with occlude_fill a pass cannot be computed again, as activation "
                    "checkpointing of the whole model does; checkpoint the regressor and the translator instead"
                )
            with torch.no_grad():
                model = in_eval(self)
                part, visible = hidden[occluded], masks["visible"][occluded] > 0
                keypoints = model.find(part)
                hidden[occluded] = model.imagined(part, visible, keypoints, model.link_weights())
        return hidden


class ExtendedAutoLink(Extension, AutoLink):
    """AutoLink with the options of `ExtendedAutoLinkConfig`; `ExtendedAutoLinkConfig.describe()` lists them.

    Arguments and errors are those of `AutoLink`.
    """

    Config: ClassVar[type[ExtendedAutoLinkConfig]] = ExtendedAutoLinkConfig
    architecture = "extended-autolink"
    terms: ClassVar[tuple[term.Term, ...]] = (
        term.reconstruction,
        term.separation,
        term.equivariance,
        term.figure,
    )

    settings: ExtendedAutoLinkConfig

    def find(self, images: Tensor) -> Tensor:
        """The detector's keypoints, without anything hidden."""
        return self.detect(images)[0]
