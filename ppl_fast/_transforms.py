"""Operators inside of torch.func's transforms, of which torch's formulas for an op of one's own know nothing.

Gradients and maps over samples go through the kernels. Forward mode and gradients of gradients, of which kernels have
none, are computed from torch's own operations: the operator's `formula`.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch._C._functorch import TransformType, get_interpreter_stack, peek_interpreter_stack
from torch.autograd import forward_ad

from ppl_fast._library import Op, Operator


def in_force() -> str | None:
    """What serves under the transforms in force: `kernels`, the `formula`, or None, the ops as ever."""
    if forward_ad._current_level >= 0:
        return "formula"
    if peek_interpreter_stack() is None:
        return None
    if torch.compiler.is_compiling():  # which traces through plain operations alone
        return "formula"
    kinds = [interpreter.key() for interpreter in get_interpreter_stack() or ()]
    if TransformType.Functionalize in kinds:  # torch has no rule for autograd functions there
        return "formula" if len(kinds) > 1 else None
    return "formula" if TransformType.Jvp in kinds or kinds.count(TransformType.Grad) > 1 else "kernels"


in_force._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def through_kernels(operator: Operator, suffix: str) -> Op:
    """The sibling of an operator with this suffix, as a function that torch.func can transform."""
    value = _mapped(operator.overload(suffix))
    if operator.autograd is None:
        return value.apply
    gradient = _mapped(getattr(torch.ops.ppl_fast, f"{operator.name}_backward{suffix}").default)
    setup_context, backward = operator.autograd

    class Differentiable(value):  # type: ignore[misc, valid-type]
        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            setup_context(ctx, inputs, output)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> Any:
            return backward(gradient.apply, ctx, *grads)

    transformed: Op = Differentiable.apply
    return transformed


def _mapped(overload: torch._ops.OpOverload) -> type[torch.autograd.Function]:
    """An op as an autograd function whose rule under vmap is to take one sample after the other."""

    class Mapped(torch.autograd.Function):
        @staticmethod
        def forward(*arguments: Any) -> Any:
            return overload(*arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            """Nothing is kept: only `Differentiable` has a gradient."""

        @classmethod
        def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
            given = [*zip(arguments, in_dims, strict=True)]
            if not info.batch_size:  # one sample of zeros tells the shapes
                given = [(a if d is None else a.new_zeros((*a.shape[:d], 1, *a.shape[d + 1 :])), d) for a, d in given]

            def sample(i: int) -> list[Any]:
                return [a if d is None else a.select(d, i) for a, d in given]

            outputs = [cls.apply(*sample(i)) for i in range(info.batch_size or 1)]  # type: ignore[no-untyped-call]
            if isinstance(outputs[0], torch.Tensor):
                return torch.stack(outputs)[: info.batch_size], 0
            stacked = tuple(torch.stack(parts)[: info.batch_size] for parts in zip(*outputs, strict=True))
            return stacked, (0,) * len(stacked)

    return Mapped
