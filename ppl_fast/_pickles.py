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

from ppl_fast._messages import short

OUTSIDE = frozenset({"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "PERSID"})  # opcodes that reach outside of any pickle
MOST_IN_A_TUPLE = 100_000
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
        RefusedError: a foreign opcode, objects numbered so high that the unpickler would take memory for all numbers
            below, or tuples that hold one another so often that to look one up in a dict would take for ever.
        ValueError: no pickle, or one that was cut short.
    """
    start, highest, weights = file.tell(), 0, _Weights()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in foreign:
            raise RefusedError(f"it has the opcode {opcode.name}{why}")
        if opcode.name in NUMBERING:
            highest = max(highest, argument or 0)
        weights.follow(opcode, argument)
    if highest > file.tell() - start:
        raise RefusedError("it numbers more objects than it has")
    file.seek(start)


class _Weights:
    """The number of objects in each tuple on the unpickler's stack, those in it twice counted twice.

    Python hashes a tuple by all that is in it, however often. Lists and dicts, which have no hash, count as empty.
    """

    def __init__(self) -> None:
        self._stack: list[int] = []  # the weights; -1 for a mark
        self._numbered: dict[int, int] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Do to the weights what an opcode does to the stack."""
        name = opcode.name
        if name in NUMBERING or name == "MEMOIZE":
            self._numbered[len(self._numbered) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._numbered.get(argument, 1))
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        else:
            taken = self._taken(opcode)
            weight = 1 + sum(taken) if name.startswith(("TUPLE", "FROZENSET")) else 1
            if weight > MOST_IN_A_TUPLE:
                raise RefusedError(f"it has a tuple of more than {MOST_IN_A_TUPLE} objects, one within another")
            self._stack += [-1 if kind is pickletools.markobject else weight for kind in opcode.stack_after]

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[int]:
        """What an opcode takes from the stack, without the mark that it may reach down to."""
        below = list(opcode.stack_before)
        if pickletools.markobject not in below:
            cut = len(self._stack) - len(below)
        else:
            marks = (at for at in range(len(self._stack) - 1, -1, -1) if self._stack[at] < 0)
            cut = next(marks, -1) - below.index(pickletools.markobject)
        if cut < 0:
            raise ValueError("it takes more from its stack than there is")
        taken = [weight for weight in self._stack[cut:] if weight > 0]
        del self._stack[cut:]
        return taken


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
