"""Triton kernels, an operator in one file or two; installed as ppl_fast.kernels and imported lazily."""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from ppl_fast import _library


@functools.cache
def implementation(op: str) -> Callable[..., Any] | None:
    """The function that computes ppl_fast::`op` with Triton, with its arguments; None where there is none.

    It has the op's name and lies in a file of that name, or else in the file of the operator that the op belongs to.
    """
    for name in (op, _library.home_of(op)):
        if importlib.util.find_spec(f"{__name__}.{name}"):
            found = getattr(importlib.import_module(f"{__name__}.{name}"), op, None)
            if found is not None:
                return found
    return None
