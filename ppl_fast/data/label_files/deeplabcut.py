"""Labels of DeepLabCut and Lightning Pose: tables `CollectedData*.csv` or `.h5`, and projects that hold some.

Three rows of headings (scorer, bodyparts, coords), or four with individuals, then a row an image. (0, 0) is the centre
of the top left pixel: labels are what napari, DeepLabCut's editor, has as coordinates, whose integers are the centres
of pixels (and before it matplotlib's imshow, which has the same). Lightning Pose takes over DeepLabCut's labels as
they are; its own editor counts percents of the image from the outer edge of the first pixel and so is half a pixel off,
which its files do not tell.
"""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast._documents import LARGE, read_bytes, read_yaml
from ppl_fast._files import readable
from ppl_fast._messages import hint, short
from ppl_fast.data.label_files.pandas_tables import Table, read_hdf
from ppl_fast.data.labels import Labels

FRAMES, VIDEOS = "labeled-data", "videos"  # folders of a project
DRAWN = "_labeled"  # ends the names of folders and videos that DeepLabCut draws labels or predictions into
HEADINGS = ("scorer", "individuals", "bodyparts", "coords")
AXES = ("x", "y")
MOST_COLUMNS = 1 << 16


def tables(root: Path) -> list[Path]:
    """The label tables of a project, or of a folder of it, each once: the .csv file where there is an .h5 beside it."""
    places = (root, *(path for path in (root / FRAMES, root) if path.is_dir()))
    patterns = ("CollectedData*", "*/CollectedData*", "*/CollectedData*")
    found = {
        path
        for place, pattern in zip(places, patterns, strict=False)
        for path in place.glob(pattern)
        if path.suffix.lower() in (".csv", ".h5") and path.is_file()
    }
    whole = {path.with_suffix("") for path in found if path.suffix.lower() == ".csv"}
    return sorted(path for path in found if path.suffix.lower() == ".csv" or path.with_suffix("") not in whole)


def is_project(root: Path) -> bool:
    """Whether a folder is a project of DeepLabCut or Lightning Pose, with its labelled frames in `labeled-data`."""
    return (root / FRAMES).is_dir() and (bool(tables(root)) or (root / "config.yaml").is_file())


def read_project(root: Path, individual: str | None = None) -> Labels:
    """All tables of a project as one, with the skeleton of its config.yaml if there is one; see `read_deeplabcut`."""
    parts = [read_deeplabcut(path, individual) for path in tables(root)]
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    files = [file for part in parts for file in part.files]
    if len(set(files)) < len(files):
        twice = next(file for file in files if files.count(file) > 1)
        raise ValueError(f"load_labels: {root} labels {readable(twice)} in two tables; name one of them as the labels")
    keypoints, row = np.full((len(files), len(names), 2), np.nan), 0
    for part in parts:  # which need not have all joints
        keypoints[row : row + len(part), [names.index(name) for name in part.names]] = part.keypoints
        row += len(part)
    return Labels(files, keypoints, np.isfinite(keypoints).all(axis=2), names, _skeleton(root, names))


def read_deeplabcut(path: Path, individual: str | None = None) -> Labels:
    """Labels of one table.

    Args:
        path: .csv or .h5.
        individual: whose joints to take, where there are several.

    Raises:
        ValueError: no such table, or several individuals and none of this name; the sentence names the file.
        ImportError: h5py is not installed.
    """
    try:
        table = _read_csv(path) if path.suffix.lower() == ".csv" else read_hdf(path)
        if table is None:
            raise ValueError("no table of pandas in it")
        return _labels(table, individual)
    except (OSError, ValueError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"load_labels: {path} is no valid label table: {reason}") from error


