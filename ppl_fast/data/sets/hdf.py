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

from ppl_fast._documents import check_regular
from ppl_fast._extras import needing
from ppl_fast._pickles import short

LARGEST_CHUNK = 1 << 28  # bytes, which reading any of it takes
SHOWN = 12  # names of arrays in an error


class MissingError(ValueError):
    """A file lacks an array; `found` are the names that it has."""

    def __init__(self, found: list[str]):
        super().__init__("an array is missing")
        self.found = found


@contextmanager
def opened(file: Path, name: str) -> Iterator[Any]:
    """The array `name` of an HDF5 file, as an h5py data set that can be read.

    Raises:
        MissingError: there is nothing of that name.
        ValueError: no HDF5 file, a damaged one, or an array that is refused; the file is named.
        ImportError: h5py is not installed.
    """
    with needing(f"{file} needs", "data"):
        import h5py
    try:
        check_regular(file)
        with h5py.File(file, "r") as content:
            found = _array(content, name)
            if reason := _refusal(found):
                raise ValueError(f"refused: {short(name)} {reason}")
            yield found
    except MissingError:
        raise
    except ValueError as error:
        message = " ".join(str(error).split())
        raise ValueError(message if message.startswith(f"{file}: ") else f"{file}: {message}") from error
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        # h5py has no error of its own for what is damaged within.
        raise ValueError(f"{file}: truncated, or no HDF5 file ({' '.join(str(error).split())})") from error


def _array(content: Any, name: str) -> Any:
    """The data set of a name, by a hard link alone."""
    import h5py

    key = name.encode()
    if not content.id.links.exists(key):
        found = [short(found) for found, _ in zip(content, range(SHOWN), strict=False)]
        if name in found:
            raise ValueError("truncated, or no HDF5 file (its list of arrays is damaged)")
        raise MissingError(found)
    if content.id.links.get_info(key).type != h5py.h5l.TYPE_HARD:
        raise ValueError(f"refused: {short(name)} is a link to something else")
    if h5py.h5o.get_info(content.id, key).type != h5py.h5o.TYPE_DATASET:
        raise ValueError(f"{short(name)} must be an array, got a group or a type")
    return h5py.Dataset(h5py.h5d.open(content.id, key))


def _refusal(array: Any) -> str:
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
    if array.id.get_space().get_simple_extent_type() != h5s.SIMPLE or not array.ndim or array.dtype.kind not in "biuf":
        return f"must hold plain numbers, got {short(kind.dtype if array.ndim else 'none')}"
    return _shortage(array, plist)


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
