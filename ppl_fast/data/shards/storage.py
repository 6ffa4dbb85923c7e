"""Where shards lie, on this machine or elsewhere: files by fsspec, and what folders, patterns and addresses name."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ppl_fast._documents import check_regular
from ppl_fast._extras import needing
from ppl_fast.data.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SUFFIXES = (".tar", ".parquet")
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MOST = 1 << 20  # shards that a pattern may name
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
# What tells one state of a file from another, besides its size; storages differ in which they have.
_DATES = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "md5Hash", "created")


class BrokenOff(ValueError):
    """A shard ends before its end, or is none."""


class Shard:
    """A file of many images.

    Args:
        name: by which the names of its images begin, and which no other shard has.
        address: a path, or an address that fsspec knows, such as s3://bucket/train-0000.tar.

    Raises:
        ValueError: the storage is none that fsspec knows.
        ImportError: it needs a package that is not installed.
    """

    def __init__(self, name: str, address: str):
        self.name, self.address = name, address
        self._system, self._path = _reached(address)
        self._process = os.getpid()

    @property
    def is_table(self) -> bool:
        """Whether it is Parquet; else it is a tar."""
        return self.address.endswith(".parquet")

    def length(self) -> int:
        """In bytes."""
        return int(self._info()["size"])

    def together(self, wanted: Sequence[tuple[Shard, int, int]]) -> list[bytes | None]:
        """Some bytes, (start, length), of each of several shards of this one's storage, asked for all at once.

        None in the place of those that do not come; reading them alone tells why.
        """
        paths, starts, ends = [], [], []
        for shard, start, length in wanted:
            paths.append(shard._path)
            starts.append(start)
            ends.append(start + length)
        with self.blamed():
            found = self._files().cat_ranges(paths, starts, ends, on_error="return")
        return [bytes(each) if isinstance(each, bytes | bytearray) else None for each in found]

    @property
    def is_far(self) -> bool:
        """Whether reading it means to ask another machine, and several requests may be on their way."""
        return bool(getattr(self._system, "async_impl", False))

    def stamp(self) -> str:
        """Size and date, by which it is taken for the same as before."""
        info = self._info()
        return f"{info['size']} {next((info[key] for key in _DATES if info.get(key) is not None), '')}"

    def open(self) -> BinaryIO:
        """From its beginning."""
        with self.blamed():
            return cast(BinaryIO, _File(self, self._files().open(self._path, "rb"), self.length()))

    def read(self, start: int, length: int) -> bytes:
        """Some bytes, fewer where it ends before."""
        with self.blamed():
            return bytes(self._files().cat_file(self._path, start=start, end=start + length))

    def _info(self) -> dict[str, Any]:
        with self.blamed():
            if "://" not in self.address:
                check_regular(self.address)
            info = dict(self._files().info(self._path))
            if info.get("size") is None:
                raise ValueError("its storage does not tell how long it is")
            return info

    def _files(self) -> AbstractFileSystem:
        """The file system, in a forked process one of its own: connections are not to be shared."""
        if self._process != os.getpid():
            system = self._system
            self._system = type(system)(*system.storage_args, **system.storage_options)
            self._process = os.getpid()
        return self._system

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Errors of storages, which each have their own, as one that is not taken for a damaged image."""
        try:
            yield
        except Exception as error:
            missing = isinstance(error, FileNotFoundError)
            state = "is missing" if missing else f"cannot be read: {_words(error)}"
            raise ConnectionError(f"the shard {self.address} {state}") from error


