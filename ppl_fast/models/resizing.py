"""Maps of double and of half the size, and the 3 x 3 convolutions that go with it: the same map from fewer products."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_legacy_batchedtensor

from ppl_fast.models.blocks import is_followed, laid_out
from ppl_fast.ops import bilinear_upsample2x


def upsample2x(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 2H, 2W), bilinear with half-pixel centres.

    On a GPU by the operator: torch's kernels take several times as long as their bytes, and autocast widens halves for
    them. Compilers, exports and torch.func get torch's operation, which they fuse, write down and transform.
    """
    if x.device.type == "cuda" and not is_followed():
        return bilinear_upsample2x(x)
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


WIDE = 64  # input channels from which on `products` pay on a CPU
MULTIPLIED = torch.float32, torch.float64, torch.bfloat16  # dtypes that it takes products of as fast as convolutions


class DoublingConv2d(nn.Conv2d):
    """A bilinear doubling followed by a 3 x 3 convolution.

    Doubling acts on every channel alike, and so may follow the nine products of a convolution: a quarter of them. Each
    is then doubled and shifted, which costs what does not grow with input channels. Taken on a CPU, where there are
    many of these.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, 1, 1)

    def multiplies_first(self) -> bool:
        """Whether the products are better taken before the doubling, by device, size, and dtype that is computed in."""
        cast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if cast else self.weight.dtype
        return self.weight.device.type == "cpu" and self.in_channels >= WIDE and dtype in MULTIPLIED

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, 2H, 2W)."""
        if not is_followed() and self.multiplies_first():
            return doubled(x, *products(self))
        return super().forward(upsample2x(x))


def products(conv: nn.Conv2d) -> tuple[Tensor, Tensor | None]:
    """Kernel (9 O, I), by row, column and output, and bias (9 O,), of which `doubled` makes a convolution's map."""
    kernel = conv.weight.permute(2, 3, 0, 1).reshape(9 * conv.out_channels, -1)
    if conv.bias is None:
        return kernel, None
    # A constant stays one when it is doubled, and the middle is not shifted.
    return kernel, F.pad(conv.bias, (4 * conv.out_channels, 4 * conv.out_channels))


