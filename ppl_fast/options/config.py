"""The options of `PPL` and `AutoLink`: a frozen record with a default, a meaning and bounds for each.

The defaults are the published models (Wang, Han, Zhang, "Pose Prior Learner", ICLR 2026, arXiv 2410.03858; He, Wandt,
Rhodin, "AutoLink", NeurIPS 2022), and there is nothing else but a lighter translator. `extended` has further options.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ppl_fast._messages import hint
from ppl_fast._options import check, metadata_of, option
from ppl_fast.options.registry import CONFIGS

if TYPE_CHECKING:
    from typing_extensions import Self


OWN_TRUNK = "own"  # the option `trunk` where the constructor was given a module


# Equality and text are written once below: generated for each class, they are half of what the classes cost at import.
@dataclass(frozen=True, eq=False, repr=False)
class KeypointConfig:
    """What every model's options have: number of keypoints and size of the images.

    Raises:
        TypeError: a value of the wrong type, or an unknown option.
        ValueError: a value out of bounds.
    """

    machine: ClassVar[tuple[str, ...]] = ()  # options that are of the machine, not of the model
    train_defaults: ClassVar[Mapping[str, Any]] = {}  # options of the training loop that the published model differs in

    num_keypoints: int = option(16, "number of keypoints, N", low=2, most=1024, everyday=True)
    image_size: int = option(128, "side of the square input images in pixels", low=16, most=4096, everyday=True)

    def __post_init__(self) -> None:
        if isinstance(self.image_size, tuple | list):
            raise TypeError(
                f"{self.owner()}: image_size must be an int, the side of the squares that models see, got "
                f"{self.image_size!r}; the options fit and crop of training make squares of other images"
            )
        check(self.owner(), self)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @classmethod
    def owner(cls) -> str:
        """The model's name in errors: the class without its Config."""
        return cls.__name__.removesuffix("Config")

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Self:
        """Build from a mapping, as read from JSON or YAML; an unknown key raises TypeError naming the nearest one."""
        known = [item.name for item in dataclasses.fields(cls)]
        for key in options:
            if key not in known:
                raise TypeError(f"{cls.owner()}: unknown option {key!r}{cls._hint(str(key), known)}")
        return cls(**options)

    @classmethod
    def _hint(cls, key: str, known: list[str]) -> str:
        """Which model on top of this one has the option, or else which option may have been meant."""
        for wider in CONFIGS.values():
            if issubclass(wider, cls) and key in (item.name for item in dataclasses.fields(wider)):
                return f"; it is one of {wider.owner()}"
        return hint(key, known)

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of JSON types; `from_dict` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def describe(cls) -> str:
        """One line per option: name, default, meaning."""
        return "\n".join(
            f"{item.name} = {item.default!r}: {metadata_of(item)['help']}" for item in dataclasses.fields(cls)
        )

    def _check_size(self, size: str, *levels: str) -> None:
        """A side that is halved `levels` times must divide."""
        step = 2 ** max(getattr(self, name) for name in levels)
        if getattr(self, size) % step:
            raise ValueError(f"{self.owner()}: {size} must be a multiple of {step}, got {getattr(self, size)}")


@dataclass(frozen=True, eq=False, repr=False)
class LinkModelConfig(KeypointConfig):
    """What `PPL` and `AutoLink` have in common: links, a translator that draws on them, and its loss."""

    machine: ClassVar[tuple[str, ...]] = ("perceptual_weights", "perceptual_download", "recompute")

    thickness: float = option(
        1e-3, "squared width of a drawn link, in units of half the image side", positive=True, everyday=True
    )
    width: float = option(1.0, "factor on the channels of all convolutional networks", positive=True)

    link_factor: float = option(512.0, "link weight = softplus(factor * parameter)", positive=True)
    link_start: float = option(-4.0, "mean of factor * parameter at the start", low=-math.inf)
    link_spread: float = option(1.0, "standard deviation of factor * parameter at the start")
    map_stride: int = option(4, "image pixels per cell of the keypoints' attention maps (a power of two)", low=2)

    trunk: str | None = option(
        None,
        "a backbone of timm by name, as resnet18, in the place of the model's own layers from images to features; the "
        "constructor takes a module, too, which is recorded as the word own",
    )

    translator: str = option(
        "unet",
        "unet: the published one; light: another, with strided convolutions, additive skips, and convolution before "
        "upsampling",
        choices=("unet", "light"),
    )
    translator_base: int = option(64, "channels of the translator at full resolution", low=1)
    translator_levels: int = option(4, "down-blocks of the translator", low=1, high=8)
    mask_blocks: int = option(
        16, "the reference image is dropped in a grid of this many blocks a side", low=1, most=4096
    )
    mask_ratio: float = option(0.8, "share of blocks dropped in training", high=1)

    reconstruction_loss: str = option(
        "perceptual",
        "perceptual: L1 between VGG features; mse: mean squared pixel error, needs no pretrained weights",
        choices=("perceptual", "mse"),
        everyday=True,
    )
    perceptual: str = option("vgg16", "network of the perceptual loss", choices=("vgg16", "vgg19"))
    perceptual_weights: str | None = option(
        None, "its weight file; None: $PPL_FAST_VGG, then torch.hub's cache", everyday=True
    )
    perceptual_download: bool = option(False, "allow downloading the weights when they are found nowhere")
    recompute: str = option(
        "nothing",
        "what the backward computes again in place of keeping it, for less memory: nothing; layers: of the U-Net, all "
        "but convolutions; blocks: its blocks, the regressor's and the perceptual loss's stages as wholes, which takes "
        "more time",
        choices=("nothing", "layers", "blocks"),
    )

    reconstruction_weight: float = option(1.0, "weight of the reconstruction loss")

    @classmethod
    def from_dict(cls, options: Mapping[str, Any]) -> Self:
        """See `KeypointConfig.from_dict`; a module in the place of the name of a trunk becomes the word for it."""
        if callable(options.get("trunk")):
            options = {**options, "trunk": OWN_TRUNK}
        return super().from_dict(options)

    def _check_stride(self, levels: str) -> None:
        if self.map_stride & (self.map_stride - 1) or self.map_stride > 2 ** getattr(self, levels):
            raise ValueError(
                f"{self.owner()}: map_stride must be a power of two from 2 to 2**{levels} = "
                f"{2 ** getattr(self, levels)}, got {self.map_stride}"
            )

    def scaled(self, channels: int) -> int:
        """`channels` times the width multiplier, at least one."""
        return max(1, round(self.width * channels))


