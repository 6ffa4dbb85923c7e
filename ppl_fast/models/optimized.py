"""A copy of a model that estimates faster: what is the same for all images is computed once, beforehand."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.nn.utils.parametrize import is_parametrized

from ppl_fast.models.base import KeypointModel
from ppl_fast.models.link_model import LinkModel
from ppl_fast.models.replayed import Replayed
from ppl_fast.models.resizing import DoublingConv2d, HalvingConv2d, doubled, halving_kernel, products

Model = TypeVar("Model", bound=KeypointModel)


@torch.no_grad()
def optimize(model: Model, dtype: torch.dtype | None = None, cuda_graph: bool = False) -> Model:
    """A copy of a model that estimates the same keypoints faster, but for rounding, and does nothing else.

    A BatchNorm and a mean of 2 x 2 that follow a convolution become part of it, on a GPU the kernels of halving
    convolutions are averaged once, on a CPU wide convolutions that follow a bilinear doubling are multiplied before
    it, activations overwrite what they act on, images lie channels last, and the pose prior and the weights of
    the links are kept. `optimized` of the copy says how often.

    Args:
        model: stays as it is, in whichever mode. Of one of your own, an `nn.Sequential` must be called whole;
            layers that stand in several places or have hooks are left as they are.
        dtype: of the convolutions in sequences, which are nearly all: None for the model's own; torch.bfloat16, which
            has 8 bits for a value, where the processor computes in it (AVX-512 BF16, AMX) or on a GPU.
        cuda_graph: on a GPU, replay what is estimated from a CUDA graph, one for every shape of images that comes a
            second time (`ppl_fast.models.replayed`): small batches then take the time of their kernels and not that of
            their launches. The copy is for one thread at a time, and stays on its device.

    Returns:
        A model of the same class on the same device, in eval mode and without gradients. It refuses to be trained and
        saved.

    Raises:
        TypeError: no `KeypointModel`.
        ValueError: another dtype, bfloat16 for a model of neither PPL's nor AutoLink's kind, or a CUDA graph for a
            model that is on no GPU.
    """
    if not isinstance(model, KeypointModel):
        raise TypeError(f"optimize: model must be a KeypointModel, got {type(model).__name__}")
    if dtype not in (None, torch.bfloat16) or (dtype and not isinstance(model, LinkModel)):
        raise ValueError(f"optimize: dtype must be None, or torch.bfloat16 for PPL and AutoLink, got {dtype}")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    if cuda_graph and device.type != "cuda":
        raise ValueError(f"optimize: cuda_graph needs a model on a CUDA device, got one on {device}")
    if model.optimized:
        raise ValueError(f"optimize: model is an optimised copy already: {model.optimized}")
    losses: dict[int, Any] = {id(model._perceptual): []} if isinstance(model, LinkModel) else {}  # are left behind
    fast = copy.deepcopy(model, losses).eval().requires_grad_(False)
    fast.keep()
    done: Counter[str] = Counter()
    free = _changeable(fast)
    for module in list(fast.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module, free, done)
            if dtype:
                _narrow(module, dtype, done)
            _double(module, free, done)
    if dtype:
        for module in fast.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(_in_own_dtype)
    fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's leave the format out
    fast.optimized = ", ".join([*(f"{count} {what}" for what, count in done.items()), "channels last"])
    if cuda_graph:
        _replay(fast, device)
    return fast


def _replay(fast: KeypointModel, device: torch.device) -> None:
    """Estimate from CUDA graphs from now on; what is not iterative has its rounds from `estimate`."""
    name = "estimate_rounds" if fast.iterative else "estimate"
    setattr(fast, name, Replayed(getattr(fast, name), device))
    fast.optimized += ", replayed from CUDA graphs"


def _changeable(model: nn.Module) -> set[nn.Module]:
    """The modules that may become others: they stand in one place, and nobody looks at them or their parameters."""
    places = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    owners = Counter(parameter for module in places for parameter in module._parameters.values())
    return {
        module
        for module, count in places.items()
        if count == 1
        and not (module._forward_hooks or module._forward_pre_hooks or is_parametrized(module))
        and all(parameter is None or owners[parameter] == 1 for parameter in module._parameters.values())
    }


def _fold(sequence: nn.Sequential, free: set[nn.Module], done: Counter[str]) -> None:
    """Let the convolutions of a sequence take in what follows them."""
    layers: list[nn.Module] = []
    for layer in sequence:
        last = layers[-1] if layers else None
        if last not in free or layer not in free:
            layers.append(layer)
        elif isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None and isinstance(last, nn.Conv2d):
            _normalize(last, layer)
            done["BatchNorm folded"] += 1
        elif _halves(layer) and _keeps_size(last):
            layers[-1] = _halving(last)
            free.add(layers[-1])
            done["means of 2 x 2 folded"] += 1
        else:
            layers.append(layer)
    for index, layer in enumerate(layers):
        if isinstance(layer, HalvingConv2d) and layer in free and layer.weight.device.type != "cpu":
            layers[index] = _halving(layer)
            free.add(layers[index])
            done["halving kernels averaged"] += 1
    for before, layer in pairwise(layers):
        if isinstance(before, nn.Conv2d) and before in free and isinstance(layer, nn.LeakyReLU):
            layer.inplace = True
            done["activations in place"] += 1
    sequence._modules = {str(index): layer for index, layer in enumerate(layers)}


class _Doubling(nn.Conv2d):
    """A `DoublingConv2d` that has laid out its products once."""

    def __init__(self, conv: DoublingConv2d):
        super().__init__(conv.in_channels, 9 * conv.out_channels, 1, device="meta")
        kernel, bias = products(conv)
        self.weight = nn.Parameter(kernel[..., None, None].contiguous(), False)
        self.bias = None if bias is None else nn.Parameter(bias, False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, 2H, 2W)."""
        return doubled(x, self.weight[:, :, 0, 0], self.bias)


