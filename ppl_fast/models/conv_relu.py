"""ReLU of a frozen convolution: on a GPU cuDNN adds the bias and cuts off before it writes, torch in two more passes.

Measured on a Hopper GPU (docs/gpu.md). It is put to a small test on each GPU before its first use.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl_fast import _devices
from ppl_fast._selftest import no_modes
from ppl_fast.models.blocks import is_followed, no_autocast

# float16 is not among them: where it overflows, what is not a number must stay, and cuDNN's ReLU makes 0 of it.
TOLERANCE = {torch.float32: 5e-3, torch.bfloat16: 2e-2}  # of the largest value; TF32 and bfloat16 have as many digits

_right: dict[tuple[torch.device, torch.dtype], bool] = {}


def conv_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, C, H, W) -> ReLU of the convolution by a frozen (O, C, 3, 3) and its (O,), padded by one.

    Where cuDNN does both, what is not a number becomes 0.
    """
    if x.device.type != "cuda" or is_followed():
        return F.relu(F.conv2d(x, weight, bias, padding=1), inplace=True)
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    if not _serves(x.device, dtype):
        return F.relu(F.conv2d(x, weight, bias, padding=1), inplace=True)
    with no_autocast(x.device):
        cut: Tensor = _ConvRelu.apply(x.to(dtype), weight.to(dtype), bias.to(dtype))  # type: ignore[no-untyped-call]
    return cut


class _ConvRelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        cut = torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1)
        ctx.save_for_backward(x, weight, cut)
        return cut

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, weight, cut = ctx.saved_tensors
        let_through = torch.ops.aten.threshold_backward(grad, cut, 0)
        of_input, _, _ = torch.ops.aten.convolution_backward(
            let_through, x, weight, None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1, (True, False, False)
        )
        return of_input, None, None


def _serves(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this device's cuDNN has it for a dtype, and is right; tried once, and never in a capture."""
    key = device, dtype
    if key not in _right:
        if dtype not in TOLERANCE or not torch.backends.cudnn.enabled or _devices.capturing(device.type):
            return False
        _right[key] = _is_right(device, dtype)
    return _right[key]


def _is_right(device: torch.device, dtype: torch.dtype) -> bool:
    """Compare it with torch's layers, in memory that held no numbers: it is given its output as an addend, times 0."""
    try:
        with no_modes(), torch.inference_mode(False), torch.no_grad(), no_autocast(device):
            places = torch.arange(2 * 64 * 32 * 32, device=device, dtype=torch.float32)
            x = places.view(2, 64, 32, 32).sin().to(dtype).contiguous(memory_format=torch.channels_last)
            weight, bias = (places[:36864].view(64, 64, 3, 3) * 7).sin().to(dtype), places[:64].cos().to(dtype)
            spoilt = torch.full_like(x, torch.nan)
            del spoilt
            found = torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (1, 1), (1, 1), 1).float()
            expected = F.relu(F.conv2d(x, weight, bias, padding=1)).float()
            return bool((found - expected).abs().max() <= TOLERANCE[dtype] * expected.max())
    except RuntimeError:  # a GPU or build for which there is none
        return False
