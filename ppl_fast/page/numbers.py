"""Numbers as the page's data has them: no longer than what is seen of them, and JSON's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ppl_fast.visualization._draw import as_array


def rounded(values: Any, digits: int) -> Any:
    """A tensor or array as nested lists, rounded to so many decimals; None for what is not finite."""
    return finite(np.round(as_array(values).astype(np.float64), digits).tolist())


def significant(values: Any, digits: int = 6) -> Any:
    """A tensor or array as nested lists, rounded to so many significant digits."""
    array = as_array(values).astype(np.float64)
    return np.array([float(f"{value:.{digits}g}") for value in array.ravel()]).reshape(array.shape).tolist()


def finite(value: Any) -> Any:
    """JSON types without NaN and infinity, which JSON does not have: None in their place."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