class _File(io.BufferedIOBase):
    """A shard's file, of which no more is asked for than there is: a damaged header may ask for anything."""

    def __init__(self, shard: Shard, file: BinaryIO, length: int):
        self._shard, self._file, self._length = shard, file, length

    def read(self, size: int | None = -1) -> bytes:
        """At most `size` bytes."""
        with self._shard.blamed():
            left = max(0, self._length - self._file.tell())
            return self._file.read(left if size is None or size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position."""
        place = offset + (0, self._file.tell(), self._length)[whence]
        return self._file.seek(min(max(place, 0), self._length))

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def find_shards(spec: str | os.PathLike[str]) -> list[Shard] | None:
    """The shards that are meant, in order; None where images in files are.

    Args:
        spec: a .tar or .parquet; a folder of them, searched recursively, without any images or videos; both here or at
            an address that fsspec knows; or a pattern of either, `train-{0000..0099}.tar`, `{a,b}/*.tar`.

    Raises:
        FileNotFoundError: a pattern or an address without any.
        ValueError: a compressed tar, an unknown kind of storage, or a pattern of too many.
        ImportError: a package that the storage needs is not installed.
        ConnectionError: a folder elsewhere cannot be listed.
    """
    text = os.fspath(spec)
    if "://" not in text and os.path.exists(text):
        if os.path.isfile(text):
            return [Shard(os.path.basename(text), text)] if text.endswith(SUFFIXES) else None
        names = sorted(_in_folder(Path(text)))
        return [Shard(name, os.path.join(text, name)) for name in names] or None
    if text.lower().endswith(COMPRESSED):
        raise ValueError(f"{text}: compressed tars have to be read from their beginning; unpack it to a .tar")
    if "://" not in text and not text.endswith(SUFFIXES):
        return None
    found = [address for each in _alternatives(text) for address in _listed(each)]
    if not found:
        raise FileNotFoundError(f"{text}: expected shards, {' or '.join(SUFFIXES)}, got none")
    start = len(os.path.commonprefix([address.rpartition("/")[0].split("/") for address in found]))
    return [Shard("/".join(address.split("/")[start:]), address) for address in dict.fromkeys(found)]


def _in_folder(folder: Path) -> list[str]:
    """Relative paths of the shards in a folder; none where there is an image or a video, which ends the search."""
    found: list[str] = []
    for place, below, files in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if suffix in IMAGE_SUFFIXES or suffix in VIDEO_SUFFIXES:
                return []
            if suffix in SUFFIXES:
                found.append(Path(place, name).relative_to(folder).as_posix())
    return found


def _alternatives(pattern: str) -> list[str]:
    """A pattern as a shell unfolds its braces: {0000..0099}, with the zeros, and {a,b}."""
    braces = _BRACES.search(pattern)
    if braces is None:
        return [pattern]
    if span := _RANGE.fullmatch(braces[1]):
        first, last = int(span[1]), int(span[2])
        if abs(last - first) >= MOST:
            raise ValueError(f"{pattern} names more than {MOST} shards")
        width = max(map(len, span.groups())) if any(each.startswith("0") for each in span.groups()) else 0
        step = 1 if first <= last else -1
        parts = [f"{number:0{width}d}" for number in range(first, last + step, step)]
    else:
        parts = braces[1].split(",")
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [each for part in parts for each in _alternatives(f"{before}{part}{after}")]


def _listed(address: str) -> list[str]:
    """The shards that an address without braces names: itself, those that fit its stars, or those in the folder."""
    if address.endswith(SUFFIXES) and not set("*?[") & set(address):
        return [address]
    system, path = _reached(address)
    try:
        found = system.glob(path) if set("*?[") & set(path) else system.find(path)
    except Exception as error:
        raise ConnectionError(f"{address} cannot be listed: {_words(error)}") from error
    names = sorted(name for name in found if name.endswith(SUFFIXES))
    return [system.unstrip_protocol(name) if "://" in address else name for name in names]


def _reached(address: str) -> tuple[AbstractFileSystem, str]:
    with needing("shards need", "shards"):
        from fsspec.core import url_to_fs
    try:
        system, path = url_to_fs(address)
    except ValueError as error:
        raise ValueError(f"{address}: {_words(error)}") from error
    except ImportError as error:
        raise ImportError(f"{address} needs a package that is not installed: {_words(error)}") from error
    return system, path


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
