"""Options as fields of a dataclass: a default, a meaning and bounds for each, checked in one place."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

_PLAIN = (bool, int, float, str, tuple, list, dict)

YAML_WORDS = {"no": False, "off": False, "false": False, "yes": True, "on": True, "true": True}


def option(
    default: Any,
    help: str,
    *,
    low: float = 0,
    high: float = math.inf,
    most: float = math.inf,
    positive: bool = False,
    choices: tuple[str, ...] = (),
    everyday: bool = False,
) -> Any:
    """A dataclass field that carries its meaning and its bounds.

    Args:
        default: an int, float, bool or str, which gives the option's type; None stands for text or a path that may be
            left out. Other types are the dataclass's own to check.
        help: what the option means.
        low: least number.
        high: greatest number.
        most: number beyond which nobody asks for, and a file that does so wants to exhaust the machine.
        positive: excludes 0.
        choices: the texts to choose from, where only these are.
        everyday: whether a command's --help shows it; --help-all shows every option.
    """
    about = {"help": help, "low": low, "high": high, "most": most, "positive": positive, "choices": choices}
    return dataclasses.field(default=default, metadata=about | {"everyday": everyday})


_ANY = option(None, "").metadata


def metadata_of(field: dataclasses.Field[Any]) -> Mapping[str, Any]:
    """What `option` was told of a field; of one that it did not make, nothing that restricts it."""
    return {**_ANY, **field.metadata}


def check(owner: str, options: Any) -> None:
    """Check every `option` of a dataclass instance, and make it plain: NumPy's numbers and paths do not stay.

    An int where a float is expected becomes one. Frozen instances are set too: this is for `__post_init__`.

    Args:
        owner: whose options they are, for messages.
        options: the instance.

    Raises:
        TypeError: a value of another type than the default.
        ValueError: a value out of bounds; the sentence names owner, option, what was expected and what came.
    """
    for field in dataclasses.fields(options):
        object.__setattr__(options, field.name, _checked(owner, field, getattr(options, field.name)))


def as_meant(options: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a YAML file as they were written: YAML reads the words no and off as False, and 1e-3 as text.

    Args:
        options: the dataclass.
        given: values by name, of which unknown ones and those that fit no better pass through.
    """
    known = {field.name: field for field in dataclasses.fields(options)}
    return {name: _as_meant(known[name], value) if name in known else value for name, value in given.items()}


def plain(value: Any) -> Any:
    """A NumPy scalar, or array of no dimension, as Python's own number, text or truth value; anything else as it is."""
    if value is None or type(value) in _PLAIN:
        return value
    import numpy as np  # whose values alone are left; options are read without it

    if isinstance(value, np.longdouble):
        return float(value)  # whose own `item` stays NumPy's
    lone = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    return value.item() if lone else value


def integer(owner: str, name: str, value: Any, low: int) -> int:
    """An argument that is an integer of at least `low`, NumPy's too, as a plain int.

    Raises:
        ValueError: it is none; the sentence names owner and argument.
    """
    value = plain(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ValueError(f"{owner}: {name} must be an integer of at least {low}, got {value!r}")
    return value


def _as_meant(field: dataclasses.Field[Any], value: Any) -> Any:
    kind = type(field.default)
    if isinstance(value, bool) and metadata_of(field)["choices"]:
        return next((word for word in metadata_of(field)["choices"] if YAML_WORDS.get(word) is value), value)
    if kind is bool and isinstance(value, str):
        return YAML_WORDS.get(value.lower(), value)
    if kind is tuple and isinstance(value, list | tuple):
        return [_number(part) for part in value]
    number = _number(value) if kind in (int, float) else value
    return int(number) if kind is int and isinstance(number, float) and number.is_integer() else number


def _number(value: Any) -> Any:
    """A text that is a number as a float; anything else as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _checked(owner: str, field: dataclasses.Field[Any], value: Any) -> Any:
    """The value of one option, as its type has it."""
    value, optional = plain(value), field.default is None
    given = value
    if optional and value is None:
        return None
    kind = str if optional else type(field.default)
    if kind not in (bool, int, float, str):
        return value
    if optional and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{owner}: {field.name} must be {kind.__name__}, got {value!r} ({type(value).__name__})")
    choices = metadata_of(field)["choices"]
    if choices and value not in choices:
        raise ValueError(f"{owner}: {field.name} must be one of {', '.join(choices)}, got {value!r}")
    if kind in (int, float):
        _check_bounds(f"{owner}: {field.name}", value, metadata_of(field), given)
    return value


def _check_bounds(name: str, value: Any, limits: Mapping[str, Any], given: Any) -> None:
    low, high, positive = limits["low"], limits["high"], limits["positive"]
    if limits["most"] < value < math.inf:
        raise ValueError(f"{name} must be at most {limits['most']}, got {given}")
    if math.isfinite(value) and low <= value <= high and (value > 0 or not positive):
        return
    if positive:
        expected = "a positive number"
    elif high < math.inf:
        expected = f"between {low} and {high}"
    else:
        expected = f"at least {low}" if low > -math.inf else "finite"
    raise ValueError(f"{name} must be {expected}, got {given}")
