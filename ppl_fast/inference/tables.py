"""Poses as Parquet, a table by columns that large runs are read from in parts (the `parquet` extra)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_fast._extras import needing
from ppl_fast._files import readable, replacing
from ppl_fast.inference.poses import Poses
from ppl_fast.inference.schema import Schema, Write

if TYPE_CHECKING:
    import pyarrow

GROUP = 65_536  # rows, at least, that wait for a group of their own


@contextmanager
def parquet_writer(path: Path, schema: Schema) -> Iterator[Write]:
    """One row a pose, in the columns of `csv_writer`; numbers are float32, times float64, links in the metadata.

    Raises:
        ImportError: pyarrow is not installed.
    """
    with needing("Parquet files need", "parquet"):
        import pyarrow
        from pyarrow import parquet

    waiting: list[pyarrow.Table] = []
    with replacing(path) as temporary:
        writer: parquet.ParquetWriter | None = None

        def flush() -> None:
            nonlocal writer
            rows = pyarrow.concat_tables(waiting)
            waiting.clear()
            writer = writer or parquet.ParquetWriter(temporary, rows.schema, compression="zstd")
            writer.write_table(rows, row_group_size=rows.num_rows)

        def write(poses: Poses) -> None:
            waiting.append(table_of(poses, schema))
            if sum(each.num_rows for each in waiting) >= GROUP:
                flush()

        try:
            yield write
            if waiting:
                flush()
        finally:
            if writer is not None:
                writer.close()


def table_of(poses: Poses, schema: Schema) -> pyarrow.Table:
    """Poses as rows; see `parquet_writer`."""
    import pyarrow

    columns: dict[str, Any] = {"file": pyarrow.array([readable(name) for name in poses.names], pyarrow.string())}
    if schema.moving:
        columns["frame"] = pyarrow.array(poses.frames, pyarrow.int64())
        columns["time"] = pyarrow.array(poses.times, pyarrow.float64())
    each = {"confidence": poses.confidence, "error": poses.expected_error}
    for number, title in enumerate(schema.titles(poses.keypoints.shape[1])):
        columns[f"{title}_x"], columns[f"{title}_y"] = (_numbers(poses.keypoints[:, number, axis]) for axis in (0, 1))
        columns |= {f"{title}_{what}": _numbers(some[:, number]) for what, some in each.items() if some is not None}
        if poses.filled is not None:
            columns[f"{title}_filled"] = pyarrow.array(poses.filled[:, number])
    about = {"links": schema.links.tolist(), "weights": schema.weights.tolist()}
    return pyarrow.table(columns).replace_schema_metadata({"ppl_fast": json.dumps(about)})


def _numbers(values: np.ndarray[Any, Any]) -> pyarrow.Array:
    import pyarrow

    return pyarrow.array(values.astype(np.float32), from_pandas=True)  # which makes NaN null
