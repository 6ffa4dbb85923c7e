"""Pickles read without running what is in them: a look at the opcodes, an unpickler that admits few names.

A pickle is a program: it names functions and calls them. A reader says which names it admits and what stands for each,
and which opcodes its files do not have. The two readers' lists differ because their files do:

- `published.pickles` reads what torch.save wrote. Its classes are many and only known by pattern, and they get a
  stand-in; storages are persistent objects (BINPERSID); torch.save keeps to protocol 2, so that the opcodes of later
  ones, and the old ones that call classes by other ways than the unpickler's hooks (INST, OBJ), are foreign.
- `data.sets.pickles` reads tables of arrays by pandas: a closed list of names, each handed out as a record of what it
  was called with; no persistent objects; protocols 2 to 5, so that NEWOBJ_EX and BYTEARRAY8 are at home.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OUTSIDE = frozenset({"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "PERSID"})  # opcodes that reach outside of any pickle
NUMBERING = ("PUT", "BINPUT", "LONG_BINPUT")


class RefusedError(ValueError):
    """A pickle asks for something that no file of its kind needs."""


class RestrictedUnpickler(pickle.Unpickler):
    """Python's unpickler with the look-up of names taken over, as its documentation has it.

    A subclass says by `admit` what it knows. The stream is to be looked at by `scan` before.

    Raises:
        RefusedError: from `load`, for a name that is not admitted.
    """

    def admit(self, module: str, name: str) -> Any:
        """What stands for a global name; None where it is refused."""
        raise NotImplementedError

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle gets for a global name."""
        found = self.admit(module, name)
        if found is None:
            raise RefusedError(f"it asks for {short(f'{module}.{name}')}")
        return found


def scan(file: io.BytesIO, foreign: Collection[str], why: str = "") -> None:
    """Look at the opcodes of the next pickle of a stream, which stays where it is.

    Args:
        file: a stream of bytes.
        foreign: names of opcodes that no such file has.
        why: end of the sentence about one of them.

    Raises:
        RefusedError: a foreign opcode, or objects numbered so high that the unpickler would take memory for all
            numbers below.
        ValueError: no pickle, or one that was cut short.
    """
    start, highest = file.tell(), 0
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in foreign:
            raise RefusedError(f"it has the opcode {opcode.name}{why}")
        if opcode.name in NUMBERING:
            highest = max(highest, argument or 0)
    if highest > file.tell() - start:
        raise RefusedError("it numbers more objects than it has")
    file.seek(start)


@contextmanager
def refusing(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever reading a pickle raises into one ValueError that names the file.

    Args:
        path: the file.
        expected: end of the sentence about a file that is broken: "no pickled table".
    """
    try:
        yield
    except RefusedError as error:
        raise ValueError(f"{path}: refused without running anything: {error}") from error
    except Exception as error:  # a broken pickle can raise anything
        reason = short(f"{type(error).__name__}: {error}")
        raise ValueError(f"{path}: truncated, or {expected} ({reason})") from error


def short(value: Any, limit: int = 100) -> str:
    """A value for a message: on one line, printable and not long."""
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= limit else text[: limit - 3] + "..."