def _read_csv(path: Path) -> Table:
    text = read_bytes(path, LARGE).decode("utf-8-sig", "surrogateescape")
    heads: list[list[str]] = []
    rows: list[str] = []
    values: list[list[float]] = []
    try:
        lines = csv.reader(io.StringIO(text, newline=""))
        for line in lines:
            if len(heads) < 4 and line and line[0] in HEADINGS and not rows:
                heads.append(line)
                continue
            if not heads or not any(line):
                continue
            first = _first(heads)
            rows.append("/".join(line[:first]))
            if len(line) != len(heads[0]):
                raise ValueError(f"row {short(rows[-1])} must have {len(heads[0])} cells, got {len(line)}")
            values.append([float(cell) if cell.strip() else np.nan for cell in line[first:]])
    except csv.Error as error:
        raise ValueError(f"no CSV ({error})") from error
    _check_heads(heads)
    first = _first(heads)
    columns = list(zip(*(head[first:] for head in heads), strict=True))
    return Table(columns, rows, np.array(values, dtype=np.float64).reshape(len(rows), len(columns)))


def _check_heads(heads: list[list[str]]) -> None:
    """Refuse headings that are not those of labels."""
    named = tuple(head[0] for head in heads)
    if named not in (HEADINGS, (HEADINGS[0], *HEADINGS[2:])):
        got = short(", ".join(named)) or "none of them"
        raise ValueError(f"expected rows that begin with scorer, (individuals,) bodyparts, coords, got {got}")
    if len(set(map(len, heads))) > 1 or len(heads[0]) > MOST_COLUMNS:
        raise ValueError(f"its rows of headings must have one length of at most {MOST_COLUMNS}")


def _first(heads: list[list[str]]) -> int:
    """The first column with numbers: the name of an image may take several before it."""
    return next((i for i, cell in enumerate(heads[-1]) if i and cell), len(heads[-1]))


def _labels(table: Table, individual: str | None) -> Labels:
    depth = {len(column) for column in table.columns}
    if not depth <= {3, 4} or len(depth) > 1:
        raise ValueError("it must have three rows of headings, or four with individuals")
    scorers = sorted({column[0] for column in table.columns})
    if len(scorers) > 1:
        raise ValueError(f"it must be of one scorer, got {short(', '.join(scorers))}")
    coords = {column[-1] for column in table.columns}
    if coords != set(AXES):
        what = "predictions with a likelihood" if "likelihood" in coords else f"coords {short(sorted(coords))}"
        raise ValueError(f"it must hold labels with the coords x and y, got {what}")
    columns = {column[1:]: place for place, column in enumerate(table.columns)}
    if len(columns) < len(table.columns):
        raise ValueError("its columns must have headings of their own")
    if depth == {4}:
        chosen = choose(individual, list(dict.fromkeys(key[0] for key in columns)))
        columns = {key[1:]: place for key, place in columns.items() if key[0] == chosen}
    elif individual is not None:
        raise ValueError(f"it has no individuals, but {individual!r} is asked for")
    names = list(dict.fromkeys(name for name, _ in columns))
    if len(columns) < 2 * len(names):
        raise ValueError("each of its bodyparts must have an x and a y")
    keypoints = table.values[:, [columns[name, axis] for name in names for axis in AXES]]
    keypoints = keypoints.reshape(len(table.rows), len(names), 2)
    return Labels(table.rows, keypoints, np.isfinite(keypoints).all(axis=2), names, [])


def choose(individual: str | None, there: list[str]) -> str:
    """The individual that is asked for, or the only one that there is.

    Raises:
        ValueError: there is none of that name, or there are several and none is asked for.
    """
    listed = short(", ".join(there))
    if individual is None and len(there) == 1:
        return there[0]
    if individual is None:
        raise ValueError(f"it holds several individuals ({listed}); name the one to take (--individual)")
    if individual not in there:
        known = f"; there are {listed}"
        raise ValueError(f"it holds no individual {individual!r}{hint(individual, there, otherwise=known)}")
    return individual


def _skeleton(root: Path, names: list[str]) -> list[tuple[int, int]]:
    """The bones that the project's config.yaml lists, as far as it can be read; a skeleton is not needed."""
    try:
        config: Any = read_yaml(root / "config.yaml")
        bones = config.get("skeleton") or []
        return [(names.index(i), names.index(j)) for i, j in bones if i in names and j in names]
    except (OSError, ImportError, ValueError, TypeError, AttributeError):
        return []
