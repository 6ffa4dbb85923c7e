"""The two file formats of `torch.save`: the zip archive, and the stream of pickles before torch 1.6."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from ppl_fast._documents import read_bytes
from ppl_fast._messages import short
from ppl_fast._pickles import RefusedError, refusing
from ppl_fast.published import pickles
from ppl_fast.published.pickles import Held

LONGEST = 1 << 33  # bytes of a stream, which is read whole
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # what the stream starts with


def read(path: str | os.PathLike[str]) -> Any:
    """What a checkpoint holds, as `pickles.load` gives it, with the tensors on the CPU.

    Nothing in the file is run, and no more memory is taken for tensors than the file is long.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: something is refused or broken; the sentence names it and the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a checkpoint of the published code")
    with refusing(path, "not a checkpoint written by torch.save"):
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        return _read_zip(path) if zipped else _read_stream(read_bytes(path, LONGEST))


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        folder = next(name for name in entries if name.endswith("/data.pkl")).removesuffix("data.pkl")

        def content(name: str) -> bytes:
            entry = entries[folder + name]
            if entry.compress_type != zipfile.ZIP_STORED:
                raise RefusedError(f"its entry {short(name)} is compressed, which torch.save does not do")
            return archive.read(entry)

        if folder + "byteorder" in entries and content("byteorder") != b"little":
            raise RefusedError("it was written on a big-endian machine")
        storages, budget = {}, _Budget(path.stat().st_size)

        def storage(dtype: torch.dtype, key: str, count: int) -> Held:
            if key not in storages:
                budget.take(count * dtype.itemsize)
                data = bytearray(content(f"data/{key}"))
                if len(data) != count * dtype.itemsize:
                    raise RefusedError(f"storage {short(key)} claims {count} elements but has {len(data)} bytes")
                storages[key] = Held(torch.frombuffer(data, dtype=dtype) if count else torch.empty(0, dtype=dtype))
            return storages[key]

        return pickles.load(io.BytesIO(content("data.pkl")), storage)


def _read_stream(data: bytes) -> Any:
    """Pickles of magic number, version and system; the object; the storages' keys; the storages in that order."""
    file = io.BytesIO(data)
    if pickles.load(file) != MAGIC or pickles.load(file) != PROTOCOL:
        raise ValueError("no magic number")
    pickles.load(file)
    storages, budget = {}, _Budget(len(data))

    def storage(dtype: torch.dtype, key: str, count: int) -> Held:
        if key not in storages:
            budget.take(count * dtype.itemsize)
            storages[key] = Held(torch.zeros(count, dtype=dtype))
        return storages[key]

    found = pickles.load(file, storage)
    keys = pickles.load(file)
    if sorted(keys) != sorted(storages):
        raise ValueError("its storages are not those of its tensors")
    for key in keys:
        target = storages[key].tensor
        count, raw = int.from_bytes(file.read(8), "little"), file.read(target.nbytes)
        if count != len(target) or len(raw) != target.nbytes:
            raise ValueError(f"storage {key} must have {len(target)} elements")
        if count:
            target.copy_(torch.frombuffer(bytearray(raw), dtype=target.dtype))
    return found


class _Budget:
    """Refuses a claim of storage before memory is taken for it."""

    def __init__(self, size: int):
        self.left = size

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise RefusedError("its storages claim more bytes than the file has")
