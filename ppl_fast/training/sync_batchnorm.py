"""BatchNorm over the images of all processes: torch's own runs on GPUs alone, and this on all devices."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class SyncBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d whose mean and variance in training mode are those of the images of all processes.

    Every process must bring as many images. Means of means, and of squares of what was centred by them, lose no digits;
    the gradient goes through both exchanges. The state is that of a BatchNorm2d, and so is eval mode.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        if not self.training:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = _mean_of_all(wide)
        centred = wide - mean[:, None, None]
        variance = _mean_of_all(centred.square())
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1] * dist.get_world_size())
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        unbiased = variance * (count / max(1, count - 1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked += 1


def synchronize(model: nn.Module, on: bool = True) -> None:
    """Let each BatchNorm2d of a model work over all processes, or with `on=False` by itself again."""
    before, after = (nn.BatchNorm2d, SyncBatchNorm2d) if on else (SyncBatchNorm2d, nn.BatchNorm2d)
    for module in model.modules():
        if type(module) is before:
            module.__class__ = after  # parameters, buffers and what refers to the module stay


class _SumOfAll(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is that of the sum of all processes' losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


def _mean_of_all(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (C,), over the images of all processes."""
    total: Tensor = _SumOfAll.apply(x.mean((0, 2, 3)))  # type: ignore[no-untyped-call]
    return total / dist.get_world_size()
