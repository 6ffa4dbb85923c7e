"""The perceptual loss: L1 between VGG features (Johnson et al. 2016; Simonyan and Zisserman 2015 for VGG).

The convolutions come from the table below, the weights from a file of any common layout; torchvision is not needed.
"""

from __future__ import annotations

import os
import re
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ppl_fast.models.blocks import is_followed, laid_out
from ppl_fast.models.conv_relu import conv_relu
from ppl_fast.models.weights import check_finite, check_kind, read_tensors

# Convolutions in the four stages that are compared, each stage after its last ReLU and before the pooling.
STAGES = {"vgg16": (2, 2, 3, 3), "vgg19": (2, 2, 4, 4)}
CHANNELS = (64, 128, 256, 512)
URLS = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for images in [0, 1]
SIZE = 224
PIECE, PIECE_ELSEWHERE = {"cpu": 1}, 16  # images whose maps are there at a time, by device; a GPU wants to be busy
# `features.10.weight` (torchvision, timm), `blocks.2.10.weight` (stripped, stage by stage), `10.weight` (bare).
LAYOUT = re.compile(r"(?:(?:.*\.)?(?:features|blocks\.\d+)\.)?(\d+)\.(weight|bias)")


Weights = list[list[tuple[Tensor, Tensor]]]  # by stage and convolution

PART = 1 << 16  # numbers of a map that a CPU's thread compares at a time: they stay in its core's cache


class PerceptualLoss(nn.Module):
    """Sum over four VGG stages of the mean absolute difference between the features of two image batches.

    Frozen and always in eval mode. Its convolutions hold the weights, and are not called themselves. The weights start
    at zero: use `load_perceptual`, or `load_state`.

    Args:
        network: "vgg16" (stages end at conv1_2, conv2_2, conv3_3, conv4_3) or "vgg19" (.., conv3_4, conv4_4).
        recompute: whether a stage's maps are computed again in the backward, in place of being kept until then.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: str = "vgg16", recompute: bool = False):
        super().__init__()
        self.network, self.recompute = network, recompute
        self.stages = nn.ModuleList()
        self.indices = []  # position of each convolution in the full network, as weight files count them
        inputs, index = 3, 0
        for count, channels in zip(STAGES[network], CHANNELS, strict=True):
            stage = nn.ModuleList()
            for _ in range(count):
                stage.append(nn.Conv2d(inputs, channels, 3, padding=1))
                self.indices.append(index)
                inputs, index = channels, index + 2
            self.stages.append(stage)
            index += 1  # the pooling
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of images and targets, both (B, 3, H, W) in [-1, 1]: a scalar, differentiable in `images` alone.

        The gradient is taken with the loss, some images at a time, whose maps are gone before those of the next; it has
        no gradient itself. Inside of torch.compile, torch.func and hooks on what is saved, as checkpointing has them,
        and in float16, where such a gradient would vanish before it is scaled, all maps are kept for the backward.
        """
        if images.requires_grad and torch.is_grad_enabled() and not _watched(images):
            loss: Tensor = _AtOnce.apply(images, targets, self)  # type: ignore[no-untyped-call]
            return loss
        return self.distance(images, targets)

    def weights(self) -> Weights:
        """Weights and biases by stage, in autocast's dtype and as convolutions want them; for many passes, once.

        Autocast keeps no cast of what has no gradient, and oneDNN lays the weights out anew.
        """
        layers: Any = self.stages
        return [[_weights(layer) for layer in stage] for stage in layers]

    def distance(self, images: Tensor, targets: Tensor, weights: Weights | None = None) -> Tensor:
        """As `forward`, by autograd."""
        weights = weights or self.weights()
        with torch.no_grad():
            wanted = self.features(targets, weights)
        found = self.features(images, weights)
        first, *others = (_distance(a, b) for a, b in zip(found, wanted, strict=True))
        lost = images.detach().float().sum() * 0  # not a number where an image is none: `conv_relu` makes 0 of those
        return sum(others, first) + lost

    def features(self, images: Tensor, weights: Weights | None = None) -> list[Tensor]:
        """The four feature maps of images (B, 3, H, W) in [-1, 1], seen at 224 x 224."""
        weights = weights or self.weights()
        x = ((images + 1) / 2 - self.mean) / self.std
        x = F.interpolate(laid_out(x), size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        maps = []
        for stage in weights:
            run = partial(_stage, stage, x, stage is weights[-1])
            again = self.recompute and x.requires_grad
            found, x = checkpoint(run, use_reentrant=False, preserve_rng_state=False) if again else run()
            maps.append(found)
        return maps

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor], source: str = "state dict") -> None:
        """Copy the convolutions out of a VGG state dict, whatever its layout; `source` names it in errors.

        Raises:
            ValueError: a missing or misshapen layer, or one that holds no finite numbers; the first one is named.
        """
        found = {}
        for key, value in state.items():
            if match := LAYOUT.fullmatch(key):
                found[int(match[1]), match[2]] = key, value
        layers = [layer for stage in self.stages for layer in stage.children()]
        for index, layer in zip(self.indices, layers, strict=True):
            for name, parameter in layer.named_parameters():
                if (index, name) not in found:
                    raise ValueError(f"{source}: features.{index}.{name} is missing: not {self.network} weights")
                key, value = found[index, name]
                if tuple(value.shape) != tuple(parameter.shape):
                    raise ValueError(
                        f"{source}: {key} must have shape {tuple(parameter.shape)} for {self.network}, "
                        f"got {tuple(value.shape)}"
                    )
                check_kind(source, key, value.dtype, parameter.dtype)
                check_finite(source, key, value)
                parameter.copy_(value)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's leave the format out


