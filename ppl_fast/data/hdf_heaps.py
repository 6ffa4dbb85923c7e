"""Texts of any length in an HDF5 file lie in heaps; the library goes round for ever in one that is damaged.

A global heap collection ("HDF5 File Format Specification", III.E) is a signature, a version, three zeros and its length
in bytes; then objects, each a number (2 bytes), a count (2), four zeros, a length (8) and the content filled up to a
multiple of eight. The object with the number 0 is what is free, its own head included.
"""

import mmap
import struct
from pathlib import Path

HEAD = b"GCOL\x01\x00\x00\x00"
OBJECT = struct.Struct("<HH4xQ")
MOST_OBJECTS = 1 << 22


def check_heaps(path: Path) -> None:
    """Raise a ValueError unless the objects of all heaps in a file, which is not empty, lead to the heaps' ends."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        place, count = raw.find(HEAD), 0
        while place >= 0:
            start = place + len(HEAD) + 8
            end = place + int.from_bytes(raw[place + len(HEAD) : start], "little")
            if not start <= end <= len(raw):
                raise ValueError("a heap of its texts is longer than the file")
            at = start
            while at + OBJECT.size <= end:
                number, _, length = OBJECT.unpack_from(raw, at)
                step = OBJECT.size + -(-length // 8) * 8 if number else length
                count += 1
                if not 0 < step <= end - at or count > MOST_OBJECTS:
                    raise ValueError("a heap of its texts is damaged")
                at += step
            place = raw.find(HEAD, place + 1)
