"""Boxes of animals in images and frames, from a file: CSV, or COCO's JSON.

A CSV file has the columns `file`, `x`, `y`, `width` and `height`, and may have `frame` and `angle`: the left upper
corner and the size in pixels counted from the outer corner of the first pixel (a whole image of 64 x 48 is 0, 0, 64,
48), as COCO's `bbox` is, and the degrees by which the box is turned about its centre, clockwise to the eye. A row of a
video without a frame is of all its frames.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ppl_fast._documents import LARGE, parse_json, read_bytes
from ppl_fast._files import readable, replacing
from ppl_fast._messages import short
from ppl_fast.data.boxes import Box
from ppl_fast.data.names import pair
from ppl_fast.options.footage import MOVING

COLUMNS = ("file", "frame", "x", "y", "width", "height", "angle")
NEEDED = ("file", "x", "y", "width", "height")


class Row(NamedTuple):
    """A box of an image, of a frame of a video, or where frame is None and file a video, of all its frames."""

    file: str
    frame: int | None
    box: Box


def read_boxes(path: str | os.PathLike[str]) -> list[Row]:
    """The boxes of a .csv or .json file; of several in a COCO image the largest.

    Raises:
        ValueError: no such file, or not of this form; it is named.
    """
    path = Path(path)
    try:
        raw = read_bytes(path, LARGE)
        rows = _coco(parse_json(raw)) if path.suffix.lower() == ".json" else _csv(raw)
        if not rows:
            raise ValueError("it holds no box")
        for row in rows:
            if not (np.isfinite(row.box).all() and row.box[2] > 0 and row.box[3] > 0):
                raise ValueError(f"the box of {short(readable(row.file))} must have a width and a height")
        return rows
    except KeyError as error:
        raise ValueError(f"{path} is no valid file of boxes: it lacks {error}") from error
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, FileNotFoundError):
            reason = f"there is none; the word {MOVING} stands for what moves"
        raise ValueError(f"{path} is no valid file of boxes: {reason}") from error


def write_boxes(path: str | os.PathLike[str], rows: Iterable[Row]) -> None:
    """Write a CSV file that `read_boxes` reads; it takes the place of `path` whole."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, frame, (x, y, width, height, angle) in rows:
            numbers = (x - width / 2, y - height / 2, width, height, np.degrees(angle))
            writer.writerow([readable(name), frame, *(f"{number:.6g}" for number in numbers)])


def matched(
    rows: Sequence[Row], images: Sequence[str], videos: Mapping[str, Path]
) -> tuple[dict[str, Box], dict[str, dict[int | None, Box]]]:
    """Boxes by the name of an image, and by the name of a video and the number of a frame, None for all.

    Names fit as those of labels do (`ppl_fast.data.names`); a frame may also be named `walk.mp4/000012`. Where none
    fits so, boxes may be of a whole project and all else of one folder of it, which must be the only one that fits.
    """
    whole = _matched(rows, images, videos)
    if any(whole):
        return whole
    folders = {str(folder) for row in rows for folder in PurePosixPath(row.file).parents} - {"."}
    for depth in sorted({folder.count("/") for folder in folders}):
        alike = [_below(rows, f"{folder}/") for folder in folders if folder.count("/") == depth]
        fitting = [part for part in (_matched(below, images, videos) for below in alike) if any(part)]
        if fitting:
            return fitting[0] if len(fitting) == 1 else whole
    return whole


def _below(rows: Sequence[Row], folder: str) -> list[Row]:
    return [row._replace(file=row.file.removeprefix(folder)) for row in rows if row.file.startswith(folder)]


def _matched(
    rows: Sequence[Row], images: Sequence[str], videos: Mapping[str, Path]
) -> tuple[dict[str, Box], dict[str, dict[int | None, Box]]]:
    names, there = list(dict.fromkeys(row.file for row in rows)), [*images, *videos]
    found = {names[i]: there[j] for i, j in pair(names, there)}
    of_images: dict[str, Box] = {}
    of_videos: dict[str, dict[int | None, Box]] = {}
    for file, frame, box in rows:
        parent, _, number = file.rpartition("/")
        if file not in found and number.isdecimal() and parent in videos:
            of_videos.setdefault(parent, {})[int(number)] = box
        elif found.get(file) in videos:
            of_videos.setdefault(found[file], {})[frame] = box
        elif file in found:
            of_images[found[file]] = box
    return of_images, of_videos


def _csv(raw: bytes) -> list[Row]:
    lines = csv.DictReader(io.StringIO(raw.decode("utf-8-sig", "surrogateescape"), newline=""))
    if missing := [name for name in NEEDED if name not in (lines.fieldnames or ())]:
        raise ValueError(f"its first row must name the columns {', '.join(NEEDED)}; {', '.join(missing)} is not there")
    rows = []
    for line in lines:
        if None in line.values() or None in line:
            raise ValueError(f"the row of {short(line['file'])} must have {len(lines.fieldnames or ())} cells")
        x, y, width, height = (float(line[name]) for name in NEEDED[1:])
        frame, angle = line.get("frame") or None, float(line.get("angle") or 0)
        rows.append(Row(line["file"], frame and int(frame), _box(x, y, width, height, angle)))
    return rows


def _coco(data: Any) -> list[Row]:
    best: dict[str, list[float]] = {}
    for annotation in data["annotations"]:
        if annotation.get("bbox") and not annotation.get("iscrowd"):
            place, box = str(annotation["image_id"]), [float(number) for number in annotation["bbox"]]
            if len(box) != 4:
                raise ValueError(f"a bbox must be four numbers, got {short(box)}")
            if place not in best or box[2] * box[3] > best[place][2] * best[place][3]:
                best[place] = box
    shown = [image for image in data["images"] if str(image["id"]) in best]
    return [Row(str(image["file_name"]), None, _box(*best[str(image["id"])])) for image in shown]


def _box(x: float, y: float, width: float, height: float, angle: float = 0.0) -> Box:
    return np.array([x + width / 2, y + height / 2, width, height, np.radians(angle)])