def _double(sequence: nn.Sequential, free: set[nn.Module], done: Counter[str]) -> None:
    """Let convolutions on a CPU that take in the doubling before them lay out their products once."""
    for name, layer in sequence.named_children():
        if isinstance(layer, DoublingConv2d) and layer in free and layer.multiplies_first():
            sequence._modules[name] = _Doubling(layer)
            done["doublings after the products"] += 1


def _halves(layer: nn.Module) -> bool:
    """Whether a layer is the mean of 2 x 2."""
    if not isinstance(layer, nn.AvgPool2d) or layer.ceil_mode or layer.divisor_override is not None:
        return False
    return all(size in (2, (2, 2)) for size in (layer.kernel_size, layer.stride)) and layer.padding in (0, (0, 0))


def _keeps_size(layer: nn.Module | None) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a 3 x 3 convolution that keeps the size, as `blocks.conv` makes them."""
    return (
        type(layer) is nn.Conv2d
        and (layer.kernel_size, layer.padding, layer.padding_mode) == ((3, 3), (1, 1), "zeros")
        and (layer.stride, layer.dilation, layer.groups) == ((1, 1), (1, 1), 1)
    )


def _normalize(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Let a convolution give what the BatchNorm after it gives in eval mode; computed in float64."""
    tensors = [conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias]
    given: list[Any] = [None if tensor is None else tensor.double() for tensor in tensors]
    weight, bias, mean, variance, scale, shift = given
    folded = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, scale, shift)
    conv.weight, conv.bias = (nn.Parameter(part.to(conv.weight.dtype), False) for part in folded)


def _halving(conv: nn.Conv2d) -> nn.Conv2d:
    """A 3 x 3 convolution and a 2 x 2 mean as one convolution of stride 2, as on this device `HalvingConv2d` has it."""
    sizes, on_cpu = (conv.in_channels, conv.out_channels), conv.weight.device.type == "cpu"
    with torch.device("meta"):
        made = HalvingConv2d(*sizes) if on_cpu else nn.Conv2d(*sizes, 4, stride=2, padding=1)
    made.weight = nn.Parameter(conv.weight if on_cpu else halving_kernel(conv.weight), False)
    made.bias = conv.bias
    return made.train(conv.training)


def _narrow(sequence: nn.Sequential, dtype: torch.dtype, done: Counter[str]) -> None:
    for layer in sequence:
        if isinstance(layer, nn.Conv2d):
            layer.to(dtype)
            done[f"convolutions in {dtype}".replace("torch.", "")] += 1


def _in_own_dtype(conv: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """What a convolution takes, in the dtype that it computes in."""
    return (inputs[0].to(conv.weight.dtype),)
