"""Does a backend compute an operator correctly? Its small example, forward and backward, against float64."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ppl_fast._library import OPERATORS

TOLERANCE = 1e-4  # of an array's largest value, float32 against float64: see tests/cases


def largest_error(op: str, backend: str, device: torch.device | str) -> float:
    """Run `op` in float32 and return the largest error of outputs and gradients, relative to each one's largest value.

    NaN counts as wrong: it is no number at most `TOLERANCE`. Runs as outside of any mode of the caller, and waits for
    the device, which must not be capturing a graph.
    """
    with no_modes(), torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
        actual = run(op, backend, device, torch.float32)
        expected = run(op, "reference", "cpu", torch.float64)
        errors = [
            (a.detach().double().cpu() - e.detach()).abs().max() / e.detach().abs().max()
            for a, e in zip(actual, expected, strict=True)
        ]
        return torch.stack(errors).max().item()


def no_modes() -> AbstractContextManager[Any]:
    if not torch._C._len_torch_dispatch_stack():
        return nullcontext()
    from torch.utils._python_dispatch import _disable_current_modes  # with fake tensors and all: a second to import

    return _disable_current_modes()


def run(op: str, backend: str, device: torch.device | str, dtype: torch.dtype) -> list[torch.Tensor]:
    """The floating-point outputs of the example of `op`, and the gradients of its differentiable arguments."""
    operator = OPERATORS[op]
    arguments = operator.example(torch.Generator().manual_seed(0))
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            value = value.to(device, dtype if value.is_floating_point() else None)
            arguments[name] = value.requires_grad_(name in operator.differentiable)
    outputs = operator.function(**arguments, backend=backend)
    outputs = [o for o in (outputs if isinstance(outputs, tuple) else (outputs,)) if o.is_floating_point()]
    leaves = [arguments[name] for name in operator.differentiable]
    if not leaves:
        return outputs
    return [*outputs, *torch.autograd.grad(outputs, leaves, [ramp(o) for o in outputs])]


def ramp(output: torch.Tensor) -> torch.Tensor:
    """An upstream gradient from -1 to 1, laid out as the output is: a backward may go by that."""
    values = torch.linspace(-1, 1, output.numel(), device=output.device).reshape(output.shape)
    return torch.empty_like(output).copy_(values)
