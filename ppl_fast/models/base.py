"""What `PPL` and `AutoLink` share: links with learned weights, a translator that reads their drawing, and its loss."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_fast import _check
from ppl_fast.models import checkpoint
from ppl_fast.models.blocks import random_blocks
from ppl_fast.models.config import LinkModelConfig
from ppl_fast.models.perceptual import load_perceptual
from ppl_fast.models.translator import TRANSLATORS
from ppl_fast.ops import default_links, link_heatmap

if TYPE_CHECKING:
    from typing_extensions import Self

RANGE = 1.01  # images may leave [-1, 1] by what resizing and bfloat16 round


class LinkModel(nn.Module):
    """Base of the models. A subclass adds what finds keypoints, `translator` (from `new_translator`) and `forward`."""

    Config: ClassVar[type[LinkModelConfig]]
    train_defaults: ClassVar[dict[str, Any]] = {}  # options of the training loop that the published model differs in

    def __init__(self, num_keypoints: int, image_size: int, thickness: float, **options: Any):
        super().__init__()
        options |= {"num_keypoints": num_keypoints, "image_size": image_size, "thickness": thickness}
        self.settings = s = self.Config.from_dict(options)
        self.register_buffer("links", default_links(s.num_keypoints), persistent=False)
        start = torch.randn(len(self.links)) * s.link_spread + s.link_start
        self.link_parameters = nn.Parameter(start / s.link_factor)
        self.alpha = nn.Parameter(torch.ones(()))
        self._perceptual: list[nn.Module] = []  # in a list, so that frozen VGG weights stay out of state dicts

    def new_translator(self) -> nn.Module:
        """A translator as the options have it."""
        s = self.settings
        return TRANSLATORS[s.translator](s.scaled(s.translator_base), s.translator_levels)

    @property
    def config(self) -> dict[str, Any]:
        """All options as JSON types: `type(model)(**model.config)` builds the same architecture."""
        return self.settings.to_dict()

    # Links

    def link_weights(self) -> Tensor:
        """(E,) weights >= 0 of `links`: softplus(link_factor * parameter)."""
        return F.softplus(self.settings.link_factor * self.link_parameters)

    @torch.no_grad()
    def connectivity(self) -> Tensor:
        """(N, N) link weights, symmetric with zero diagonal, without gradient."""
        i, j = self.links.unbind(dim=1)
        upper = self.link_parameters.new_zeros(self.settings.num_keypoints, self.settings.num_keypoints)
        upper[i, j] = self.link_weights()
        return upper + upper.mT

    def draw(self, keypoints: Tensor, weights: Tensor) -> Tensor:
        """The link heatmap (B, 1, S, S) of keypoints (B, N, 2) and link weights (E,)."""
        return link_heatmap(keypoints, weights, self.settings.image_size, self.settings.thickness, self.links)

    def progress(self) -> dict[str, float]:
        """Numbers of the model's own that are worth logging beside the losses."""
        return {}

    # Reconstruction

    def reference(self, images: Tensor, reference: Tensor | None) -> Tensor:
        """What the translator takes appearance from: `reference`, or the images, with blocks dropped in training."""
        if reference is not None:
            return reference
        return images * self.kept_blocks(images, self.settings.mask_ratio) if self.training else images

    def kept_blocks(self, images: Tensor, ratio: float) -> Tensor:
        """(B, 1, S, S) of 0 and 1, each block of the grid 0 with probability `ratio`."""
        return random_blocks(len(images), self.settings.mask_blocks, ratio, images.shape[2:], images)

    def load_perceptual(self) -> None:
        """Load the perceptual loss's weights now rather than at the first loss, so that their absence shows early.

        Raises: FileNotFoundError, ValueError (see `perceptual.load_perceptual`).
        """
        s = self.settings
        if s.reconstruction_loss == "perceptual" and not self._perceptual:
            self._perceptual.append(load_perceptual(s.perceptual, s.perceptual_weights, s.perceptual_download))

    def reconstruction_loss(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """Scalar distance of reconstruction and images, both (B, 3, S, S)."""
        if self.settings.reconstruction_loss == "mse":
            return F.mse_loss(reconstruction.to(images.dtype), images)
        self.load_perceptual()
        return self._perceptual[0].to(images)(reconstruction, images)

    def weighted(self, terms: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """The terms times their weights among the options, and the sum of those."""
        terms = {name: getattr(self.settings, f"{name}_weight") * term for name, term in terms.items()}
        return terms, torch.stack(list(terms.values())).sum()

    def checked(self, images: Tensor, reference: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Images and reference, both (B, 3, S, S), in the parameters' dtype, or an error that names the wrong one."""
        images = self._checked("images", images, "B")
        return images, None if reference is None else self._checked("reference", reference, len(images))

    def masked(self, images: Tensor, visible: Tensor | None) -> Tensor:
        """Images checked as by `checked`, and 0 where `visible`, (B, 1, S, S) bool, is False."""
        images, size = self.checked(images)[0], self.settings.image_size
        if visible is None:
            return images
        expected = (len(images), 1, size, size)
        _check.tensor(self.settings.model, "visible", visible, expected, dtypes=(torch.bool,), like=images)
        return images * visible

    def _checked(self, name: str, images: Tensor, batch: int | str) -> Tensor:
        s = self.settings
        _check.tensor(s.model, name, images, (batch, 3, s.image_size, s.image_size))
        if images.device != self.alpha.device:
            raise ValueError(
                f"{s.model}: {name} must be on the model's device, {self.alpha.device}, got {images.device}"
            )
        # Looking at the values would stall a GPU's queue and break a compiled graph.
        if images.device.type == "cpu" and not torch.compiler.is_compiling() and images.numel():
            low, high = (value.item() for value in images.detach().aminmax())
            if not (low >= -RANGE and high <= RANGE):
                raise ValueError(f"{s.model}: {name} must lie in [-1, 1], got values from {low:.4g} to {high:.4g}")
        return images.to(self.alpha.dtype)

    # On disk

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write `model.safetensors` and `config.json` into a directory; VGG's weights are not among them.

        Raises: OSError where it cannot be written.
        """
        checkpoint.save(directory, type(self).__name__, self.config, self.state_dict())

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike, **overrides: Any) -> Self:
        """Read what `save_pretrained` wrote; `overrides` replace options that do not change the architecture.

        Raises: FileNotFoundError; ValueError naming the file and what is wrong with it.
        """
        config = checkpoint.read_config(directory, cls.__name__)
        try:
            cls.Config.from_dict(config)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{os.path.join(directory, checkpoint.CONFIG)}: {error}") from error
        model = cls(**(config | overrides))
        checkpoint.load_weights(directory, model)
        return model

    @classmethod
    def from_published(cls, source: Any, **options: Any) -> Self:
        """Build from a checkpoint of the published code, without running anything that is in it.

        Args:
            source: path of a checkpoint, or a published model's state dict; see `ppl_fast.published.load`.
            options: such as thickness, which the published state dict does not hold.

        Raises: FileNotFoundError; ValueError naming what is wrong, missing or refused.
        """
        from ppl_fast import published

        return published.load(cls, source, **options)

    def to_published(self) -> dict[str, Tensor]:
        """A state dict that the published code loads; see `ppl_fast.published.state_dict`."""
        from ppl_fast import published

        return published.state_dict(self)
