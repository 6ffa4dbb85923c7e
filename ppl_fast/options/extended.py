"""The options of the extensions: what the papers do not have, for learning without pretrained features (docs/demo.md).

All of it is off by default: then the models are the published ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ppl_fast._options import option
from ppl_fast.options.config import AutoLinkConfig, PPLConfig


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
    equivariance_ramp: float = option(
        0.0, "share of the training over which that weight grows to its full size (not in the paper)", high=1
    )
    view_turn: float = option(14.0, "degrees by which second views are turned, at most (not in the paper)", high=180)
    view_scale: float = option(0.2, "share by which they are larger or smaller, at most (not in the paper)", high=0.9)
    view_shift: float = option(
        0.15, "shift of theirs along each axis, at most, in units of half the image side (not in the paper)"
    )
    view_colour: float = option(0.2, "change of their colours, at most (not in the paper)", high=1)

    joints_weight: float = option(
        5.0, "weight of the distance of the first keypoints to the joints of labelled images (not in the paper)"
    )
    joints_ramp: float = option(
        0.0, "share of the training over which that weight grows to its full size (not in the paper)", high=1
    )
    joints_batch: int = option(8, "labelled images a step and process (not in the paper)", low=1)

    occlude_input: float = option(
        0.0, "share of samples partly hidden from what finds the keypoints (not in the paper)", high=1
    )
    occlude_ratio: float = option(0.5, "share of blocks hidden in such a sample (not in the paper)", high=1)
    occlude_view: bool = option(
        False, "hide them in second views, whose keypoints are to be those of the whole image (not in the paper)"
    )
    occlude_view_weight: float = option(
        1.0, "how many times as much as others such views count (not in the paper)", positive=True
    )

    withhold: float = option(
        0.0, "share of samples whose link heatmap is withheld from the translator (not in the paper)", high=1
    )
    withhold_until: float = option(
        1.0, "share of the training after which none is withheld any more (not in the paper)", high=1
    )
    foreground_weight: float = option(
        0.0, "weight of the link heatmap's difference from what those samples' reconstructions miss (not in the paper)"
    )
    coverage_weight: float = option(
        0.0, "weight of the distance from what they miss to the nearest keypoint (not in the paper)"
    )
    coverage_even: bool = option(
        False, "count what they miss by its length and not by its area, limbs as much as trunks (not in the paper)"
    )
    stray_weight: float = option(0.0, "weight of the distance from each keypoint to what they miss (not in the paper)")

    def _check_extension(self, owner: str) -> None:
        if self.occlude_view and not self.equivariance_weight:
            raise ValueError(f"{owner}: occlude_view needs a positive equivariance_weight, got 0.0")
        if self.occlude_view and not self.occlude_input:
            raise ValueError(f"{owner}: occlude_view needs a positive occlude_input, got 0.0")
        if self.occlude_view_weight != 1 and not self.occlude_view:
            raise ValueError(f"{owner}: occlude_view_weight needs occlude_view, got {self.occlude_view_weight} without")
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
        "position of the attention map; position: a keypoint is at that position (not in the paper)",
        choices=("affine", "residual", "position"),
    )
    occlude_fill: bool = option(
        False, "fill what is hidden from the regressor as iterative inference does (not in the paper)"
    )
    occlude_fill_share: float = option(
        1.0, "share of those samples that are filled in where any are; the others stay empty (not in the paper)", high=1
    )
    prior_weight: float = option(0.0, "weight of the keypoint prior's distance to the mean pose (not in the paper)")
    hold_prior: bool = option(
        False, "links and memory stay as they begin, with a trained model to begin with: as it has them"
    )
    plausibility_weight: float = option(
        0.0, "weight of the keypoints' distance to the memory's version of the pose (not in the paper)"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_extension(self.owner())

    def memory_options(self) -> dict[str, Any]:
        """And `reseed_after`, and whether it is held."""
        return super().memory_options() | {"reseed_after": self.reseed_after, "held": self.hold_prior}

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
        self._check_extension(self.owner())
