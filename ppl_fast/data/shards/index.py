"""What a shard holds, found by reading it once and kept: where each image lies, and how large it is.

With that, shards are a data set of images by number like any other. Order, flips and references stay what they are for
a folder, a function of seed and step, over all images and not over those in some buffer; a resumed run reads none of
what was seen before; and every process reads no more than its own images. Of two ways to do it, `tarfile` on fsspec
with these few arrays beside it was taken, and not the `webdataset` package, which reads tars as streams: its order
depends on the number of processes, and to resume means to read again. An image takes some 70 bytes of memory
however large it is.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppl_fast._documents import parse_json
from ppl_fast._files import cache_folder, replacing
from ppl_fast.data.image_file import SMALLEST_SIDE, UNREADABLE, upright_size
from ppl_fast.data.npz import members as arrays_of
from ppl_fast.data.shards import tars
from ppl_fast.data.shards.storage import BrokenOff, Shard
from ppl_fast.data.shards.tables import Table

VERSION = 1  # of what is kept
UNUSABLE = (0, 0)


@dataclass(frozen=True)
class Index:
    """The images of a shard, in its order.

    Attributes:
        keys: their names within the shard, as bytes, one behind the other.
        ends: (n,) int64, where in `keys` each ends.
        starts: (n,) int64: in a tar, the first byte of each; in a table, its row.
        lengths: (n,) int64: of each in bytes; 0 in a table.
        sizes: (n, 2) int32, upright (W, H); zeros where an image is not usable, at least not within the usual limits.
        broken: where the shard ends before its end, how; else empty.
    """

    keys: bytes
    ends: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    broken: str = ""


def index_of(shard: Shard) -> Index:
    """The index of a shard: as it is kept in the user's cache, where the shard has not changed since; else made anew.

    Raises:
        ValueError: the shard is no Parquet file with images.
        OSError: it cannot be read.
    """
    place = cache_folder("shards") / f"{hashlib.sha256(_known_as(shard).encode()).hexdigest()[:32]}.npz"
    stamp = f"{VERSION} {shard.stamp()}"
    found = _read(place, stamp)
    if found is None:
        found = _made(shard)
        _keep(place, stamp, found)
    return found


def _known_as(shard: Shard) -> str:
    return shard.address if "://" in shard.address else os.path.abspath(shard.address)


def _made(shard: Shard) -> Index:
    names: list[str | None] = []
    places: list[tuple[int, int]] = []
    sizes: list[tuple[int, int]] = []
    broken = ""
    try:
        for path, place, content in _contents(shard):
            names.append(path)
            places.append(place)
            sizes.append(_size(content))
    except BrokenOff as error:
        broken = str(error)
    if not shard.is_table:
        names = tars.keys([name for name in names if name is not None])
    rows = [row for row, name in enumerate(names) if name is not None]
    keys = [os.fsencode(name) for name in names if name is not None]
    where = np.array(places, np.int64).reshape(-1, 2)[rows]
    return Index(
        keys=b"".join(keys),
        ends=np.cumsum([len(key) for key in keys], dtype=np.int64),
        starts=where[:, 0].copy(),
        lengths=where[:, 1].copy(),
        sizes=np.array(sizes, np.int32).reshape(-1, 2)[rows],
        broken=broken,
    )


def _contents(shard: Shard) -> Iterator[tuple[str, tuple[int, int], bytes | None]]:
    """Path or row of each image, where it lies, and its bytes."""
    if shard.is_table:
        with closing(Table(shard)) as table:
            yield from ((f"{row:06d}", (row, 0), content) for row, content in enumerate(table.rows()))
    else:
        yield from ((each.path, (each.start, each.length), content) for each, content in tars.members(shard))


def _size(content: bytes | None) -> tuple[int, int]:
    try:
        return UNUSABLE if content is None else upright_size(content, SMALLEST_SIDE)
    except UNREADABLE:
        return UNUSABLE  # is looked at again when it is to be used, and then told


def _keep(place: Path, stamp: str, index: Index) -> None:
    about = json.dumps({"stamp": stamp, "broken": index.broken})
    arrays = {name: getattr(index, name) for name in ("ends", "starts", "lengths", "sizes")}
    arrays |= {"about": np.frombuffer(about.encode(), np.uint8), "keys": np.frombuffer(index.keys, np.uint8)}
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
    except OSError:
        return  # a cache that cannot be written costs time


def _read(place: Path, stamp: str) -> Index | None:
    """What is kept, if it is of this state of the shard; None also for a file that is damaged."""
    try:
        with arrays_of(place, ("about", "keys", "ends", "starts", "lengths", "sizes")) as found:
            read = {name: member.read() for name, member in found.items()}
        about = parse_json(read.pop("about").tobytes())
        if about["stamp"] != stamp:
            return None
        index = Index(keys=read.pop("keys").tobytes(), broken=str(about["broken"]), **read)
        count = len(index.ends)
        if not len(index.starts) == len(index.lengths) == len(index.sizes) == count:
            return None
        return index if not count or index.ends[-1] == len(index.keys) else None
    except (OSError, ValueError, LookupError, TypeError):
        return None
