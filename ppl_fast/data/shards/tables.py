"""The images in Parquet files, as Hugging Face's `datasets` writes them; needs pyarrow, of the `shards` extra."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np

from ppl_fast._extras import needing
from ppl_fast.data.shards.storage import BrokenOff, Shard

NAMED = "image"  # the column that is meant where several hold bytes
HELD = 1 << 28  # bytes of row groups that are held for the next rows; one is, however large
OPEN = 32  # files that are kept open


class Table:
    """A Parquet file of images, which is read by row groups: no less can be read of one.

    Args:
        shard: the file. Its images are a column of bytes, or of struct{bytes, path}: `image`, or the only such one.

    Attributes:
        ends: row behind the last of each row group.

    Raises:
        ValueError: no readable Parquet file, or none with such a column.
        ImportError: pyarrow is not installed.
    """

    def __init__(self, shard: Shard):
        with needing("Parquet needs", "shards"):
            import pyarrow
            import pyarrow.parquet
        self._stream = shard.open()
        try:
            self._file = pyarrow.parquet.ParquetFile(self._stream)
            self._column = _column(self._file.schema_arrow)
        except ConnectionError:
            raise
        except (pyarrow.ArrowException, OSError) as error:
            raise BrokenOff(f"{shard.address} is no readable Parquet file: {error}") from error
        except ValueError as error:
            raise ValueError(f"{shard.address}: {error}") from error
        about = self._file.metadata
        self.ends = np.cumsum([about.row_group(i).num_rows for i in range(about.num_row_groups)], dtype=np.int64)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._stream.close()

    def rows(self) -> Iterator[bytes | None]:
        """The images in order; None where there is none, or where its row group is damaged."""
        for group, count in enumerate(np.diff(self.ends, prepend=0)):
            try:
                found = self.group(group)
            except ValueError:
                found = None
            yield from (None if found is None else found[place].as_py() for place in range(int(count)))

    def group(self, number: int) -> Any:
        """The images of a row group, as an array of pyarrow.

        Raises:
            ValueError: it does not decode.
            ConnectionError: it cannot be read.
        """
        import pyarrow

        try:
            column = self._file.read_row_group(number, columns=[self._column]).column(0)
            for part in self._column.split(".")[1:]:
                column = pyarrow.chunked_array([chunk.field(part) for chunk in column.chunks])
            return column
        except ConnectionError:
            raise
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise ValueError(f"row group {number} does not decode: {error}") from error


class Tables:
    """Rows of Parquet files by number, for threads and loading processes.

    The row groups that were asked for last are held, so that rows in order cost one reading each, and rows in any order
    one each time.

    Args:
        shards: of which any may be tables.
    """

    def __init__(self, shards: Sequence[Shard]):
        self._shards, self._lock, self._process = shards, Lock(), -1

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self._shards}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def row(self, shard: int, number: int) -> bytes:
        """One image.

        Raises:
            ValueError: the row holds none, or does not decode.
            ConnectionError: the file cannot be read.
        """
        with self._lock:
            if self._process != os.getpid():  # files are not to be shared by processes
                self._open: OrderedDict[int, Table] = OrderedDict()
                self._held: OrderedDict[tuple[int, int], Any] = OrderedDict()
                self._process = os.getpid()
            table = self._table(shard)
            group = int(np.searchsorted(table.ends, number, side="right"))
            if (shard, group) not in self._held:
                self._held[shard, group] = table.group(group)
                while len(self._held) > 1 and sum(each.nbytes for each in self._held.values()) > HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end((shard, group))
            content = self._held[shard, group][number - (int(table.ends[group - 1]) if group else 0)].as_py()
        if content is None:
            raise ValueError("the row holds no bytes")
        return bytes(content)

    def _table(self, shard: int) -> Table:
        if shard not in self._open:
            self._open[shard] = Table(self._shards[shard])
            if len(self._open) > OPEN:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(shard)
        return self._open[shard]


def _column(schema: Any) -> str:
    """The column of images: `image`, or `image.bytes` of a struct."""
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    found = {}
    for field in schema:
        if is_bytes(field.type):
            found[field.name] = field.name
        elif types.is_struct(field.type) and any(each.name == "bytes" and is_bytes(each.type) for each in field.type):
            found[field.name] = f"{field.name}.bytes"
    if NAMED in found or len(found) == 1:
        return found.get(NAMED) or next(iter(found.values()))
    several = f"several, {', '.join(found)}; name one of them {NAMED}"
    which = several if found else f"none, but {', '.join(schema.names)}"
    raise ValueError(f"expected one column of images (bytes, or struct{{bytes, path}}), got {which}")
