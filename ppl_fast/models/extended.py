"""PPL and AutoLink with what their papers do not have, for learning without pretrained features (docs/demo.md).

All of it is off by default: then the models are the published ones.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ppl_fast.models import terms as term
from ppl_fast.models.autolink import AutoLink
from ppl_fast.models.blocks import in_eval
from ppl_fast.models.link_model import LinkModel
from ppl_fast.models.ppl import PPL
from ppl_fast.options.extended import ExtendedAutoLinkConfig, ExtendedPPLConfig


class Extension(LinkModel):
    """What both extensions do otherwise than the published models, in training alone: they hide more."""

    settings: Any  # an ExtensionConfig as well
    behind: float | None = None  # the share of the training that is; None where nobody said
    _behind: Tensor | None = None  # the same on the device, where a CUDA graph is to read it

    def progressed(self, share: float) -> None:
        """Keep it, for what changes over the training.

        Raises:
            ValueError: no number from 0 to 1.
        """
        if not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise ValueError(f"progressed: share must be a number from 0 to 1, got {share!r}")
        self.behind = share
        if self.captured:
            if self._behind is None:
                self._behind = torch.zeros((), dtype=torch.float64, device=self.links.device)
            self._behind.fill_(share)

    def phase(self) -> tuple[float, ...]:
        """Whether link heatmaps are withheld."""
        return (float(self._withholds()),)

    def grown(self, over: float) -> float | Tensor:
        """How much of a weight there is that grows over a share of the training; all of it where nobody said."""
        if self.captured and self._behind is not None and over:
            return (self._behind / over).clamp(max=1).float()
        return 1.0 if self.behind is None or self.behind >= over else self.behind / over

    def _withholds(self) -> bool:
        return bool(self.settings.withhold) and (self.behind or 0.0) < self.settings.withhold_until

    def masks(self, images: Tensor, reference: Tensor | None) -> dict[str, Tensor]:
        """`LinkModel.masks`, and what the options hide.

        "occluded": (B,) bool, the samples that are partly hidden; "visible": (B, 1, S, S) of 0 and 1, where they are
        not; "withheld": (B,) bool, the samples whose link heatmap the translator does not see.
        """
        s, found = self.settings, {}
        if self.training and s.occlude_input:
            found["occluded"] = torch.rand(images.shape[0], device=images.device) < s.occlude_input
            found["visible"] = self.kept_blocks(images, s.occlude_ratio)
        if self.training and self._withholds():
            found["withheld"] = torch.rand(images.shape[0], device=images.device) < s.withhold
        return found | super().masks(images, reference)

    def told(self, figure: Tensor | None, images: Tensor, masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """And "figure": (B, 1, S, S), where the subject is; "known": (B,) bool, where that is told.

        From these samples nothing is withheld: there is no need to find out where the subject is.
        """
        if figure is None:
            return masks
        if not isinstance(figure, Tensor) or not figure.is_floating_point():
            kind = figure.dtype if isinstance(figure, Tensor) else type(figure).__name__
            raise TypeError(f"{type(self).__name__}: figure must be a float tensor, got {kind}")
        shape = len(images), 1, *images.shape[2:]
        if figure.shape != shape or figure.device != images.device:
            raise ValueError(
                f"{type(self).__name__}: figure must have shape {shape} on {images.device}, "
                f"got {tuple(figure.shape)} on {figure.device}"
            )
        known = (figure >= 0).flatten(1).all(dim=1)
        masks |= {"figure": figure.float(), "known": known}
        return masks | {"withheld": masks["withheld"] & ~known} if "withheld" in masks else masks

    def seen(self, images: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """The images, some of them partly hidden."""
        return images if self.settings.occlude_view else self.partly_hidden(images, masks)

    def partly_hidden(self, images: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """The images, or second views of them, some of them partly hidden."""
        if "occluded" not in masks:
            return images
        hidden = self.filled(images * masks["visible"], masks)
        return torch.where(masks["occluded"].view(-1, 1, 1, 1), hidden, images)

    def filled(self, hidden: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """What stands in for the pixels of the occluded images: nothing."""
        return hidden

    def drawn(self, heatmap: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """The link heatmap, 0 for the samples that it is withheld from."""
        return heatmap.masked_fill(masks["withheld"].view(-1, 1, 1, 1), 0) if "withheld" in masks else heatmap


class ExtendedPPL(Extension, PPL):
    """PPL with the options of `ExtendedPPLConfig`; `ExtendedPPLConfig.describe()` lists them.

    Arguments and errors are those of `PPL`.
    """

    Config: ClassVar[type[ExtendedPPLConfig]] = ExtendedPPLConfig
    architecture = "extended-ppl"
    terms: tuple[term.Term, ...] = (
        term.reconstruction,
        term.boundary,
        term.memory,
        term.separation,
        term.equivariance,
        term.figure,
        term.prior,
        term.plausibility,
        term.link_length,
    )

    settings: ExtendedPPLConfig

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        if self.settings.hold_prior:
            self.link_parameters.requires_grad_(False)

    def filled(self, hidden: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """With `occlude_fill`, of a share of them, the hidden pixels as a second round of `estimate` sees them."""
        occluded, share = masks["occluded"], self.settings.occlude_fill_share
        if share < 1:
            occluded = occluded & (torch.rand(len(occluded), device=occluded.device) < share)
        if not self.settings.occlude_fill:
            return hidden
        if self.captured or torch.compiler.is_compiling():  # one graph: all are filled in, then chosen from
            filled = self._imagined(hidden, masks["visible"])
            return torch.where(occluded.view(-1, 1, 1, 1), filled, hidden)
        if occluded.any():
            if torch._C._current_graph_task_id() != -1:
                raise RuntimeError(
                    f"{type(self).__name__}: with occlude_fill a pass cannot be computed again, as activation "
                    "checkpointing of the whole model does; checkpoint the regressor and the translator instead"
                )
            hidden[occluded] = self._imagined(hidden[occluded], masks["visible"][occluded])
        return hidden

    @torch.no_grad()
    def _imagined(self, hidden: Tensor, visible: Tensor) -> Tensor:
        """Partly hidden images (B, 3, S, S), the rest as one round of iterative inference imagines it."""
        model = in_eval(self)
        return model.imagined(hidden, visible > 0, model.find(hidden), model.link_weights())


class ExtendedAutoLink(Extension, AutoLink):
    """AutoLink with the options of `ExtendedAutoLinkConfig`; `ExtendedAutoLinkConfig.describe()` lists them.

    Arguments and errors are those of `AutoLink`.
    """

    Config: ClassVar[type[ExtendedAutoLinkConfig]] = ExtendedAutoLinkConfig
    architecture = "extended-autolink"
    terms: tuple[term.Term, ...] = (
        term.reconstruction,
        term.separation,
        term.equivariance,
        term.figure,
    )

    settings: ExtendedAutoLinkConfig
