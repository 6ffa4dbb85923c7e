"""JSON and YAML of anyone's making, read with bounds: on a file's length, on its depth, on what aliases unfold to.

Every reader here raises ValueError alone for a file that is there; the callers put their own words around it.
"""

from __future__ import annotations

import codecs
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ppl_fast._extras import needing

SMALL, LARGE = 1 << 22, 1 << 29  # bytes of a JSON file of options, and of one of labels
SMALL_YAML = 1 << 16  # which is read by a slow parser
DEEPEST = 100  # containers within each other
MAX_PIXELS = 100_000_000  # of an image or frame that is decoded: 300 MB as RGB
LARGEST_UNFOLDED = 10_000  # nodes of a YAML file with every alias written out
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def check_regular(path: str | os.PathLike[str]) -> int:
    """The length in bytes of a regular file, or of the one that a link leads to.

    Opening anything else may wait for ever, or do something: it is not tried.

    Raises:
        OSError: there is none; links that lead in a circle too.
        ValueError: something else has that name.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"not a regular file, but {_KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}")
    return found.st_size


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most `limit` bytes.

    Raises:
        OSError: it cannot be read.
        ValueError: it is longer, or no regular file.
    """
    length = check_regular(path)
    if length > limit:
        raise ValueError(f"{length} bytes long; expected at most {limit}")
    with open(path, "rb") as file:
        return file.read(length)  # given a larger number, it would take as much memory


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text, of bytes in UTF-8, -16 or -32, in which containers lie no deeper than `DEEPEST`.

    Raises:
        ValueError: it is none.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [item for holder in level if isinstance(holder, (list, dict)) for item in _containers(holder)]
        if not level:
            return value
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def read_json(path: Path, limit: int = SMALL) -> Any:
    """The value of a JSON file of at most `limit` bytes; raises as `read_bytes` and `parse_json` do."""
    return parse_json(read_bytes(path, limit))


def read_yaml(path: Path) -> Any:
    """The value of a YAML file of plain types, of at most `SMALL_YAML` bytes.

    Aliases may be used, as far as the file stays small with all of them written out.

    Raises:
        OSError: it cannot be read.
        ValueError: no YAML, or too deep or too large, or a key that stands there twice.
        ImportError: PyYAML is not installed.
    """
    with needing(f"{path} needs", "train"):
        import yaml

    data = read_bytes(path, SMALL_YAML)
    text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"nested deeper than {DEEPEST} levels")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _unfolded(node, {})
        return loader.construct_document(node)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except Exception as error:  # of values that PyYAML cannot convert: !!int "", !!bool x
        raise ValueError(f"a value that does not fit its tag ({type(error).__name__}: {error})") from error


def _containers(holder: list[Any] | dict[str, Any]) -> Iterable[Any]:
    items = holder.values() if isinstance(holder, dict) else holder
    return (item for item in items if isinstance(item, (list, dict)))


def _unfolded(node: Any, known: dict[int, int]) -> int:
    """The number of nodes below one of a YAML graph; `known` has those counted, and 0 for those being counted."""
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("a value that contains itself")
        return known[id(node)]
    known[id(node)] = 0
    inner = [] if isinstance(node.value, str) else node.value
    keys = [item[0].value for item in inner if isinstance(item, tuple) and isinstance(item[0].value, str)]
    if len(set(keys)) < len(keys):  # YAML would take the last, and lose the others without a word
        raise ValueError(f"the key {max(keys, key=keys.count)} stands there twice")
    parts = (part for item in inner for part in (item if isinstance(item, tuple) else (item,)))
    known[id(node)] = count = 1 + sum(_unfolded(part, known) for part in parts)
    if count > LARGEST_UNFOLDED:
        raise ValueError(f"more than {LARGEST_UNFOLDED} values, with its aliases written out")
    return count
