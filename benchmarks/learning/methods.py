"""What is compared: each method as an architecture with its options, all from one recipe.

`AutoLink` gets every extra that it can take, so that what is left between the two columns is the prior. The rows of the
ablation change one thing each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ppl_fast.models import MODELS, AutoLink, ExtendedPPL
from ppl_fast.options.demo import BASELINE, MODEL


class HeldPrior(ExtendedPPL):
    """PPL whose template never moves: the regressor sees a fixed layout in place of the memory's."""

    spread = 0.0

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        generator = torch.Generator().manual_seed(0)
        layout = self.spread * (2 * torch.rand(self.settings.num_keypoints, 2, generator=generator) - 1)
        self.register_buffer("layout", layout, persistent=False)
        self.memory.prior = lambda *_: self.layout  # type: ignore[method-assign]


class CentredPrior(HeldPrior):
    """All of its template at the image's centre."""

    architecture = "ppl-centred-prior"


class RandomPrior(HeldPrior):
    """Its template at random places."""

    architecture = "ppl-random-prior"
    spread = 0.6


MODELS.update({each.architecture: each for each in (CentredPrior, RandomPrior)})


@dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Attributes:
        architecture: in `ppl_fast.models.MODELS`.
        words: for the table.
        options: of the model, beside the recipe's.
        trials: how many settings were tried on validation parts before this one was kept.
        masks: whether it is told where the subject of each image is, "drawn"; or finds what moves, "moving".
        baseline: whether it is AutoLink with every extra, that others of the same `terms` are compared to.
    """

    architecture: str
    words: str
    options: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    masks: str = ""
    baseline: bool = False

    def model(self) -> dict[str, Any]:
        """All options of the model."""
        recipe = BASELINE if issubclass(MODELS[self.architecture], AutoLink) else MODEL
        return recipe | self.options

    def size(self) -> int:
        """Pixels a side of its images."""
        return int(self.model()["image_size"])

    def terms(self) -> tuple[Any, ...]:
        """What must be the same in what is compared: masks, what is hidden in training, pixels, keypoints."""
        options = self.model()
        hidden = options["occlude_input"], options.get("occlude_view", False), options.get("occlude_view_weight", 1.0)
        return self.masks, *hidden, self.size(), options["num_keypoints"]


PLAIN = dict.fromkeys(("equivariance_weight", "withhold", "foreground_weight", "coverage_weight", "stray_weight"), 0.0)
WHOLE, VIEW = {"occlude_input": 0.0}, {"occlude_view": True}
HALF = VIEW | {"occlude_input": 0.5}
PLAIN |= WHOLE
METHODS = {
    "ppl": Method("extended-ppl", "PPL"),
    "autolink": Method("extended-autolink", "AutoLink + every extra it can take", baseline=True),
    "autolink-whole-input": Method(
        "extended-autolink", "AutoLink, trained on whole images", WHOLE, masks="moving", baseline=True
    ),
    "autolink-plain": Method("extended-autolink", "AutoLink", PLAIN),
    "ppl-centred-prior": Method("ppl-centred-prior", "PPL, prior held at the centre", masks="moving"),
    "ppl-random-prior": Method("ppl-random-prior", "PPL, prior held at a random layout", masks="moving"),
    "ppl-whole-input": Method("extended-ppl", "PPL, trained on whole images", WHOLE, masks="moving"),
    "ppl-view": Method("extended-ppl", "PPL, second views partly hidden", VIEW, masks="moving"),
    "autolink-view": Method(
        "extended-autolink", "AutoLink, second views partly hidden", VIEW, masks="moving", baseline=True
    ),
    "ppl-view-half": Method("extended-ppl", "PPL, half of them", HALF, masks="moving"),
    "ppl-view-x4": Method(
        "extended-ppl", "PPL, half of them, x 4", HALF | {"occlude_view_weight": 4.0}, masks="moving"
    ),
    "ppl-view-x8": Method(
        "extended-ppl", "PPL, half of them, x 8", HALF | {"occlude_view_weight": 8.0}, masks="moving"
    ),
    "autolink-view-x4": Method(
        "extended-autolink",
        "AutoLink, half of them, x 4",
        HALF | {"occlude_view_weight": 4.0},
        masks="moving",
        baseline=True,
    ),
    "ppl-128": Method("extended-ppl", "PPL, 128 pixels", {"image_size": 128}, masks="moving"),
    "ppl-8": Method("extended-ppl", "PPL, 8 keypoints", {"num_keypoints": 8}, masks="moving"),
    "ppl-24": Method("extended-ppl", "PPL, 24 keypoints", {"num_keypoints": 24}, masks="moving"),
    "ppl-masks": Method("extended-ppl", "PPL, told where the subject is", masks="drawn"),
    "autolink-masks": Method("extended-autolink", "AutoLink, told where the subject is", masks="drawn", baseline=True),
    "ppl-moving": Method("extended-ppl", "PPL, drawn to what moves", masks="moving"),
    "autolink-moving": Method("extended-autolink", "AutoLink, drawn to what moves", masks="moving", baseline=True),
}
