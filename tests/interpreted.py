"""Triton's interpreter, faster: for tests and rehearsals under TRITON_INTERPRET=1."""

import contextlib
import importlib
import inspect
import pkgutil
from types import ModuleType

import numpy as np
import triton.language as tl
from ppl_fast.kernels import link_heatmap
from triton.runtime import interpreter

from ppl_fast import kernels

SHAPERS = ("create_broadcast", "create_expand_dims", "create_reshape", "create_splat", "create_trans")
LARGE_TILE = (32, 32, 1)  # fewer programs, so fewer steps to interpret, than the tile in use


def faster() -> None:
    """Let a nested call keep the patches of the call around it: the interpreter makes them anew, half of its time."""
    patch, made, kinds = interpreter._patch_lang, {}, {}

    def patch_once(function):
        if function not in kinds:
            seen = [value for value in function.__globals__.values() if inspect.ismodule(value)]
            kinds[function] = tl in seen, tl.core in seen
        kind = kinds[function]
        if kind in made:
            return None
        scope = made[kind] = patch(function)
        if len(made) == 1:  # the kernel itself: when it ends, all ends
            restore = scope.restore

            def restore_all():
                for inner in list(made.values())[:0:-1]:
                    inner.restore()
                made.clear()
                restore()

            scope.restore = restore_all
        return scope

    interpreter._patch_lang = patch_once


def kernel_modules() -> list[ModuleType]:
    """The files that hold kernels."""
    names = [module.name for module in pkgutil.iter_modules(kernels.__path__) if not module.name.startswith("_")]
    return [importlib.import_module(f"ppl_fast.kernels.{name}") for name in names]


def use_large_tiles() -> None:
    """Draw link heatmaps in large tiles from now on."""
    link_heatmap.TILE = LARGE_TILE


@contextlib.contextmanager
def contracted():
    """Fuse each product with the sum that takes it, as the compiler for GPUs may: a multiply-add rounds once.

    Products are kept exactly, in float64, beside their rounded values; a shape may change on the way.
    """
    builder = interpreter.InterpreterBuilder
    kept = {name: getattr(builder, name) for name in ("create_fmul", "create_fadd", "create_fsub", *SHAPERS)}

    def multiply(self, left, right):
        handle = kept["create_fmul"](self, left, right)
        if handle.data.dtype == np.float32:
            handle.product = np.multiply(left.data, right.data, dtype=np.float64)
        return handle

    def fused(name, operation):
        def run(self, left, right):
            handle = kept[name](self, left, right)
            if handle.data.dtype == np.float32:
                exact = getattr(left, "product", None)
                pair = (exact, right.data) if exact is not None else (left.data, getattr(right, "product", right.data))
                handle.data = operation(*pair, dtype=np.float64).astype(np.float32)
            return handle

        return run

    def shaped(name):
        def run(self, *arguments):
            handle = kept[name](self, *arguments)
            source = next(a for a in arguments if isinstance(a, interpreter.TensorHandle))
            if hasattr(source, "product"):
                exact = interpreter.TensorHandle(source.product, tl.float64)
                handle.product = kept[name](self, *[exact if a is source else a for a in arguments]).data
            return handle

        return run

    patches = {"create_fmul": multiply, "create_fadd": fused("create_fadd", np.add)}
    patches["create_fsub"] = fused("create_fsub", np.subtract)
    try:
        for name, function in (patches | {name: shaped(name) for name in SHAPERS}).items():
            setattr(builder, name, function)
        yield
    finally:
        for name, function in kept.items():
            setattr(builder, name, function)
