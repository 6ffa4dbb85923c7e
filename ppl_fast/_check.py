"""Argument checks. Every message names the operator, the argument, what was expected and what came."""

import math
from collections.abc import Sequence

import numpy as np
import torch

from ppl_fast._options import plain

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Shape = Sequence[int | str]


def _spell(shape: Shape) -> str:
    """A shape as text: symbolic sizes by name, free ones as `*`."""
    sizes = ", ".join(str(s) for s in shape)
    return f"({sizes},)" if len(shape) == 1 else f"({sizes})"


def tensor(
    op: str,
    name: str,
    value: object,
    *shapes: Shape,
    dtypes: Sequence[torch.dtype] = FLOATS,
    like: torch.Tensor | None = None,
) -> None:
    """Check that `value` is a tensor of one of `shapes`, of one of `dtypes`, on the device of `like`.

    A shape lists integers, which must match, and strings, which stand for any size and name it in the message.

    Raises:
        TypeError: no tensor, or a wrong dtype.
        ValueError: a wrong shape or device.
    """
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{op}: {name} must be a tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        names = ", ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise TypeError(f"{op}: {name} must have a dtype of {names}, got {str(value.dtype).removeprefix('torch.')}")
    for shape in shapes:
        if _matches(value.shape, shape):
            break
    else:
        expected = " or ".join(_spell(shape) for shape in shapes)
        raise ValueError(f"{op}: {name} must have shape {expected}, got {_spell(value.shape)}")
    if like is not None and value.device != like.device:
        raise ValueError(f"{op}: {name} must be on {like.device} like the other tensors, got {value.device}")


def is_traced() -> bool:
    """Whether tensors may be fake now, or are recorded or mapped over."""
    return torch._C._len_torch_dispatch_stack() > 0 or torch._C._functorch.peek_interpreter_stack() is not None


def are_hidden(values: torch.Tensor) -> bool:
    """Whether a look at values stalls a GPU's queue, breaks a compiled graph, or fails as under vmap."""
    return values.device.type != "cpu" or torch.compiler.is_compiling() or is_traced()


def _matches(actual: torch.Size, shape: Shape) -> bool:
    if len(actual) != len(shape):
        return False
    for got, want in zip(actual, shape, strict=True):  # noqa: SIM110 - a generator costs as much as a small kernel
        if got != want and not isinstance(want, str):
            return False
    return True


def positive(op: str, name: str, value: object) -> float:
    """`value`, NumPy's too, as a float; raises TypeError or ValueError unless it is a finite number above zero."""
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{op}: {name} must be a number, got {type(value).__name__}")
    if not 0 < value < math.inf:  # isfinite cannot be traced for a number that a compiled graph leaves open
        raise ValueError(f"{op}: {name} must be finite and above 0, got {value}")
    return float(value)


def size(op: str, name: str, value: object) -> tuple[int, int]:
    """(height, width) from an int or a pair of ints above zero, NumPy's too."""
    value = plain(value)
    pair = (value, value) if isinstance(value, int) else value
    listed = list(map(plain, pair)) if isinstance(pair, (tuple, list, np.ndarray)) else []
    if len(listed) != 2 or not all(isinstance(s, int) for s in listed):
        raise TypeError(f"{op}: {name} must be an int or a pair (height, width) of ints, got {value!r}")
    if min(listed) < 1:
        raise ValueError(f"{op}: {name} must be at least 1 in each direction, got {value}")
    return listed[0], listed[1]
