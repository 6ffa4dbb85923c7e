"""Names of millions of images in a few arrays, which loading processes share."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np


class _Held(Sequence[str]):
    """Names by number, from 0 on, that `at` makes as they are asked for."""

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        found = range(len(self))[row]
        return self.at(found) if isinstance(found, int) else [self.at(each) for each in found]

    def at(self, row: int) -> str:
        """One of them."""
        raise NotImplementedError


class Names(_Held):
    """Names SHARD/KEY in the order of the shards: some 30 bytes each, where a list and a dictionary take 200.

    Args:
        shards: their names.
        counts: how many images each has.
        keys: of all of them, as bytes, one behind the other.
        ends: (n,) int64, where in `keys` each ends.
    """

    def __init__(self, shards: list[str], counts: list[int], keys: bytes, ends: np.ndarray):
        self.shards, self._keys, self._ends = shards, keys, ends
        self.first = np.cumsum([0, *counts])  # image of each shard
        sums = np.fromiter(map(_sum, self), np.uint32, len(ends))
        self._order = np.argsort(sums, kind="stable").astype(np.int64)
        self._sums = sums[self._order]

    def __len__(self) -> int:
        return len(self._ends)

    def at(self, row: int) -> str:
        """One of them."""
        return self._name(self.shard(row), int(self._ends[row - 1]) if row else 0, int(self._ends[row]))

    def __iter__(self) -> Iterator[str]:
        start, row = 0, 0
        for shard, end_row in enumerate(map(int, self.first[1:])):
            for end in map(int, self._ends[row:end_row]):
                yield self._name(shard, start, end)
                start = end
            row = end_row

    def _name(self, shard: int, start: int, end: int) -> str:
        return f"{self.shards[shard]}/{os.fsdecode(self._keys[start:end])}"

    def shard(self, row: int) -> int:
        """The number of the shard that an image lies in."""
        return int(np.searchsorted(self.first, row, side="right")) - 1

    def row(self, name: str) -> int:
        """The number of an image by its name.

        Raises:
            KeyError: there is none.
        """
        wanted = np.uint32(_sum(name))
        start, end = (int(np.searchsorted(self._sums, wanted, side=side)) for side in ("left", "right"))
        for row in map(int, self._order[start:end]):
            if self[row] == name:
                return row
        raise KeyError(name)


class Some(_Held):
    """Some of many names.

    Args:
        names: all.
        rows: numbers of those that are meant.
    """

    def __init__(self, names: Sequence[str], rows: Sequence[int]):
        self._names, self._rows = names, np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, row: int) -> str:
        """One of them."""
        return self._names[int(self._rows[row])]


def _sum(name: str) -> int:
    return zlib.crc32(os.fsencode(name))
