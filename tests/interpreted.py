"""Triton's interpreter, faster: for tests and rehearsals under TRITON_INTERPRET=1."""

import importlib
import inspect
import pkgutil
from types import ModuleType

import triton.language as tl
from ppl_fast.kernels import link_heatmap
from triton.runtime import interpreter

from ppl_fast import kernels

LARGE_TILE = (32, 32)  # fewer programs, so fewer steps to interpret, than the tile in use


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
