"""How messages speak of values, and of names that were meant."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

LONGEST = 100  # characters of a value


def short(value: Any) -> str:
    """A value for a message: on one line, printable and not long."""
    text = value if isinstance(value, str) else reprlib.repr(value)  # which ends, whatever the value holds
    text = "".join(c if c.isprintable() else "?" for c in text[: 2 * LONGEST])
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def nearest(name: Any, valid: Iterable[str]) -> str | None:
    """The valid name that an unknown one was probably meant to be, if any."""
    return next(iter(difflib.get_close_matches(str(name), list(valid), n=1)), None)


def hint(name: Any, valid: Iterable[str], otherwise: str = "") -> str:
    """The end of a sentence about an unknown name: "; did you mean 'x'?", or `otherwise` where none is near."""
    near = nearest(name, valid)
    return f"; did you mean {near!r}?" if near else otherwise
