"""Tables that pandas wrote to HDF5, in its fixed and its table layout, read without pandas."""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast._pickles import OUTSIDE, RestrictedUnpickler, scan
from ppl_fast.data.hdf import RECORDS, Content, content

MOST_LEVELS, MOST_BLOCKS, MOST_CELLS = 8, 64, 1 << 25
KINDS = {b"frame": "fixed", b"frame_table": "table"}  # pandas' names of its layouts


@dataclass(frozen=True)
class Table:
    """Numbers by rows and columns.

    Attributes:
        columns: the headings of each column, from the top down.
        rows: the name of each row; the parts of a name in levels are joined by slashes.
        values: (rows, columns) float64, NaN where a cell is empty.
    """

    columns: list[tuple[str, ...]]
    rows: list[str]
    values: np.ndarray


def read_hdf(path: Path) -> Table | None:
    """The one table in an HDF5 file, with headings of text; None where the file holds none.

    Raises:
        ValueError: no HDF5 file, a damaged one, or a table of another kind; the file is named.
        ImportError: h5py is not installed.
    """
    with content(path) as found:
        groups = {}
        for name in found.names():
            try:
                kind = found.note(name, "pandas_type")
            except ValueError:
                continue  # no group
            if kind in KINDS:
                groups[name] = KINDS[kind]
        if not groups:
            return None
        if len(groups) > 1:
            raise ValueError(f"expected one table, got {', '.join(sorted(groups))}")
        (name, kind), *_ = groups.items()
        columns, rows, values = (_fixed if kind == "fixed" else _appendable)(found, name)
        if values.shape != (len(rows), len(columns)):
            raise ValueError(f"{name} must have {len(rows)} x {len(columns)} values, got {values.shape}")
        return Table(columns, rows, values)


def _fixed(found: Content, name: str) -> tuple[list[tuple[str, ...]], list[str], np.ndarray]:
    """Columns of one type lie in a block, with their headings beside it."""
    columns, rows = _axis(found, f"{name}/axis0"), ["/".join(parts) for parts in _axis(found, f"{name}/axis1")]
    places = {heading: place for place, heading in enumerate(columns)}
    if len(places) < len(columns):
        raise ValueError("its columns must have headings of their own")
    if len(rows) * len(columns) > MOST_CELLS:
        raise ValueError(f"{name} must have at most {MOST_CELLS} cells, got {len(rows)} x {len(columns)}")
    values = np.full((len(rows), len(columns)), np.nan)
    for number in range(MOST_BLOCKS):
        if f"{name}/block{number}_values" not in found:
            break
        items = _axis(found, f"{name}/block{number}_items")
        block = found.read(f"{name}/block{number}_values")
        if block.shape != (len(rows), len(items)) or not set(items) <= set(columns):
            raise ValueError(f"block {number} must have {len(rows)} x {len(items)} values, got {block.shape}")
        values[:, [places[heading] for heading in items]] = block
    return columns, rows, values


def _axis(found: Content, name: str) -> list[tuple[str, ...]]:
    """Headings of rows or columns: texts, or in levels, each with the texts that there are and their numbers."""
    if name in found:
        return [(text,) for text in found.texts(name)]
    levels = []
    for level in range(MOST_LEVELS):
        if f"{name}_level{level}" not in found:
            break
        texts, codes = np.array([*found.texts(f"{name}_level{level}"), ""]), found.read(f"{name}_label{level}")
        if codes.dtype.kind not in "iu" or codes.ndim != 1 or not ((codes >= -1) & (codes < len(texts))).all():
            raise ValueError(f"{name}_label{level} must number the {len(texts) - 1} texts of its level")
        levels.append(texts[codes].tolist())
    if not levels or len(set(map(len, levels))) > 1:
        raise ValueError(f"{name} must be a list of texts, or levels of one length")
    return list(zip(*levels, strict=True))


class _Plain(RestrictedUnpickler):
    """Lists, tuples and texts have no names to look up."""

    def admit(self, module: str, name: str) -> Any:
        """None."""
        return None


def _appendable(found: Content, name: str) -> tuple[list[tuple[str, ...]], list[str], np.ndarray]:
    """Rows are records of a name and all numbers; pandas pickles the headings into an attribute."""
    raw = found.note(name, "non_index_axes")
    try:
        file = io.BytesIO(raw)
        scan(file, OUTSIDE | {"BINPERSID", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ"})
        ((_, headings),) = _Plain(file, encoding="utf-8").load()
        columns = [tuple(map(_text, heading if isinstance(heading, tuple) else (heading,))) for heading in headings]
    except Exception as error:  # a broken pickle can raise anything
        raise ValueError("its headings are damaged, or no texts") from error
    records = found.read(f"{name}/table", RECORDS)
    blocks = [field for field in records.dtype.names or () if re.fullmatch(r"values_block_\d+", field)]
    if blocks != ["values_block_0"] or records.ndim != 1 or records["index"].dtype.kind != "S":
        raise ValueError(f"{name} must have rows named by texts, and numbers of one type")
    rows = [bytes(row).decode("utf-8", "surrogateescape") for row in records["index"]]
    values = records["values_block_0"]
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold numbers, got {values.dtype}")
    return columns, rows, values.reshape(len(rows), -1).astype(np.float64)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value
