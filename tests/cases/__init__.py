"""Inputs of the operators' tests and benchmarks, and the tolerances that hold by dtype, with their reasons.

The file of an operator's name has its `CASES`, of which the first is an ordinary one; `MEDIUM`, an input for what runs
many times; of a differentiable one `SMOOTH`, whose gradients are derivatives; `SIZES`, whose shapes choose every block
size that its Triton kernels use, and `ONES`, of sizes 1, which Triton takes as constants; what `MEDIUM` launches,
forward and backward: `TRITON_LAUNCHES` by name and `CUDA_LAUNCHES` by number; and `CUDA_SHAPES`, which between them
launch every CUDA kernel in the shape that its description tells of. `CASES` here has the cases by operator.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from ppl_fast._library import OPERATORS

# Largest error over largest value of an array, against the float64 reference on the same (already rounded) inputs.
# float64: some ten operations, and d^2 / thickness magnifies rounding by up to 1e4 relative to the exponent.
# float32: the same magnification, 1e4 * 6e-8 * (a few), at the thinnest links; 1e-6 at ordinary ones.
# float16, bfloat16: the result is rounded once, 2^-11 and 2^-8, on top of float32's error.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@dataclass(frozen=True)
class Case:
    """One input: `make(generator)` returns float64 tensors and keyword arguments of an operator."""

    name: str
    make: Callable[[torch.Generator], dict]

    def inputs(self, dtype=torch.float64, device="cpu", seed=0) -> dict:
        """The arguments with floating-point tensors rounded to `dtype`."""
        arguments = self.make(torch.Generator().manual_seed(seed))
        return {
            name: value.to(device, dtype if value.is_floating_point() else None)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in arguments.items()
        }


def with_changes(make, **changes):
    def made(g):
        arguments = make(g)
        for name, change in changes.items():
            arguments[name] = change(arguments) if callable(change) else change
        return arguments

    return made


def set_at(name, index, value):
    def change(arguments):
        changed = arguments[name].clone()
        changed[index] = value
        return changed

    return change


def of(op: str, name: str) -> Any:
    """What the file of an operator's cases calls `name`."""
    return getattr(importlib.import_module(f"cases.{op}"), name)


CASES: dict[str, list[Case]] = {op: of(op, "CASES") for op in OPERATORS}
DIFFERENTIABLE = [name for name, operator in OPERATORS.items() if operator.differentiable]


def every(cases: dict[str, list[Case]] = CASES) -> list:
    """Each case of each operator as a parameter (op, case)."""
    return [pytest.param(op, case, id=f"{op}-{case.name}") for op, some in cases.items() for case in some]


def first(cases: dict[str, list[Case]] = CASES) -> list:
    """The first case of each operator as a parameter (op, case)."""
    return every({op: some[:1] for op, some in cases.items()})
