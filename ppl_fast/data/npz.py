"""Arrays of an .npz file, whose headers are looked at, all of them, before any is read."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ppl_fast._documents import LARGE, check_regular
from ppl_fast._messages import short

LARGEST = 1 << 30  # bytes of all arrays asked for together, as many as float64 would take at least
MOST_DIMENSIONS = 32
# What zipfile and numpy raise for a file that is no readable npz: RuntimeError where it is encrypted, and
# NotImplementedError, which is one, for a compression that is unknown.
UNREADABLE = (
    ValueError, TypeError, EOFError, AttributeError, IndexError, KeyError, SyntaxError, RuntimeError, OverflowError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


class Member:
    """One array of the file: its shape and dtype, and its numbers when they are asked for."""

    def __init__(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo):
        self._archive, self._entry = archive, entry
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{short(entry.filename)} is compressed by an unknown method")
        with archive.open(entry) as file:
            self.shape, self._fortran, self.dtype = _header(file)
            self._start = file.tell()
        if len(self.shape) > MOST_DIMENSIONS or min(self.shape, default=0) < 0 or self.dtype.hasobject:
            raise ValueError(f"{short(entry.filename)} must hold plain numbers or text, which need no pickle")
        self._bytes = math.prod(self.shape) * self.dtype.itemsize
        self.size = max(self._bytes, 8 * math.prod(self.shape))
        if entry.file_size != self._start + self._bytes:
            announced = f"{short(entry.filename)} announces {self._bytes} bytes in shape {self.shape}"
            raise ValueError(f"{announced}, of which {max(0, entry.file_size - self._start)} are there")

    def read(self) -> np.ndarray:
        """The array."""
        with self._archive.open(self._entry) as file:
            data = file.read(self._start + self._bytes)
        if len(data) != self._entry.file_size:
            raise ValueError(f"{short(self._entry.filename)} ends after {len(data)} bytes")
        flat: np.ndarray = np.frombuffer(data, self.dtype, math.prod(self.shape), self._start)
        return flat.reshape(self.shape, order="F" if self._fortran else "C")


@contextmanager
def members(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[Mapping[str, Member]]:
    """The arrays of these names by name, to be looked at and read within the block; no pickle is.

    Args:
        path: the file.
        names: that must be there.
        optional: that may be.

    Raises:
        KeyError: one is missing; the block's own too.
        OSError: there is no such file.
        ValueError: no npz file, a broken one, or arrays that are larger than the file has, or than `LARGEST`.
    """
    if check_regular(path) > LARGE:
        raise ValueError(f"longer than {LARGE} bytes")
    try:
        archive = zipfile.ZipFile(path)
    except UNREADABLE as error:
        raise ValueError(str(error)) from error
    with archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        try:
            found = {name: Member(archive, entries[name]) for name in (*names, *optional) if name in entries}
        except UNREADABLE as error:
            raise ValueError(" ".join(str(error).split())) from error
        for name in names:
            if name not in found:
                raise KeyError(name)
        try:
            if sum(member.size for member in found.values()) > LARGEST:
                raise ValueError(f"its arrays are larger than {LARGEST} bytes")
            yield found
        except UNREADABLE as error:
            raise ValueError(" ".join(str(error).split())) from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        return readers[np.lib.format.read_magic(file)](file)
    except Exception as error:  # whatever Python's parser says of what is no header
        raise ValueError(f"an array's header is damaged ({type(error).__name__})") from error
