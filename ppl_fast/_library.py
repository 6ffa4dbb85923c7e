"""The one torch library, and the registry of operators: schemas in Python, kernels from the libraries that load.

An operator is a family of sibling ops with one schema, one fake and one autograd formula:

    ppl_fast::<op>             the C++ kernels (CPU, CUDA); the reference serves devices that have none. Programs
                               without Python get these schemas from csrc/<op>_cpu.cpp
    ppl_fast::<op>_reference   the definition, on any device
    ppl_fast::<op>_triton      Triton, which cannot share a dispatch key with CUDA C++

and, where it has one, of its backward, ppl_fast::<op>_backward and so on. `OPERATORS` holds a record of each, which
`doctor`, the tests and the benchmarks go through: an operator is named in its own files alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, Protocol, TypeVar

import torch

SIBLINGS = ("", "_reference", "_triton")
Op = Callable[..., Any]  # a torch op, or a function with the arguments of one
_Function = TypeVar("_Function", bound=Callable[..., Any])

_library = torch.library.Library("ppl_fast", "FRAGMENT")
_loaded: dict[str, ModuleType] = {}
_failures: dict[str, str] = {}


def _load(name: str) -> None:
    """Import one compiled library, which registers its kernels; keep the reason where it does not load."""
    try:
        _loaded[name] = importlib.import_module(f"ppl_fast.{name}")
    except ModuleNotFoundError:
        _failures[name] = f"ppl_fast.{name} is not part of this installation (it was not built)"
    except ImportError as error:  # it is there, but a symbol or a shared library is missing
        _failures[name] = f"ppl_fast.{name} does not load: {error}"
        if name == "_C_cuda" and torch.version.cuda is None:
            _failures[name] = (
                f"ppl_fast.{name} needs a torch that was built with CUDA, and torch {torch.__version__} was not"
            )


_load("_C_cpu")
_load("_C_cuda")


def loaded(name: str) -> ModuleType | None:
    """The compiled library `name` (`_C_cpu` or `_C_cuda`), or None where it did not load."""
    return _loaded.get(name)


def failure(name: str) -> str | None:
    """Why the compiled library `name` did not load, or None where it did."""
    return _failures.get(name)


def has_kernel(op: str, key: str) -> bool:
    """Whether a kernel of the torch op `op` is registered under a dispatch key such as `CPU` or `CUDA`."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"ppl_fast::{op}", key)


class Definition(NamedTuple):
    """One torch op: its schema, its PyTorch reference, and a function that gives empty outputs of the right shapes."""

    schema: str
    reference: Op
    fake: Op


class Context(Protocol):
    """What autograd keeps of a call for its backward."""

    saved_tensors: tuple[torch.Tensor, ...]
    needs_input_grad: tuple[bool, ...]
    save_for_backward: Callable[..., None]


class Autograd(NamedTuple):
    """How an operator is differentiated.

    `backward(op, ctx, *grads)` gets the sibling's own `<op>_backward` as its first argument, so that a gradient is
    computed by the backend that computed the value. The gradient of an output that nobody used, or that has none, is
    None: autograd would fill zeros, a launch for each.
    """

    setup_context: Callable[..., None]
    backward: Callable[..., Any]


