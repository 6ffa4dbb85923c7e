"""The contract of the models: what evaluation, training, inference, pictures and commands rely on."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from ppl_fast import _check
from ppl_fast.models import checkpoint, hub, registry
from ppl_fast.models.blank import blank
from ppl_fast.models.blocks import check_gathered
from ppl_fast.models.output import MemoryReport, Prior
from ppl_fast.options import migration
from ppl_fast.options.config import KeypointConfig
from ppl_fast.options.registry import unknown

if TYPE_CHECKING:
    from typing_extensions import Self

RANGE = 1.01  # images may leave [-1, 1] by what resizing and bfloat16 round


class PublishedFormats(Protocol):
    """What reads and writes the checkpoints of published code: `ppl_fast.published`."""

    load: Callable[..., Any]
    state_dict: Callable[[Any], dict[str, Tensor]]


class KeypointModel(nn.Module):
    """A model that finds keypoints in images. A subclass adds `estimate`, and what else it has.

    To be trained it also adds `forward(images, reference=None, losses=True)`, whose result has `loss`, a scalar, and
    `losses`, the terms by name, which sum to it.

    Attributes:
        Config: class of the options, a dataclass on `KeypointConfig`.
        settings: the options, an instance of it.
        architecture: the name in `ppl_fast.models.MODELS`, and in config.json.
        iterative: whether `estimate` gains from further iterations.
        captured: whether passes are to launch the same kernels whatever the data, as a CUDA graph replays them.
        links: (E, 2) int64, pairs of keypoints i < j; none by default.
        optimized: of a copy that `optimize` made, what was done; else empty.

    Args:
        options: fields of `Config`.

    Raises:
        TypeError: an unknown option, or one of the wrong type.
        ValueError: an option out of bounds.
    """

    Config: ClassVar[type[KeypointConfig]] = KeypointConfig
    architecture: ClassVar[str] = ""
    iterative: ClassVar[bool] = False

    captured: bool = False
    links: Tensor
    optimized: str = ""

    def __init__(self, **options: Any):
        super().__init__()
        self.settings = self.Config.from_dict(options)
        self.register_buffer("links", torch.zeros(0, 2, dtype=torch.int64), persistent=False)

    @property
    def config(self) -> dict[str, Any]:
        """All options as JSON types: `type(model)(**model.config)` builds the same architecture."""
        return self.settings.to_dict()

    # What it has learned

    def link_weights(self) -> Tensor:
        """(E,) weights >= 0 of `links`."""
        return torch.zeros(len(self.links), device=self.links.device)

    @torch.no_grad()
    def connectivity(self) -> Tensor:
        """(N, N) link weights, symmetric with zero diagonal, without gradient."""
        (i, j), weights = self.links.unbind(dim=1), self.link_weights()
        upper = weights.new_zeros(self.settings.num_keypoints, self.settings.num_keypoints)
        upper[i, j] = weights
        return upper + upper.mT

    def prior(self) -> Prior | None:
        """The pose prior; None for a model that learns none."""
        return None

    def memory_report(self) -> MemoryReport | None:
        """What the memory holds and how it is used; None for a model that has none."""
        return None

    def keep(self) -> None:
        """Keep what `estimate` computes alike for all images, for a copy that `optimize` makes."""

    # Training

    def train(self, mode: bool = True) -> Self:
        """Into training mode, or eval mode.

        Raises:
            ValueError: the model is a copy that `optimize` made.
        """
        if mode:
            self._check_whole("trained")
        return super().train(mode)

    def load_perceptual(self) -> None:
        """Load what weights the losses need now rather than at the first loss, so that their absence shows early."""

    def progressed(self, share: float) -> None:
        """Told before each training step, in [0, 1), which share of the training is behind; a loop may leave it out."""

    def phase(self) -> tuple[float, ...]:
        """What `progressed` decides in Python for a step, as numbers; steps of one phase run the same kernels."""
        return ()

    def loss_name(self) -> str:
        """What the reconstruction is measured by, for the log."""
        return "none"

    def progress(self) -> dict[str, float]:
        """Numbers of the model's own that are worth logging beside the losses."""
        return {}

    # Estimation

    def estimate(self, images: Tensor, iterations: int = 1, visible: Tensor | None = None) -> Tensor:
        """Keypoints of images, in eval mode and without gradient.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            iterations: estimation passes, an int of at least 1; more than one needs an iterative model.
            visible: (B, 1, S, S) bool. Where given, the pixels outside are treated as unknown.

        Returns:
            (B, N, 2), (x, y) in [-1, 1].

        Raises:
            TypeError, ValueError: arguments of the wrong type, shape, device or range.
        """
        raise NotImplementedError(f"{type(self).__name__} has no estimate")

    def estimate_rounds(
        self, images: Tensor, iterations: int = 1, visible: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Like `estimate`, and gives for each iteration the keypoints (B, N, 2) and the images (B, 3, S, S) it saw."""
        self.check_one(iterations)
        seen = images if visible is None else images * visible
        return [(self.estimate(seen), seen)]

    def evidence(self, images: Tensor, keypoints: Tensor) -> dict[str, Tensor]:
        """What tells how sure the model is of its keypoints: nothing, for one that knows no more than where they are.

        Args:
            images: (B, 3, S, S) in [-1, 1], what the keypoints were found in.
            keypoints: (B, N, 2), (x, y) in [-1, 1], as `estimate` gives them.

        Returns:
            Numbers (B, N) by name, the larger the less sure, without gradient: `spread`, in units of half the image
            side, and `flatness`, the logarithm of how little the best cell has, of the attention behind a keypoint;
            `recall`, its distance to where the memory has it. A model may have others.
        """
        return {}

    def check_one(self, iterations: int) -> None:
        """Raise a ValueError unless `iterations` is 1, for a model that is not iterative."""
        if iterations != 1:
            owner = type(self).__name__
            raise ValueError(f"{owner}: iterations must be 1 (it has nothing to iterate with), got {iterations!r}")

    # Arguments

    @property
    def dtype(self) -> torch.dtype:
        """Of the parameters."""
        return next(self.parameters()).dtype

    def checked(self, images: Tensor, reference: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Images and reference, both (B, 3, S, S), in the parameters' dtype, or an error that names the wrong one."""
        images = self._checked("images", images, "B")
        return images, None if reference is None else self._checked("reference", reference, len(images))

    def masked(self, images: Tensor, visible: Tensor | None) -> Tensor:
        """Images checked as by `checked`, and 0 where `visible`, (B, 1, S, S) bool, is False."""
        images, size = self.checked(images)[0], self.settings.image_size
        if visible is None:
            return images
        expected = (images.shape[0], 1, size, size)  # as a size, which may stay free while it is traced
        _check.tensor(type(self).__name__, "visible", visible, expected, dtypes=(torch.bool,), like=images)
        return images * visible

    def _checked(self, name: str, images: Tensor, batch: int | str) -> Tensor:
        owner, size, device = type(self).__name__, self.settings.image_size, self.links.device
        _check.tensor(owner, name, images, (batch, 3, size, size))
        check_gathered(self, "estimate")
        if images.device != device:
            raise ValueError(f"{owner}: {name} must be on the model's device, {device}, got {images.device}")
        if images.numel() and not _check.are_hidden(images):
            low, high = (value.item() for value in images.detach().aminmax())
            if not (low >= -RANGE and high <= RANGE):
                raise ValueError(f"{owner}: {name} must lie in [-1, 1], got values from {low:.4g} to {high:.4g}")
        return images.to(self.dtype)

    def _check_whole(self, what: str) -> None:
        if self.optimized:
            owner = type(self).__name__
            raise ValueError(f"{owner}: an optimised copy cannot be {what}, expected the model that it was made of")

    # On disk

    @staticmethod
    def published() -> PublishedFormats:
        """What reads and writes the checkpoints of published code; it lies above the models."""
        return cast("PublishedFormats", import_module("ppl_fast.published"))

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `model.safetensors` and `config.json` into a directory; weights of the losses are not among them.

        Raises:
            OSError: it cannot be written.
            ValueError: the model is a copy that `optimize` made.
        """
        self._check_whole("saved")
        checkpoint.save(directory, self.architecture, self.config, self.state_dict())

    @classmethod
    def from_pretrained(
        cls,
        directory: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        **overrides: Any,
    ) -> Self:
        """Read what `save_pretrained` wrote, as this class or the one that extends it and was saved, in eval mode.

        Args:
            directory: holds `model.safetensors` and `config.json`; or where it is no folder, the name of a model on the
                Hugging Face Hub, org/name or org/name@revision.
            revision: branch, tag or commit on the hub; None for its main branch.
            cache_dir: of what comes from the hub, in place of huggingface_hub's own.
            overrides: options in place of the saved ones that do not change the architecture.

        Raises:
            FileNotFoundError: there are no such files, and no such model on the hub.
            ImportError: the extra `hub` is not installed.
            OSError: the hub cannot be reached, and the cache does not have the model.
            ValueError: a file is broken, or of another architecture; the sentence names it.
        """
        directory = hub.local(directory, revision, cache_dir)
        name, saved = checkpoint.read_config(directory)
        where = os.path.join(directory, checkpoint.CONFIG)
        found = registry.find(name) or (cls if name in (cls.architecture, cls.__name__) else None)
        if found is None:
            raise unknown(name, where)
        architecture, options = migration.resolve(found.architecture, saved)
        found = registry.MODELS.get(architecture, found)
        model_class = registry.narrower(cls, found)
        if model_class is None:
            raise ValueError(f"{where}: expected a model of the class {cls.__name__}, got {found.__name__}")
        try:
            model_class.Config.from_dict(options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from error
        checkpoint.check_weights(directory, blank(model_class, options | overrides, where))  # before memory is taken
        model = model_class(**(options | overrides))
        checkpoint.load_weights(directory, model)
        return model.eval()

    def push_to_hub(self, name: str, *, license: str, private: bool = False, revision: str | None = None) -> str:
        """Send the model and a card to the Hugging Face Hub, and give the address; see `ppl_fast.models.hub.push`."""
        return hub.push(self, name, license=license, private=private, revision=revision)

    @classmethod
    def from_published(cls, source: Any, **options: Any) -> Self:
        """Build from a checkpoint of the published code, without running anything that is in it.

        Args:
            source: path of a checkpoint, or a published model's state dict; see `ppl_fast.published.load`.
            options: such as thickness, which the published state dict does not hold.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the sentence names what is wrong, missing or refused.
        """
        return cast("Self", cls.published().load(cls, source, **options))

    def to_published(self) -> dict[str, Tensor]:
        """A state dict that the published code loads; see `ppl_fast.published.state_dict`."""
        self._check_whole("saved")
        return type(self).published().state_dict(self)
