"""Pickles in the layout of old pandas, written without it."""

import pickle

import numpy as np


class DataFrame:
    """Stands in for the class of that name in pandas.core.frame; pickles by its state."""


class BlockManager:
    """The table's arrays, by blocks of columns of one type."""

    def __init__(self, state: tuple):
        self.state = state

    def __reduce__(self):
        return BlockManager, (), self.state

    def __setstate__(self, state):
        raise AssertionError("the stand-ins are for writing alone")


class Index:
    """Labels of rows or columns."""

    def __init__(self, labels: list):
        self.labels = labels

    def __reduce__(self):
        return _new_Index, (Index, {"data": np.array(self.labels, dtype=object), "name": None})


def _new_Index(kind, content):
    raise AssertionError("the stand-ins are for writing alone")


def pickled(columns: dict[str, list], manager="pandas.core.internals.managers") -> bytes:
    """The columns, of objects, as pandas 0.14.1 to 1.2 pickles a DataFrame, in protocol 2.

    `manager` is the module of BlockManager: pandas.core.internals before 0.24.
    """
    rows = len(next(iter(columns.values())))
    values = np.empty((len(columns), rows), dtype=object)
    for i, cells in enumerate(columns.values()):
        for j, cell in enumerate(cells):
            values[i, j] = cell
    axes = [Index(list(columns)), Index(list(range(rows)))]
    blocks = [{"values": values, "mgr_locs": slice(0, len(columns), 1)}]
    frame = DataFrame()
    frame._data = BlockManager((axes, [values], [axes[0]], {"0.14.1": {"axes": axes, "blocks": blocks}}))
    frame._typ, frame._metadata = "dataframe", []
    written = pickle.dumps(frame, protocol=2)  # which names classes in plain text, without lengths
    homes = {"DataFrame": "pandas.core.frame", "BlockManager": manager}
    for name in ("DataFrame", "BlockManager", "Index", "_new_Index"):
        home = homes.get(name, "pandas.core.indexes.base")
        written = written.replace(f"c{__name__}\n{name}\n".encode(), f"c{home}\n{name}\n".encode())
    return written
