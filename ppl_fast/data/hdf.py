"""Arrays of an HDF5 file, opened with everything refused that leads out of the file or unfolds beyond it.

An HDF5 file may name others (external links, external storage, virtual sets), have links in circles, ask for filters
that are libraries to load, and announce arrays that it does not hold. A plain array needs none of these.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast._documents import check_regular
from ppl_fast._extras import needing
from ppl_fast._messages import short
from ppl_fast.data.hdf_heaps import check_heaps

LARGEST_CHUNK = 1 << 28  # bytes, which reading any of it takes
LARGEST_READ = 1 << 29  # bytes of an array that is read whole
LARGEST_NOTE = 1 << 24  # bytes of an attribute
MOST_TEXTS = 1 << 20  # in an array of them
SHOWN = 12  # names of arrays in an error
# Kinds of elements, by NumPy's letters, and of its objects: O texts, R runs of bytes.
NUMBERS, RECORDS, TEXTS, RUNS = "biuf", "biufSV", "SO", "iuR"


class MissingError(ValueError):
    """A file lacks an array; `found` are the names that it has."""

    def __init__(self, found: list[str]):
        super().__init__("an array is missing")
        self.found = found


class Content:
    """An open HDF5 file. Names may lead through groups, `group/array`; each part must be a hard link."""

    def __init__(self, file: Any):
        self._file, self._heaps_hold = file, False

    def names(self) -> list[str]:
        """The first of what the file has at its top, in the order of the letters."""
        return [short(name) for name, _ in zip(self._file, range(MOST_TEXTS), strict=False)]

    def __contains__(self, name: str) -> bool:
        try:
            self._found(name)
        except MissingError:
            return False
        return True

    def array(self, name: str, kinds: str = NUMBERS, scalar: bool = False) -> Any:
        """An h5py data set whose elements are of `kinds`, that can be read; `scalar`: of no dimension."""
        import h5py

        where, kind = self._found(name)
        if kind != h5py.h5o.TYPE_DATASET:
            raise ValueError(f"{short(name)} must be an array, got a group or a type")
        found = h5py.Dataset(h5py.h5d.open(where, name.rpartition("/")[2].encode()))
        if reason := _refusal(found, kinds, scalar):
            raise ValueError(f"refused: {short(name)} {reason}")
        if found.dtype.kind == "O" and not self._heaps_hold:
            check_heaps(Path(self._file.filename))
            self._heaps_hold = True
        return found

    def read(self, name: str, kinds: str = NUMBERS) -> np.ndarray:
        """All of an array of at most `LARGEST_READ` bytes."""
        found = self.array(name, kinds)
        if found.dtype.itemsize * found.size > LARGEST_READ:
            raise ValueError(f"{short(name)} must hold at most {LARGEST_READ} bytes, got shape {found.shape}")
        return np.asarray(found[...])

    def texts(self, name: str) -> list[str]:
        """The elements of an array of texts in one dimension; bytes that are no UTF-8 as Python has them in names."""
        found = self.array(name, TEXTS)
        if found.ndim != 1 or len(found) > MOST_TEXTS:
            raise ValueError(f"{short(name)} must be a list of at most {MOST_TEXTS} texts, got shape {found.shape}")
        return [bytes(text).decode("utf-8", "surrogateescape") for text in self.read(name, TEXTS)]

    def text(self, name: str) -> str:
        """The one text that a data set of no dimension holds."""
        found = self.array(name, TEXTS, scalar=True)
        return bytes(np.asarray(found[()]).item()).decode("utf-8", "surrogateescape")

    def note(self, owner: str, name: str) -> Any:
        """The number, bytes or text of an attribute of a group or array; None where there is none."""
        import h5py

        place, kind = self._found(owner)
        key = owner.rpartition("/")[2].encode()
        if kind == h5py.h5o.TYPE_GROUP:
            notes = h5py.Group(h5py.h5g.open(place, key)).attrs
        else:
            notes = self.array(owner, RECORDS + RUNS).attrs
        if name not in notes:
            return None
        found = notes.get_id(name)
        if found.shape != () or found.dtype.itemsize > LARGEST_NOTE or not _plain(found.dtype, NUMBERS + TEXTS):
            raise ValueError(f"{short(name)} of {short(owner)} must be one number or short text")
        value = notes[name]
        return value if isinstance(value, str) else value.item()

    def _found(self, name: str) -> tuple[Any, int]:
        """The group that holds an object, and the object's type."""
        import h5py

        where, parts = self._file.id, name.split("/")
        for place, part in enumerate(parts):
            key = part.encode()
            if not where.links.exists(key):
                found = [short(found) for found, _ in zip(h5py.Group(where), range(SHOWN), strict=False)]
                if part in found:
                    raise ValueError("truncated, or no HDF5 file (its list of arrays is damaged)")
                raise MissingError(found)
            if where.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise ValueError(f"refused: {short(name)} is a link to something else")
            kind = h5py.h5o.get_info(where, key).type
            if place + 1 < len(parts):
                if kind != h5py.h5o.TYPE_GROUP:
                    raise ValueError(f"{short(part)} must be a group, got something else")
                where = h5py.h5g.open(where, key)
        return where, kind