def doubled(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """(B, inputs, H, W) -> (B, outputs, 2H, 2W), by `products` of a convolution."""
    # A matrix product: torch convolves a kernel of 1 x 1 by other means on one thread, at half of its speed.
    taps = F.linear(laid_out(x).permute(0, 2, 3, 1), kernel, bias)
    pays = x.shape[1] >= 2 * max(x.shape[2:]) and (taps.requires_grad or taps.dtype == torch.bfloat16)
    if pays and not is_followed():
        return _doubled_by_products(taps)
    return _doubled_along(_doubled_along(taps.permute(0, 3, 1, 2), 2), 3)


def _doubled_along(taps: Tensor, dim: int) -> Tensor:
    """The sum of three stacks of channels, doubled along a dimension and shifted as the elements of a kernel are."""
    before, middle, after = (
        F.interpolate(tap, scale_factor=(2.0, 1.0) if dim == 2 else (1.0, 2.0), mode="bilinear")
        for tap in taps.chunk(3, 1)
    )
    rest = middle.shape[dim] - 1
    middle.narrow(dim, 1, rest).add_(before.narrow(dim, 0, rest))
    middle.narrow(dim, 0, rest).add_(after.narrow(dim, 1, rest))
    return middle


def _doubled_by_products(taps: Tensor) -> Tensor:
    """(B, H, W, 9 O) -> (B, O, 2H, 2W), as `_doubled_along` twice, by matrices that are mostly zeros.

    The backward is two more products in place of many passes over memory, and in bfloat16 a sum is rounded once. The
    zeros grow with the sides, and without a backward passes are faster in float32.
    """
    batch, height, width = taps.shape[:3]
    outputs = taps.shape[3] // 9
    by_row = taps.view(batch, height, width, 3, 3, outputs).permute(0, 3, 1, 2, 4, 5)
    rows = _mapped(by_row.reshape(batch * 3 * height, width * 3, outputs), _doubling(width, taps).flatten(1))
    rows = rows.view(batch, 3 * height, 2 * width * outputs)
    columns = _mapped(rows, _doubling(height, taps).mT.flatten(1))
    return columns.view(batch, 2 * height, 2 * width, outputs).permute(0, 3, 1, 2)


def _doubling(size: int, like: Tensor) -> Tensor:
    """(2 * size, size, 3): what each of three stacks along a dimension gives to their sum, doubled and shifted."""
    doubled = like.new_zeros(2 * size + 2, size)
    each = torch.eye(size, dtype=torch.float32, device=like.device)
    doubled[1:-1] = F.interpolate(each[None], scale_factor=2, mode="linear")[0].T
    return doubled.unfold(0, 3, 1)


def _mapped(x: Tensor, matrix: Tensor) -> Tensor:
    """(N, J, O), by (I, J) -> (N, I, O)."""
    mapped: Tensor = _Mapped.apply(x, matrix)  # type: ignore[no-untyped-call]
    return mapped


CACHED = 1 << 19  # bytes: half of what a core has


class _Mapped(torch.autograd.Function):
    """One matrix times each of a batch. Torch copies it for each; here there are as many copies as stay in cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(matrix)
        count = max(1, min(CACHED // matrix.nbytes, len(x)))
        copies = matrix.expand(count, -1, -1).contiguous()
        mapped = x.new_empty(len(x), len(matrix), x.shape[2])
        for part, into in zip(x.split(count), mapped.split(count), strict=True):
            torch.bmm(copies[: len(part)], part, out=into)
        return mapped

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (matrix,) = ctx.saved_tensors
        if is_followed() or is_legacy_batchedtensor(grad):
            return matrix.mT @ grad, None
        return _mapped(grad, matrix.mT.contiguous()), None


class Halve(nn.AvgPool2d):
    """The mean of 2 x 2 as a layer that keeps nothing for the backward; torch's own keeps what goes in."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / 2, W / 2)."""
        kept = x.requires_grad and torch.is_grad_enabled()
        if not kept or is_followed() or x.shape[2] % 2 or x.shape[3] % 2:
            return super().forward(x)
        halved: Tensor = _Halved.apply(x)  # type: ignore[no-untyped-call]
        return halved


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return F.interpolate(grad / 4, scale_factor=2, mode="nearest")


FEW = 16  # channels: torch pools as many at once as a vector holds, and slowly what is left


def sliding_mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 1, W + 1): the mean of every 2 x 2 neighbours, of which those outside are 0."""
    if x.shape[1] >= FEW:
        return F.avg_pool2d(x, 2, stride=1, padding=1)
    padded = F.pad(x, (1, 1, 1, 1))
    rows = padded[:, :, 1:] + padded[:, :, :-1]
    return (rows[..., 1:] + rows[..., :-1]) * 0.25


def halving_kernel(weight: Tensor) -> Tensor:
    """(O, I, 3, 3) -> (O, I, 4, 4): of the convolution of stride 2 that does for one of stride 1 and a 2 x 2 mean.

    The weight is laid out contiguous: on a GPU torch's backward leaves the padding out of account where what was pooled
    lies channels last.
    """
    return F.avg_pool2d(weight.contiguous(), 2, stride=1, padding=1)


class HalvingConv2d(nn.Conv2d):
    """3 x 3 convolution followed by a 2 x 2 mean, computed as one convolution of stride 2.

    A mean and a convolution may change places. On a CPU the sliding mean comes first, and of it a 3 x 3 convolution of
    stride 2 takes what is needed: 9 instead of 36 products a value. Elsewhere the kernel is averaged in place of the
    maps, to one of 4 x 4: 16 products, and one pass over memory less, which is what counts there.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
        if x.device.type == "cpu":
            return F.conv2d(sliding_mean(laid_out(x)), self.weight, self.bias, stride=2)
        return F.conv2d(laid_out(x), halving_kernel(self.weight), self.bias, stride=2, padding=1)