def _weights(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert layer.bias is not None
    kind, weight = layer.weight.device.type, layer.weight
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind) and weight.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
        return laid_out(weight.to(dtype)), layer.bias.to(dtype)
    return laid_out(weight), layer.bias


def _stage(weights: list[tuple[Tensor, Tensor]], x: Tensor, last: bool) -> tuple[Tensor, Tensor]:
    """The map that is compared, and what the next stage sees of it."""
    for weight, bias in weights:
        x = conv_relu(x, weight, bias)
    return x, x if last else F.max_pool2d(x, 2)


class _AtOnce(torch.autograd.Function):
    """A `PerceptualLoss`, which keeps the gradient in place of the maps that it comes from."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, targets: Tensor, loss: PerceptualLoss) -> Tensor:
        count, size = PIECE.get(images.device.type, PIECE_ELSEWHERE), len(images)
        total, gradient = images.new_zeros((), dtype=torch.float32), torch.empty_like(images)
        weights = loss.weights()
        for first in range(0, size, count):
            with torch.enable_grad():
                piece = images[first : first + count].detach().requires_grad_()
                value = loss.distance(piece, targets[first : first + count], weights) * (len(piece) / size)
            gradient[first : first + count] = torch.autograd.grad(value, piece)[0]
            total = total + value.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad.to(gradient.dtype), None, None


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    """The mean absolute difference of two maps in float32; what `wanted` holds is given up for the gradient."""
    if is_followed() or not (found.requires_grad and torch.is_grad_enabled()):
        return wanted.float().sub_(found.float()).abs().mean()
    mean: Tensor = _Distance.apply(found, wanted)  # type: ignore[no-untyped-call]
    return mean


class _Distance(torch.autograd.Function):
    """`_distance` in the passes over memory that it needs, which on a CPU is each part of the maps once."""

    @staticmethod
    def forward(ctx: Any, found: Tensor, wanted: Tensor) -> Tensor:
        found, wanted = (maps.contiguous(memory_format=torch.channels_last) for maps in (found, wanted))
        signs = wanted if wanted.dtype == found.dtype else torch.empty_like(found)
        numbers = PART * torch.get_num_threads() if found.device.type == "cpu" else found.numel()
        sums = []
        for part, of_wanted, of_signs in zip(*(_flat(x).split(numbers) for x in (found, wanted, signs)), strict=True):
            # A wider map would leave of a difference of 0 its own rounding, whose sign is the gradient.
            difference = of_wanted.float().sub_(part.float() if part.dtype == torch.float64 else part)
            sums.append(difference.abs().sum())
            of_signs.copy_(difference.sgn_())
        ctx.save_for_backward(signs)
        return torch.stack(sums).sum() / found.numel()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (signs,) = ctx.saved_tensors
        return signs * (grad / -signs.numel()).to(signs.dtype), None


def _flat(maps: Tensor) -> Tensor:
    """The numbers of maps (B, C, H, W), channels last, as they lie in memory."""
    return maps.permute(0, 2, 3, 1).view(-1)


def _watched(images: Tensor) -> bool:
    """Whether somebody follows what is computed or kept, or gradients need a scale."""
    if is_followed():
        return True
    kind = images.device.type
    half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else images.dtype
    return half == torch.float16 or torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def load_perceptual(
    network: str = "vgg16", weights: str | None = None, download: bool = False, recompute: bool = False
) -> PerceptualLoss:
    """A `PerceptualLoss` with pretrained weights.

    Args:
        network: "vgg16" or "vgg19".
        weights: a .pth or .safetensors file. None takes the file that $PPL_FAST_VGG names, else the one in torch.hub's
            cache, else (with `download`) fetches that one and checks its hash.
        download: whether weights may be fetched.
        recompute: of `PerceptualLoss`.

    Raises:
        FileNotFoundError: there are none; the sentence says where was looked and how to get the file.
        ValueError: a file that is broken or holds something else.
    """
    path = find_weights(network, weights, download)
    loss = PerceptualLoss(network, recompute)
    loss.load_state(_read(path), str(path))
    return loss.eval()


def find_weights(network: str, weights: str | None = None, download: bool = False) -> Path:
    """The weight file that `load_perceptual` would read; the same arguments and errors."""
    named = weights or os.environ.get("PPL_FAST_VGG")
    if named:
        if not Path(named).is_file():
            origin = "perceptual_weights" if weights else "$PPL_FAST_VGG"
            raise FileNotFoundError(f"{origin} names {named}, which is not a file")
        return Path(named)
    url = URLS[network]
    cached = Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])
    if not cached.is_file() and download:
        torch.hub.load_state_dict_from_url(url, check_hash=True, map_location="cpu", weights_only=True)
    if not cached.is_file():
        raise FileNotFoundError(
            f"the perceptual loss needs pretrained {network} weights: perceptual_weights and $PPL_FAST_VGG are not set "
            f'and {cached} does not exist; fetch it with: python -c "import torch; '
            f"torch.hub.load_state_dict_from_url('{url}', check_hash=True)\" "
            "(or train without them: ppl-fast train --preset small, or reconstruction_loss='mse')"
        )
    return cached


def _check_stored(path: Path) -> None:
    """Raise a ValueError for a zip archive that unpacks to more than it is long, as none by torch.save does."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("it has compressed entries, which torch.save does not write")


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        _check_stored(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ImportError):
        raise
    except Exception as error:  # each reader has its own zoo of errors for broken files
        raise ValueError(f"{path}: not a readable weight file ({type(error).__name__}: {error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: must hold a state dict, got {type(state).__name__}")
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}
