"""Resized images that are kept: in memory, or in a file that runs and processes share."""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import torch

from ppl_fast._console import say
from ppl_fast._documents import parse_json
from ppl_fast._files import replacing

MAGIC = b"ppl_fast"
_END = struct.Struct("<Q8s")  # bytes of the notes before it, and MAGIC
_DAMAGED = (OSError, ValueError, LookupError, TypeError, struct.error)  # of a file that is none of ours, or gone

Outcome: TypeAlias = tuple[int, int] | str  # of an image: (W, H), or the reason why it cannot be used
Put: TypeAlias = Callable[[int, torch.Tensor], None]
Look: TypeAlias = Callable[[Put | None], list[Outcome]]


class MemoryCache:
    """In memory, as long as the data set is there.

    Args:
        count: images.
        size: S, of each.
    """

    def __init__(self, count: int, size: int):
        self._pixels = torch.empty((count, 3, size, size), dtype=torch.uint8)

    def filled(self, look: Look) -> list[Outcome]:
        """What `look` gives; it puts each image, by its number."""
        return look(self._pixels.__setitem__)

    def keep(self, rows: list[int]) -> None:
        """Forget all images but these, which take the numbers from 0 on."""
        self._pixels = self._pixels[rows]

    def __getitem__(self, row: int) -> torch.Tensor:
        return self._pixels[row]


class DiskCache:
    """In one file, which is whole or not there, and which every process maps: memory is shared, and taken as needed.

    It holds the pixels, image by image; then `sizes`, int32 (n, 2), zeros where an image cannot be used; notes in JSON;
    and the length of these. A file of another state of the images is replaced.

    Args:
        path: of the file.
        state: a digest of all that the pixels depend on.
        count: images, unusable ones too.
        size: S, of each.
    """

    def __init__(self, path: Path, state: str, count: int, size: int):
        self.path, self._state, self._shape = path, state, (count, 3, size, size)
        self._rows: np.ndarray | None = None  # of the file, of the images that are used
        self._map: np.ndarray | None = None
        self.usable = True

    def filled(self, look: Look) -> list[Outcome]:
        """What `look` gave when the file was written, or, where there is none of this state, gives now.

        Where the file cannot be written, a line says so, and the cache is not `usable`.
        """
        with suppress(*_DAMAGED):
            return self._read()
        outcomes: list[Outcome] | None = None
        failed: OSError | None = None
        try:
            self._check_room()
            with replacing(self.path) as temporary, open(temporary, "wb") as file:
                pen = _Pen(file, self._shape)
                try:
                    outcomes = look(pen.put)
                except OSError as error:
                    failed = error
                    raise
                pen.finish(outcomes, self._state)
            return self._read()
        except OSError as error:
            if error is failed:
                raise
            self.usable = False
            say(f"note: resized images are not kept: {self.path}: {error.strerror or error}")
            return look(None) if outcomes is None else outcomes

    def keep(self, rows: list[int]) -> None:
        """As `MemoryCache.keep`; the file stays as it is."""
        self._rows = np.asarray(rows, np.int64)

    def __getitem__(self, row: int) -> torch.Tensor:
        if self._map is None:
            try:
                self._read()
            except _DAMAGED as error:
                raise ValueError(f"{self.path} was replaced or removed meanwhile; start again") from error
        assert self._map is not None
        return torch.from_numpy(np.array(self._map[row if self._rows is None else self._rows[row]]))

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which maps the file itself."""
        return self.__dict__ | {"_map": None}

    def _check_room(self) -> None:
        """Say how large the file will be.

        Raises:
            OSError: there is no room for it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        needed, free = self._bytes(), shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"it would take {_amount(needed)}, of which {_amount(free)} are free")
        say(f"resized images are kept in {self.path}: {_amount(needed)}")

    def _bytes(self) -> int:
        return int(np.prod(self._shape, dtype=np.int64))

    def _read(self) -> list[Outcome]:
        """Map the file; gives what was said of each image."""
        count = self._shape[0]
        with open(self.path, "rb") as file:
            end = file.seek(-_END.size, 2)
            length, magic = _END.unpack(file.read(_END.size))
            if magic != MAGIC or end != self._bytes() + 8 * count + length:
                raise ValueError("no whole file of this many images")
            file.seek(self._bytes())
            sizes = np.frombuffer(file.read(8 * count), np.int32).reshape(count, 2)
            notes = parse_json(file.read(length))
            if notes["state"] != self._state:
                raise ValueError("of another state of the images")
            self._map = np.memmap(file, np.uint8, "r", shape=self._shape)
        reasons = {int(row): str(reason) for row, reason in notes["reasons"].items()}
        known: dict[tuple[int, int], tuple[int, int]] = {}
        pairs = ((width, height) for width, height in sizes.tolist())
        return [reasons[row] if row in reasons else known.setdefault(pair, pair) for row, pair in enumerate(pairs)]


class _Pen:
    """Writes a file of `DiskCache`; from the first error on it writes no more, and raises it at the end."""

    def __init__(self, file: Any, shape: tuple[int, ...]):
        self._file, self._shape, self._lock = file, shape, Lock()
        self._failed: OSError | None = None

    def put(self, row: int, pixels: torch.Tensor) -> None:
        """Write an image in its place."""
        with self._lock:
            if self._failed is None:
                try:  # a full disk would end the process where it is written through a map
                    self._file.seek(row * pixels.numel())
                    self._file.write(pixels.numpy().tobytes())
                except OSError as error:
                    self._failed = error

    def finish(self, outcomes: list[Outcome], state: str) -> None:
        """Write what belongs behind the images."""
        if self._failed is not None:
            raise self._failed
        sizes = np.array([(0, 0) if isinstance(each, str) else each for each in outcomes], np.int32)
        reasons = {row: each for row, each in enumerate(outcomes) if isinstance(each, str)}
        notes = json.dumps({"state": state, "reasons": reasons}).encode()
        self._file.seek(int(np.prod(self._shape, dtype=np.int64)))
        self._file.write(sizes.tobytes() + notes + _END.pack(len(notes), MAGIC))
        self._file.flush()
        os.fsync(self._file.fileno())  # before it gets its name, so that a power cut leaves no file of zeros


def _amount(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
