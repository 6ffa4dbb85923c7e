"""What `PPL` and `AutoLink` share: links with learned weights, a translator that reads their drawing, and its loss."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_fast._messages import short
from ppl_fast.models.base import KeypointModel
from ppl_fast.models.blocks import check_gathered, random_blocks
from ppl_fast.models.perceptual import load_perceptual
from ppl_fast.models.terms import Pass, Term
from ppl_fast.models.translator import TRANSLATORS
from ppl_fast.models.trunks import own_trunk
from ppl_fast.ops import default_links, link_heatmap
from ppl_fast.options.config import LinkModelConfig


class LinkModel(KeypointModel):
    """A subclass adds what finds keypoints, `translator` (from `new_translator`) and `forward`.

    What a pass consists of is cut into steps that an extension may override: `masks`, `seen`, `drawn`, `appearance`;
    and `terms` lists the terms of the loss, for a class or for one model: `model.terms = (*model.terms, mine)`.
    """

    Config: ClassVar[type[LinkModelConfig]]
    terms: tuple[Term, ...] = ()

    settings: LinkModelConfig
    kept_weights: Tensor | None

    def __init__(self, num_keypoints: int, image_size: int, thickness: float, **options: Any):
        super().__init__(num_keypoints=num_keypoints, image_size=image_size, thickness=thickness, **options)
        s = self.settings
        self.register_buffer("links", default_links(s.num_keypoints), persistent=False)
        start = torch.randn(len(self.links)) * s.link_spread + s.link_start
        self.link_parameters = nn.Parameter(start / s.link_factor)
        self.alpha = nn.Parameter(torch.ones(1))  # a scalar could not be shared out over processes
        self.register_buffer("kept_weights", None, persistent=False)
        self._perceptual: list[nn.Module] = []  # in a list, so that frozen VGG weights stay out of state dicts

    def new_translator(self) -> nn.Module:
        """A translator as the options have it."""
        s = self.settings
        return TRANSLATORS[s.translator](s.scaled(s.translator_base), s.translator_levels)

    def new_trunk(self, given: object, size: int) -> tuple[nn.Module, int] | None:
        """The trunk that is given, or that the options name, for images of side `size`, and C; None for its own."""
        s = self.settings
        return own_trunk(type(self).__name__, s.trunk, given, size, s.map_stride)

    # On disk, alpha is a scalar, as the published models have it

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        alpha = destination[f"{prefix}alpha"]
        if not hasattr(alpha, "full_tensor"):  # a part of one that is shared out stays as it is
            destination[f"{prefix}alpha"] = alpha.reshape(())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        alpha = state_dict.get(f"{prefix}alpha")
        if alpha is not None and alpha.ndim == 0:
            state_dict[f"{prefix}alpha"] = alpha.reshape(1)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def trunk(self) -> tuple[nn.Module, int]:
        """The layers from images (B, 3, S, S) to the features (B, C, h, w) that keypoints are found in, and C."""
        raise NotImplementedError(f"{type(self).__name__} has no trunk")

    def find(self, images: Tensor) -> Tensor:
        """Keypoints (B, N, 2) of images as they are, with gradient."""
        raise NotImplementedError(f"{type(self).__name__} has no find")

    # Links

    def link_weights(self) -> Tensor:
        """(E,) weights >= 0 of `links`: softplus(link_factor * parameter).

        Raises:
            RuntimeError: the parameters are shared out over processes (FSDP2), and not gathered.
        """
        if self.kept_weights is not None:
            return self.kept_weights
        check_gathered(self, "link_weights")
        return F.softplus(self.settings.link_factor * self.link_parameters)

    def keep(self) -> None:
        """Keep the weights of the links."""
        self.kept_weights = self.link_weights()

    def draw(self, keypoints: Tensor, weights: Tensor) -> Tensor:
        """The link heatmap (B, 1, S, S) of keypoints (B, N, 2) and link weights (E,)."""
        heatmap = link_heatmap(keypoints, weights, self.settings.image_size, self.settings.thickness, self.links)
        return heatmap.to(self.dtype)

    # Reconstruction

    def masks(self, images: Tensor, reference: Tensor | None) -> dict[str, Tensor]:
        """What is hidden in this pass, drawn by chance before it begins; in training alone.

        "reference": (B, 1, S, S) of 0 and 1, the blocks of the images that the translator takes appearance from;
        without it, it takes all. An extension adds others.
        """
        if not self.training or reference is not None:
            return {}
        return {"reference": self.kept_blocks(images, self.settings.mask_ratio)}

    def told(self, figure: Tensor | None, images: Tensor, masks: dict[str, Tensor]) -> dict[str, Tensor]:
        """What is hidden, and where the subject is; a published model cannot be told that."""
        if figure is not None:
            raise TypeError(f"{type(self).__name__}: figure must be None; the extensions learn from where a subject is")
        return masks

    def seen(self, images: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """What the keypoints are found in: the images (B, 3, S, S)."""
        return images

    def drawn(self, heatmap: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """What the translator takes the pose from: the link heatmap (B, 1, S, S)."""
        return heatmap

    def appearance(self, images: Tensor, reference: Tensor | None, masks: dict[str, Tensor]) -> Tensor:
        """What the translator takes appearance from: `reference`, or the images, with blocks dropped in training."""
        if reference is not None:
            return reference
        return images * masks["reference"] if "reference" in masks else images

    def kept_blocks(self, images: Tensor, ratio: float) -> Tensor:
        """(B, 1, S, S) of 0 and 1, each block of the grid 0 with probability `ratio`."""
        return random_blocks(images.shape[0], self.settings.mask_blocks, ratio, images.shape[2:], images)

    def load_perceptual(self) -> None:
        """Load the perceptual loss's weights, unless another loss is asked for.

        Raises:
            FileNotFoundError, ValueError: see `perceptual.load_perceptual`.
        """
        s = self.settings
        if s.reconstruction_loss == "perceptual" and not self._perceptual:
            found = s.perceptual, s.perceptual_weights, s.perceptual_download, s.recompute == "blocks"
            self._perceptual.append(load_perceptual(*found))

    def loss_name(self) -> str:
        """The reconstruction loss, in words for the log."""
        s = self.settings
        return f"perceptual, {s.perceptual}" if s.reconstruction_loss == "perceptual" else s.reconstruction_loss

    def reconstruction_loss(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """Scalar distance of reconstruction and images, both (B, 3, S, S)."""
        if self.settings.reconstruction_loss == "mse":
            return F.mse_loss(reconstruction.to(images.dtype), images)
        self.load_perceptual()
        distance: Tensor = self._perceptual[0].to(images)(reconstruction, images)
        return distance

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep a loss that is a module beside the model, and not among its modules, which a method would hide."""
        if name == "reconstruction_loss":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def with_losses(self, found: Pass) -> Any:
        """The output of a pass with its terms, each times its weight among the options, or 1, and the sum of those."""
        values: dict[str, Tensor] = {}
        for term in self.terms:
            values |= _checked(term, term(self, found), values)
        weighed = {name: getattr(self.settings, f"{name}_weight", 1.0) * value for name, value in values.items()}
        return found.out._replace(losses=weighed, loss=torch.stack(list(weighed.values())).sum())


def _checked(term: Term, given: Any, others: Container[str]) -> dict[str, Tensor]:
    """What a term gave: scalars by names that are not among the others."""
    name = getattr(term, "__name__", type(term).__name__)
    if not isinstance(given, dict) or not all(isinstance(value, Tensor) and not value.ndim for value in given.values()):
        got = (
            {key: getattr(value, "shape", value) for key, value in given.items()} if isinstance(given, dict) else given
        )
        raise TypeError(f"the term {name} must give a dict of scalar tensors by name, got {short(got)}")
    if twice := [key for key in given if key in others]:
        raise ValueError(f"the term {name} gives {twice[0]!r}, which another term gives already")
    return given
