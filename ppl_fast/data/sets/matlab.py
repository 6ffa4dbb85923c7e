"""Arrays of numbers in MATLAB's files of version 5 to 7, read with every length checked before it is believed.

The format is MathWorks' "MAT-File Format": a header of 128 bytes, then elements of a tag (type, length) and a body; an
element of an array may be compressed as a whole. Of all that it can hold, only real arrays of numbers are read.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ppl_fast._documents import LARGE, read_bytes
from ppl_fast._messages import short

HEADER, TAG = 128, 8  # bytes
LARGEST = 1 << 28  # bytes of an array, and of what a compressed one unpacks to
MOST_DIMENSIONS = 32
MATRIX, COMPRESSED = 14, 15
INT8, INT32, UINT32 = 1, 5, 6
# Type of an element, and class of an array, -> NumPy's type. Arrays may be stored in a smaller type than their class.
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
OTHERS = {1: "cells", 2: "a structure", 3: "an object", 4: "text", 5: "a sparse matrix", 17: "an object"}
COMPLEX = 0x08  # flag


def matlab(path: Path, name: str) -> np.ndarray:
    """The array `name`, of two or more dimensions, of a MATLAB file that `save -v7` or `-v6` wrote.

    Raises:
        ValueError: the file is missing, broken, of another version, or lacks the array; it is named.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected a MATLAB file with {name}")
    data = read_bytes(path, LARGE)
    if data.startswith(b"MATLAB 7.3") or data.startswith(b"\x89HDF"):
        raise ValueError(f"{path}: a MATLAB file of version 7.3, which is not read; save it with -v7")
    try:
        for array in _arrays(data):
            if array.name == name:
                return array.values()
    except (ValueError, struct.error, zlib.error) as error:
        raise ValueError(f"{path}: truncated, or no MATLAB file of version 5 to 7 ({error})") from error
    raise ValueError(f"{path}: expected the array {name}, got none of that name")


class _Array:
    """One array of a file, by the content of its element; its numbers are looked at by `values` alone."""

    def __init__(self, body: memoryview, order: str):
        self._body, self._order = body, order
        kind, flags, at = _element(body, 0, order)
        if kind != UINT32 or len(flags) != 8:
            raise ValueError("an array without flags")
        self._flags = struct.unpack_from(f"{order}I", flags)[0]
        kind, sizes, at = _element(body, at, order)
        if kind != INT32 or len(sizes) % 4 or not 2 <= len(sizes) // 4 <= MOST_DIMENSIONS:
            raise ValueError("an array without dimensions")
        self._shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
        kind, text, self._at = _element(body, at, order)
        if kind != INT8:
            raise ValueError("an array without a name")
        self.name = bytes(text).decode("latin1")

    def values(self) -> np.ndarray:
        """The numbers, in the type of the array's class."""
        kind = self._flags & 0xFF
        if kind not in CLASSES or (self._flags >> 8) & COMPLEX:
            what = "complex numbers" if kind in CLASSES else OTHERS.get(kind, "something else")
            raise ValueError(f"{short(self.name)} must be an array of real numbers, got {what}")
        stored, numbers, _ = _element(self._body, self._at, self._order)
        if stored not in STORED:
            raise ValueError(f"{short(self.name)} is stored as the unknown type {stored}")
        dtype, target = np.dtype(self._order + STORED[stored]), np.dtype(CLASSES[kind])
        if min(self._shape) < 0 or math.prod(self._shape) * dtype.itemsize != len(numbers):
            raise ValueError(f"{short(self.name)} of shape {self._shape} does not have as many numbers")
        if math.prod(self._shape) * target.itemsize > LARGEST:
            raise ValueError(f"{short(self.name)} is larger than {LARGEST} bytes")
        flat = np.frombuffer(numbers, dtype)
        with np.errstate(invalid="ignore"):  # of numbers that do not fit the class: the file's own matter
            return flat.astype(target).reshape(self._shape, order="F")


def _arrays(data: bytes) -> Iterator[_Array]:
    """The arrays of a file in turn, each unpacked when it is reached."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER])
    if order is None or struct.unpack_from(f"{order}H", data, 124)[0] != 0x0100:
        raise ValueError("its header has no version")
    view, at = memoryview(data), HEADER
    while at < len(data):
        kind, body, at = _element(view, at, order, padded=False)
        if kind == COMPRESSED:
            kind, body = _unpacked(body, order)
        if kind == MATRIX:
            yield _Array(body, order)


def _element(view: memoryview, at: int, order: str, padded: bool = True) -> tuple[int, memoryview, int]:
    """Type and body of the element at a place, and the place of the next; compressed ones are not padded."""
    kind, length = struct.unpack_from(f"{order}II", view, at)
    if kind >> 16:  # a small element: length and type in one word, up to four bytes in the other
        kind, length, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + TAG
        if length > 4:
            raise ValueError("a small element of more than 4 bytes")
    else:
        start = at + TAG
        end = start + length + (-length % 8 if padded else 0)
    if start + length > len(view):
        raise ValueError(f"an element of {length} bytes where {len(view) - start} are left")
    return kind, view[start : start + length], end


def _unpacked(packed: memoryview, order: str) -> tuple[int, memoryview]:
    """Type and body of a compressed element, which is unpacked as far as its own tag says and no further."""
    unpacking = zlib.decompressobj()
    tag = unpacking.decompress(packed, TAG)
    kind, length = struct.unpack(f"{order}II", tag)
    if length > LARGEST:
        raise ValueError(f"an array of more than {LARGEST} bytes")
    body = unpacking.decompress(unpacking.unconsumed_tail, length) if length else b""
    if len(body) != length:
        raise ValueError(f"a compressed array of {len(body)} bytes that announces {length}")
    return kind, memoryview(body)