@dataclass(frozen=True, eq=False, repr=False)
class PPLConfig(LinkModelConfig):
    """Every option of `PPL`. `PPLConfig.describe()` lists them with their meaning.

    Raises:
        TypeError: a value of the wrong type, or an unknown option.
        ValueError: a value out of bounds.
    """

    memory_banks: int = option(34, "banks (= tokens a pose is written as), m", low=1)
    memory_prototypes: int = option(16, "vectors in a bank, k", low=1)
    memory_width: int = option(512, "width of a memory vector, d", low=1)
    memory_layers: int = option(4, "mixer layers of the memory's encoder", most=1000)
    memory_hidden: int = option(512, "hidden width of the encoder's channel MLPs", low=1)
    memory_token_hidden: int = option(64, "hidden width of the token MLPs", low=1)
    memory_decoder_width: int = option(32, "width of the memory's decoder", low=1)
    memory_decoder_hidden: int = option(64, "hidden width of the decoder's channel MLPs", low=1)
    memory_decoder_layers: int = option(1, "mixer layers of the memory's decoder", most=1000)
    memory_decay: float = option(0.9, "decay of the moving averages behind the vectors", high=1)

    regressor_base: int = option(64, "channels of the regressor's first block, doubled by each further one", low=1)
    regressor_levels: int = option(4, "down-blocks of the regressor", low=1, high=8)

    boundary_weight: float = option(1.0, "weight of the boundary loss")
    memory_weight: float = option(100.0, "weight of the memory's reconstruction of the keypoints")
    commitment_weight: float = option(1.0, "weight of the memory's commitment loss")
    link_length_weight: float = option(0.0, "weight of the link regularisation; the published code has it at 0")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_stride("regressor_levels")
        self._check_size("image_size", "regressor_levels", "translator_levels")

    def memory_options(self) -> dict[str, Any]:
        """The arguments of HierarchicalMemory: the options `memory_*` without that prefix."""
        options = {name: value for name, value in vars(self).items() if name.startswith("memory_")}
        del options["memory_weight"]
        return {name.removeprefix("memory_"): value for name, value in options.items()}

    def regressor_options(self) -> dict[str, Any]:
        """The arguments of Regressor: the options `regressor_*` without that prefix, in channels, and `map_stride`."""
        base = self.scaled(self.regressor_base)
        return {"base": base, "levels": self.regressor_levels, "map_stride": self.map_stride}


@dataclass(frozen=True, eq=False, repr=False)
class AutoLinkConfig(LinkModelConfig):
    """Every option of `AutoLink`. `AutoLinkConfig.describe()` lists them with their meaning.

    Raises:
        TypeError: a value of the wrong type, or an unknown option.
        ValueError: a value out of bounds.
    """

    train_defaults: ClassVar[Mapping[str, Any]] = {"steps": 20_001, "weight_decay": 1e-3}

    link_spread: float = option(0.1, "standard deviation of factor * parameter at the start")
    detector_size: int = option(128, "side that images are resized to for the detector", low=16, most=4096)
    detector_base: int = option(64, "channels of the detector's first block, doubled by each further one", low=1)
    detector_levels: int = option(4, "down-blocks of the detector", low=1, high=8)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_stride("detector_levels")
        self._check_size("image_size", "translator_levels")
        self._check_size("detector_size", "detector_levels")