@contextmanager
def content(file: Path) -> Iterator[Content]:
    """What an HDF5 file holds.

    Raises:
        MissingError: there is nothing of a name that is asked for.
        ValueError: no HDF5 file, a damaged one, or an array that is refused; the file is named.
        ImportError: h5py is not installed.
    """
    with needing(f"{file} needs", "data"):
        import h5py
    try:
        check_regular(file)
        with h5py.File(file, "r") as found:
            yield Content(found)
    except MissingError:
        raise
    except ValueError as error:
        message = " ".join(str(error).split())
        raise ValueError(message if message.startswith(f"{file}: ") else f"{file}: {message}") from error
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, MemoryError) as error:
        # h5py has no error of its own for what is damaged within.
        raise ValueError(f"{file}: truncated, or no HDF5 file ({' '.join(str(error).split())})") from error


@contextmanager
def opened(file: Path, name: str) -> Iterator[Any]:
    """The array of numbers `name` of an HDF5 file, as an h5py data set that can be read; errors are `content`'s."""
    with content(file) as found:
        yield found.array(name)


def _refusal(array: Any, kinds: str, scalar: bool) -> str:
    """Why a data set is not to be read; nothing where it may be."""
    from h5py import h5d, h5s, h5z

    plist, kind = array.id.get_create_plist(), array.id.get_type()
    harmless = {h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF}
    filters = {plist.get_filter(number)[0] for number in range(plist.get_nfilters())}
    if plist.get_external_count():
        return "lies in another file"
    if plist.get_layout() not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
        return "is a virtual set, which lies in other files"
    if filters - harmless:
        return f"needs the filter {min(filters - harmless)}, which is none of HDF5's own that are lossless"
    extent = array.id.get_space().get_simple_extent_type()
    if extent != (h5s.SCALAR if scalar else h5s.SIMPLE) or not _plain(array.dtype, kinds):
        expected = "texts" if kinds == TEXTS else "plain numbers"
        return f"must hold {expected}, got {short(kind.dtype if array.ndim else 'none')}"
    return _shortage(array, plist)


def _plain(kind: np.dtype, kinds: str) -> bool:
    """Whether elements are of these kinds, those of records too; an object must be a text, or a run."""
    import h5py

    if kind.kind == "O":
        run = h5py.check_vlen_dtype(kind)
        if run is not None and "R" in kinds:
            return isinstance(run, np.dtype) and run.kind in "iu" and run.itemsize == 1
        return "O" in kinds and h5py.check_string_dtype(kind) is not None
    if kind.subdtype is not None:
        return _plain(kind.subdtype[0], kinds)
    if kind.fields is not None:
        return "V" in kinds and all(_plain(part[0], kinds.replace("V", "")) for part in kind.fields.values())
    return kind.kind in kinds.replace("V", "")


def _shortage(array: Any, plist: Any) -> str:
    """What an array announces and the file does not hold."""
    from h5py import h5d

    size, item = math.prod(array.shape), array.dtype.itemsize
    if plist.get_layout() != h5d.CHUNKED:
        held = array.id.get_storage_size()
        return "" if held >= size * item else f"announces {size * item} bytes, of which the file holds {held}"
    if math.prod(array.chunks) * item > LARGEST_CHUNK:
        return f"is stored in pieces of {math.prod(array.chunks) * item} bytes, more than {LARGEST_CHUNK}"
    expected = math.prod(-(-length // piece) for length, piece in zip(array.shape, array.chunks, strict=True))
    held = array.id.get_num_chunks()
    return "" if held >= expected else f"announces {expected} pieces, of which the file holds {held}"
