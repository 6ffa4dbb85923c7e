"""Layers and helpers that the models share."""

from __future__ import annotations

from collections.abc import Container
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_batchedtensor
from torch.autograd import forward_ad
from torch.nn.modules.batchnorm import _BatchNorm

Model = TypeVar("Model", bound=nn.Module)

SLOPE = 0.2  # LeakyReLU's in every convolutional block


def act(inplace: bool = True) -> nn.LeakyReLU:
    """The models' activation, over what it acts on: neither the layer that made that nor autograd needs it again."""
    return nn.LeakyReLU(SLOPE, inplace)


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3 x 3 convolution that keeps the size (stride 1) or halves it (stride 2)."""
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def laid_out(x: Tensor) -> Tensor:
    """Maps (B, C, H, W) as convolutions of oneDNN and cuDNN are fastest, channels last; compilers choose themselves.

    On a GPU torch's bilinear resizing is many times as fast then, too (docs/gpu.md).
    """
    libraries: dict[str, Any] = {"cpu": torch.backends.mkldnn, "cuda": torch.backends.cudnn}
    backend = libraries.get(x.device.type)  # has its flags as properties, which its annotations leave out
    if backend is None or torch.compiler.is_compiling() or is_batchedtensor(x):
        return x
    return x.contiguous(memory_format=torch.channels_last) if backend.is_available() and backend.enabled else x


def is_followed() -> bool:
    """Whether a compiler, a transform of torch.func, a tracer or forward-mode differentiation follows what is computed.

    They want torch's own operations.
    """
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    recorded = torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None
    return recorded or torch._C._is_tracing() or forward_ad._current_level >= 0


class Layers(nn.Sequential):
    """Layers in order. A convolution before a BatchNorm has no bias: the mean that is subtracted would take it along.

    A state dict may have such biases, as the published models' do: their running means then contain them.
    """

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers)
        for layer, after in pairwise(layers):
            if isinstance(layer, nn.Conv2d) and isinstance(after, _BatchNorm):
                layer.bias = None  # after it was drawn: a seed gives the weights that it has always given

    def spare_biases(self, prefix: str = "") -> dict[str, str]:
        """Names of biases that are not there, and of the running means that would contain them."""
        return {
            f"{prefix}{name}.bias": f"{prefix}{norm}.running_mean"
            for (name, layer), (norm, after) in pairwise(self.named_children())
            if isinstance(layer, nn.Conv2d) and layer.bias is None and isinstance(after, _BatchNorm)
        }

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for bias, mean in self.spare_biases(prefix).items():
            if bias in state_dict and mean in state_dict:
                whole, part = (state_dict[name].detach() for name in (mean, bias))
                dtype = torch.promote_types(whole.dtype, torch.float32)  # halves have too few digits for a difference
                state_dict[mean] = whole.to(dtype) - part.to(dtype)
                del state_dict[bias]
        super()._load_from_state_dict(state_dict, prefix, *rest)


def spare_biases(model: nn.Module) -> dict[str, str]:
    """`Layers.spare_biases` of all that are in a model."""
    found: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, Layers):
            found |= module.spare_biases(f"{name}." if name else "")
    return found


def accepted(model: nn.Module, given: Container[str]) -> dict[str, Tensor]:
    """A model's state dict, with those of its `spare_biases` that are among the names given, as their running means."""
    state: dict[str, Tensor] = model.state_dict()
    return state | {bias: state[mean] for bias, mean in spare_biases(model).items() if bias in given}


class MLP(nn.Sequential):
    """Linear, GELU, Linear on the last axis, back to its size."""

    def __init__(self, size: int, hidden: int):
        super().__init__(nn.Linear(size, hidden), nn.GELU(), nn.Linear(hidden, size))


class MixerLayer(nn.Module):
    """MLP-Mixer layer on (B, tokens, channels): x + y + z, y across tokens, z across the channels of x + y."""

    def __init__(self, tokens: int, channels: int, token_hidden: int, channel_hidden: int):
        super().__init__()
        self.token_norm = nn.LayerNorm(channels)
        self.token_mlp = MLP(tokens, token_hidden)
        self.channel_norm = nn.LayerNorm(channels)
        self.channel_mlp = MLP(channels, channel_hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, channels) -> the same shape."""
        x = x + self.token_mlp(self.token_norm(x).mT).mT
        z: Tensor = self.channel_mlp(self.channel_norm(x))
        return x + z


def init_kaiming(module: nn.Module, spare: nn.Module | None = None) -> None:
    """Kaiming normal weights for LeakyReLU(0.2) and zero biases, for every convolution and linear layer inside.

    What is inside of `spare` keeps its weights.
    """
    spared = set() if spare is None else {*spare.modules()}
    for layer in module.modules():
        if layer not in spared and isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, a=SLOPE)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def random_blocks(batch: int, blocks: int, ratio: float, size: tuple[int, ...], like: Tensor) -> Tensor:
    """(batch, 1, H, W) of 0 and 1: each of the blocks x blocks cells is 0 with probability `ratio`."""
    keep = torch.rand(batch, 1, blocks, blocks, device=like.device) > ratio
    return F.interpolate(keep.to(like.dtype), size=size, mode="nearest")


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """A block in which nothing is autocast; where nothing is anyway, none, which torch.export would keep as a block."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def check_gathered(module: nn.Module, method: str) -> None:
    """Raise a RuntimeError where the parameters are shared out over processes (FSDP2) while this method needs them."""
    if hasattr(next(module.parameters()), "full_tensor"):
        raise RuntimeError(
            f"{type(module).__name__}: the parameters are shared out over processes (FSDP2), and gathered for "
            f"`forward` alone; call its `unshard()` before {method}, and `reshard()` after, or have {method} gather "
            f'them by torch.distributed.fsdp.register_fsdp_forward_method(module, "{method}")'
        )


def in_eval(model: Model) -> Model:
    """The model in eval mode: itself where it is, else a twin on the same parameters and buffers.

    The modes of the model's own modules are never touched: another thread may be in the middle of a pass.
    """
    if not any(module.training for module in model.modules()):
        return model
    twins: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        twin = twins[module] = module.__new__(type(module))
        twin.__dict__.update(module.__dict__, training=False)
        twin.__dict__.pop("_compiled_call_impl", None)  # of `Module.compile`, which runs the original
    for module, twin in twins.items():
        own = {name: child and twins[child] for name, child in module._modules.items()}
        twin.__dict__["_modules"] = own
    return cast("Model", twins[model])
