"""The one torch library: schemas in Python, implementations from the compiled libraries that load.

An operator is a family of sibling ops with one schema, one fake and one autograd formula:

    ppl_fast::<op>             the C++ kernels (CPU, CUDA); the reference serves devices that have none. Programs
                               without Python get these schemas from csrc/operators.cpp
    ppl_fast::<op>_reference   the definition, on any device
    ppl_fast::<op>_triton      Triton, which cannot share a dispatch key with CUDA C++
"""

import importlib

import torch

_library = torch.library.Library("ppl_fast", "FRAGMENT")
_loaded: dict[str, object] = {}
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


def loaded(name: str):
    """Return the compiled library `name` (``_C_cpu`` or ``_C_cuda``), or None where it did not load."""
    return _loaded.get(name)


def failure(name: str) -> str | None:
    """Return why the compiled library `name` did not load, or None where it did."""
    return _failures.get(name)


def define(op: str, schema: str, reference, fake) -> None:
    """Define ppl_fast::`op`, `op`_reference (both served by `reference`) and `op`_triton with one schema and fake."""
    for name, function in ((op, reference), (f"{op}_reference", reference), (f"{op}_triton", _triton(op))):
        define_sibling(name, schema, fake)
        _library.impl(name, function, "CompositeExplicitAutograd")


def _triton(op: str):
    """Return a function that calls the Triton implementation of `op`, importing triton when it is first called."""

    def run(*arguments):
        from ppl_fast import kernels

        return kernels.implementation(op)(*arguments)

    return run


def define_sibling(name: str, schema: str, fake) -> None:
    """Define the op ppl_fast::`name` with a schema and a fake, without an implementation."""
    _library.define(name + schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.register_fake(f"ppl_fast::{name}", fake, lib=_library)


def implement(name: str, function, key: str) -> None:
    """Register `function` as the implementation of ppl_fast::`name` under the dispatch key `key`."""
    _library.impl(name, function, key)


def register_autograd(op: str, setup_context, backward, siblings=("", "_reference", "_triton")) -> None:
    """Give each sibling of `op` the same autograd formula.

    `backward(ops, ctx, *grads)` gets the sibling's own ``<op>_backward`` as its first argument, so that a gradient is
    computed by the backend that computed the value. Differentiating twice raises a sentence.
    """
    for suffix in siblings:
        gradient = getattr(torch.ops.ppl_fast, f"{op}_backward{suffix}").default

        def first(ctx, *grads, gradient=gradient):
            return backward(gradient, ctx, *grads)

        def second(ctx, *grads):
            raise RuntimeError(f"{op}: the second derivative is not implemented; the first one is")

        torch.library.register_autograd(f"ppl_fast::{op}{suffix}", first, setup_context=setup_context, lib=_library)
        torch.library.register_autograd(f"ppl_fast::{op}_backward{suffix}", second, lib=_library)