class Operator:
    """The record of one operator.

    Attributes:
        name: as in torch.ops.ppl_fast and of the public function.
        home: basename of the operator's files.
        ops: the torch ops behind it, by name: itself and, where it has one, its backward.
        formula: computes what the op does from torch's own operations, which have derivatives of every kind and order.
        function: the public function.
        differentiable: the arguments of `function` that get a gradient.
        example: draws the float64 arguments of a small call of `function`, for self-tests.
    """

    function: Callable[..., Any]
    differentiable: tuple[str, ...]
    example: Callable[[torch.Generator], dict[str, Any]]

    def __init__(self, name: str, ops: dict[str, Definition], autograd: Autograd | None, formula: Op | None):
        self.name, self.ops, self.autograd = name, ops, autograd
        self.formula = formula or ops[name].reference
        self.home = ops[name].reference.__module__.rpartition(".")[2]

    def overload(self, suffix: str = "") -> torch._ops.OpOverload:
        """The sibling with this suffix, one of `SIBLINGS` or what `add_sibling` made."""
        overload: torch._ops.OpOverload = getattr(torch.ops.ppl_fast, self.name + suffix).default
        return overload

    def public(
        self, *, example: Callable[[torch.Generator], dict[str, Any]], differentiable: tuple[str, ...] = ()
    ) -> Callable[[_Function], _Function]:
        """Decorate the public function: enter it here, unchanged, and this record into `OPERATORS`."""

        def enter(function: _Function) -> _Function:
            self.function, self.differentiable, self.example = function, differentiable, example
            OPERATORS[self.name] = self
            return function

        return enter

    def add_sibling(self, suffix: str, implementation: Callable[[str], Op | None]) -> None:
        """Define the ops with this suffix: same schema, fake and autograd.

        `implementation(op)` gives what serves every device that has no kernel; None leaves it to the kernels.
        """
        for name, (schema, _, fake) in self.ops.items():
            _library.define(name + suffix + schema, tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.register_fake(f"ppl_fast::{name}{suffix}", fake, lib=_library)
            if function := implementation(name):
                _library.impl(name + suffix, function, "CompositeExplicitAutograd")
        if self.autograd:
            _register_autograd(self.name, suffix, self.autograd)


OPERATORS: dict[str, Operator] = {}


def define(
    name: str,
    forward: Definition,
    backward: Definition | None = None,
    autograd: Autograd | None = None,
    formula: Op | None = None,
) -> Operator:
    """Define ppl_fast::`name`, its backward and their siblings; `Operator.public` completes the record.

    `formula` is the reference where torch differentiates that as it should.
    """
    ops = {name: forward} | ({f"{name}_backward": backward} if backward else {})
    operator = Operator(name, ops, autograd, formula)

    def reference(op: str) -> Op:
        return ops[op].reference

    for suffix in SIBLINGS:
        operator.add_sibling(suffix, _triton if suffix == "_triton" else reference)
    return operator


def decompositions() -> dict[torch._ops.OpOverload, Op]:
    """Each op in torch's own operations, as `run_decompositions` of torch.export takes it: its reference."""
    return {
        getattr(torch.ops.ppl_fast, name + suffix).default: definition.reference
        for operator in OPERATORS.values()
        for name, definition in operator.ops.items()
        for suffix in SIBLINGS
    }


def _triton(op: str) -> Op:
    """A function that calls the Triton implementation of `op`, importing triton when it is first called."""

    def run(*arguments: Any) -> Any:
        from ppl_fast.kernels import implementation

        function = implementation(op)
        if function is None:
            raise NotImplementedError(f"ppl_fast::{op}_triton: ppl_fast.kernels has no kernel of {op}")
        return function(*arguments)

    return run


def home_of(op: str) -> str:
    """The basename of the files that hold the torch op `op`."""
    return next(operator.home for operator in OPERATORS.values() if op in operator.ops)


def _register_autograd(op: str, suffix: str, formula: Autograd) -> None:
    """Give one sibling its formula. Differentiating twice raises a sentence."""
    gradient = getattr(torch.ops.ppl_fast, f"{op}_backward{suffix}").default

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.set_materialize_grads(False)
        formula.setup_context(ctx, inputs, output)

    def first(ctx: Any, *grads: torch.Tensor | None) -> Any:
        if all(grad is None for grad in grads):
            return (None,) * len(ctx.needs_input_grad)
        return formula.backward(gradient, ctx, *grads)

    def second(ctx: Any, *grads: torch.Tensor) -> Any:
        raise RuntimeError(f"{op}: the second derivative is not implemented; the first one is")

    for name, backward in ((op, first), (f"{op}_backward", second)):
        setup = keep if name == op else None
        torch.library.register_autograd(f"ppl_fast::{name}{suffix}", backward, setup_context=setup, lib=_library)
