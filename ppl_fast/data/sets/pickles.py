"""Tables pickled by pandas, read without pandas and without running anything.

The unpickler (see `ppl_fast._pickles`) admits the few names that a table of arrays consists of, and for each of them
hands out an inert `_Record` of what it was called with; nothing of NumPy or pandas is called by the file. Arrays
and columns are then built from the records, with their sizes checked.
"""

import io
import math
import re
import reprlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from ppl_fast._documents import LARGE, read_bytes
from ppl_fast._pickles import OUTSIDE, RefusedError, RestrictedUnpickler, refusing, scan

# pandas up to 0.23, from 0.24 on, from 1.3 on and 2; NumPy 1 and 2; protocols 2 to 5.
ADMITTED = {
    "builtins.slice",
    "__builtin__.slice",
    "_codecs.encode",
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "pandas.core.frame.DataFrame",
    "pandas.core.internals.BlockManager",
    "pandas.core.internals.managers.BlockManager",
    "pandas._libs.internals._unpickle_block",
    "pandas.core.indexes.base._new_Index",
    "pandas.core.indexes.base.Index",
    "pandas.core.indexes.range.RangeIndex",
    "pandas.core.indexes.numeric.Int64Index",
}
FOREIGN = OUTSIDE | {"BINPERSID"}
NUMBERS = re.compile("[biuf][1248]|U[0-9]+", re.ASCII)


class _Record:
    """What one call in the pickle was given: the name called, its arguments, and the state set afterwards."""

    __slots__ = ("args", "state")
    name: ClassVar[str]
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> "_Record":
        record = object.__new__(cls)
        record.args, record.state = args, None
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(RestrictedUnpickler):
    def admit(self, module: str, name: str) -> type | None:
        """A class of its own for every mention of an admitted name: what the pickle might do to it ends there."""
        return type(name, (_Record,), {"__slots__": (), "name": name}) if f"{module}.{name}" in ADMITTED else None


def read_table(path: Path, columns: tuple[str, ...]) -> dict[str, list[Any]]:
    """The named columns of a pickled pandas table, or of a pickled dict of sequences.

    Cells are what Python or NumPy had: str, numbers, and float, integer or text arrays.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: anything else, without running any of it; the file is named.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a pickled table")
    with refusing(path, "no pickled table"):
        table = _columns(_load(read_bytes(path, LARGE)))
        missing = [column for column in columns if column not in table]
        if missing:
            raise RefusedError(f"it has no column {missing[0]!r}, only {', '.join(map(reprlib.repr, list(table)[:9]))}")
        found = {column: [_cell(value) for value in table[column]] for column in columns}
        if len({len(values) for values in found.values()}) > 1:
            raise RefusedError("its columns differ in length")
        return found


def _load(data: bytes) -> Any:
    file = io.BytesIO(data)
    scan(file, FOREIGN)
    # latin1 keeps the bytes of arrays that Python 2 pickled.
    return _Unpickler(file, encoding="latin1").load()


def _is(value: Any, *names: str) -> bool:
    return isinstance(value, _Record) and value.name in names


def _columns(table: Any) -> dict[str, Any]:
    """Column name -> its cells, of the record of a DataFrame or of a dict."""
    if isinstance(table, dict):
        return {key: _cell(cells) for key, cells in table.items()}
    if not _is(table, "DataFrame") or not isinstance(table.state, dict):
        raise RefusedError(f"it holds a {getattr(table, 'name', type(table).__name__)} instead of a DataFrame")
    manager: Any = table.state.get("_mgr", table.state.get("_data"))
    if manager.args:  # pandas from 1.3 on: each block as a call with its values and the columns that they are
        blocks, axes = [block.args[:2] for block in manager.args[0]], manager.args[1]
    else:
        state = manager.state[3]["0.14.1"]
        blocks, axes = [(block["values"], block["mgr_locs"]) for block in state["blocks"]], state["axes"]
    if not _is(axes[0], "_new_Index"):
        raise RefusedError("its columns are not named by an Index")
    names = _cell(axes[0].args[1]["data"]).tolist()
    columns: dict[str, Any] = {}
    for values, places in blocks:
        rows = range(*places.args) if _is(places, "slice") else _cell(places)
        columns |= {names[place]: row for place, row in zip(rows, _cell(values), strict=True)}
    return columns


def _cell(value: Any) -> Any:
    """A plain value as it is, the record of an array as the array."""
    if _is(value, "_reconstruct"):
        _, shape, dtype, fortran, data = value.state
        return _array(data, dtype, shape, "F" if fortran else "C")
    if _is(value, "_frombuffer"):
        data, dtype, shape, order = value.args
        return _array(data, dtype, shape, order)
    if isinstance(value, _Record):
        raise RefusedError(f"it has a {value.name} where a value or an array should be")
    return value


def _array(data: Any, dtype: _Record, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    if not _is(dtype, "dtype") or any(type(n) is not int or n < 0 for n in shape):
        raise RefusedError("it builds an array from something else than a dtype and sizes")
    code, byte_order, count = dtype.args[0], dtype.state[1], math.prod(shape)
    if code == "O8":
        flat = np.empty(count, dtype=object) if isinstance(data, list) and len(data) == count else None
        if flat is None:
            raise RefusedError(f"an array of shape {shape} does not have as many values")
        for i, value in enumerate(data):
            flat[i] = value
    elif isinstance(code, str) and NUMBERS.fullmatch(code) and byte_order in ("<", ">", "|"):
        if _is(data, "encode"):  # bytes as protocol 2 writes them
            data = data.args[0]
        data = data.encode("latin1") if isinstance(data, str) else bytes(data)
        kind = np.dtype(byte_order + code)
        if len(data) != count * kind.itemsize:
            raise RefusedError(f"an array of shape {shape} does not have as many bytes")
        flat = np.frombuffer(data, kind)
    else:
        raise RefusedError(f"it has an array of the type {reprlib.repr(code)}")
    return flat.reshape(shape, order=order)
