"""Poses as CSV and COCO keypoint JSON: all at once, or part by part as they come, which takes no memory for them."""

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from ppl_fast._files import readable, replacing

NOTHING: Mapping[str, Any] = {}


def write_csv(
    path: str | os.PathLike[str],
    files: Sequence[str],
    keypoints: Any,
    names: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    r"""Write one row an image: file, further columns, then x and y of every keypoint in pixels of the original.

    Args:
        path: the file to write, replaced whole.
        files: n names; bytes that are no UTF-8, as Linux has them in old names, are written as `\xe9`.
        keypoints: (n, N, 2), (x, y) in pixels of the originals; NaN leaves a cell empty.
        names: N keypoint names; keypoint_00, keypoint_01, ... by default.
        columns: name to n values, such as the frame in a video; None leaves a cell empty.
    """
    with csv_file(path, names, caller="write_csv") as append:
        append(files, keypoints, columns or {})


@contextmanager
def csv_file(
    path: str | os.PathLike[str], names: Sequence[str] | None = None, caller: str = "csv_file"
) -> Iterator[Callable[..., None]]:
    """A function `append(files, keypoints, columns, also={})` that adds rows as `write_csv` takes them.

    `also` has further numbers of every keypoint, (n, N) each, that follow its x and y; NaN leaves a cell empty, and of
    bool, 1 or 0 stands there.

    Args:
        path: the file to write, replaced whole when the block ends well.
        names: N keypoint names; keypoint_00, keypoint_01, ... by default.
        caller: for the messages of `append`.
    """
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")

        def append(
            files: Sequence[str],
            keypoints: Any,
            columns: Mapping[str, Sequence[Any]],
            also: Mapping[str, Any] = NOTHING,
        ) -> None:
            nonlocal names
            first = file.tell() == 0
            keypoints, names = _checked(caller, files, keypoints, names)
            if first:
                writer.writerow(["file", *columns, *(f"{name}_{what}" for name in names for what in ("x", "y", *also))])
            more = [np.asarray(each)[..., None] for each in also.values()]
            numbers = np.concatenate([keypoints, *more], axis=2)
            digits = [".3f", ".3f", *(".0f" if each.dtype == bool else ".3f" for each in more)] * numbers.shape[1]
            for *cells, points in zip(map(readable, files), *columns.values(), numbers, strict=True):
                shown = zip(points.ravel(), digits, strict=True)
                writer.writerow([*cells, *("" if np.isnan(value) else format(value, spec) for value, spec in shown)])

        yield append


def write_coco(
    path: str | os.PathLike[str],
    files: Sequence[str],
    keypoints: Any,
    sizes: Any,
    names: Sequence[str] | None = None,
    skeleton: Sequence[Sequence[int]] = (),
    category: str = "object",
) -> None:
    """Write COCO keypoint JSON, one annotation an image, its keypoints marked visible, v = 2.

    Args:
        path: the file to write, replaced whole.
        files: n names.
        keypoints: (n, N, 2), (x, y) in pixels of the originals; one with NaN has v = 0,
            and an image that has no other keypoint no annotation.
        sizes: n pairs (W, H) of the originals.
        names: N keypoint names; keypoint_00, keypoint_01, ... by default.
        skeleton: links as pairs of keypoint numbers counted from 0 (COCO's own count, from 1, is used in the file).
        category: name of the one category.
    """
    with coco_file(path, names, skeleton, category, caller="write_coco") as append:
        append(files, keypoints, sizes)


@contextmanager
def coco_file(
    path: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    skeleton: Sequence[Sequence[int]] = (),
    category: str = "object",
    caller: str = "coco_file",
) -> Iterator[Callable[..., None]]:
    """A function `append(files, keypoints, sizes, confidence=None, filled=None)` that adds images as `write_coco` does.

    Keypoints that are NaN have v = 0 at (0, 0), those that are `filled`, (n, N) bool, v = 1. With confidence, (n, N) in
    [0, 1], an annotation has the mean as its `score`, and each keypoint's in `keypoint_scores`.

    Args:
        path: the file to write, replaced whole when the block ends well.
        names: as for `write_coco`.
        skeleton: as for `write_coco`.
        category: as for `write_coco`.
        caller: for the messages of `append`.
    """
    number, annotated = 0, False
    # The annotations, which come behind all images in the file, wait beside it.
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8") as file,
        TemporaryFile("w+", encoding="utf-8", dir=temporary.parent) as waiting,
    ):
        file.write('{"images": [')

        def append(
            files: Sequence[str], keypoints: Any, sizes: Any, confidence: Any = None, filled: Any = None
        ) -> None:
            nonlocal number, annotated, names
            keypoints, names = _checked(caller, files, keypoints, names)
            if len(sizes) != len(files):
                raise ValueError(f"{caller}: sizes must hold {len(files)} pairs, got {len(sizes)}")
            scores = [None] * len(files) if confidence is None else confidence
            marks = np.where(np.isfinite(keypoints).all(axis=2), 2 - np.asarray(0 if filled is None else filled), 0)
            for name, points, (width, height), v, likely in zip(files, keypoints, sizes, marks, scores, strict=True):
                comma, number = ", " * (number > 0), number + 1
                image = {"id": number, "file_name": name, "width": int(width), "height": int(height)}
                file.write(comma + json.dumps(image))
                if np.isfinite(points).all(axis=1).any():  # else nothing was to be seen
                    waiting.write(", " * annotated + json.dumps(_annotation(number, points, v, likely)))
                    annotated = True

        yield append
        bones = [[int(i) + 1, int(j) + 1] for i, j in skeleton]
        categories = [{"id": 1, "name": category, "keypoints": list(names or ()), "skeleton": bones}]
        file.write('], "annotations": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, file)
        file.write(f'], "categories": {json.dumps(categories)}}}')


def _annotation(number: int, points: np.ndarray, v: np.ndarray, likely: np.ndarray | None) -> dict[str, Any]:
    """The pose (N, 2) of one image, by the image's number, COCO's v (N,), and the likelihood (N,) of its keypoints."""
    shown = v > 0
    found = points[shown] if shown.any() else np.zeros((1, 2))
    low, extent = found.min(0), np.ptp(found, axis=0)
    places = np.where(shown[:, None], points, 0).tolist()
    annotation = {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "keypoints": [
            each for (x, y), mark in zip(places, v.tolist(), strict=True) for each in (round(x, 3), round(y, 3), mark)
        ],
        "num_keypoints": int(shown.sum()),
        "bbox": [round(float(v), 3) for v in (*low, *extent)],
        "area": round(float(extent.prod()), 3),
        "iscrowd": 0,
    }
    if likely is not None:
        scores = [round(float(value), 4) if np.isfinite(value) else 0.0 for value in likely]
        annotation |= {"score": round(sum(scores) / max(len(scores), 1), 4), "keypoint_scores": scores}
    return annotation


def numbered(count: int) -> list[str]:
    """Names of keypoints that have none: keypoint_00, keypoint_01, ..."""
    return [f"keypoint_{i:02d}" for i in range(count)]


def _checked(
    caller: str, files: Sequence[str], keypoints: Any, names: Sequence[str] | None
) -> tuple[np.ndarray, list[str]]:
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if keypoints.ndim != 3 or keypoints.shape[0] != len(files) or keypoints.shape[2] != 2:
        raise ValueError(f"{caller}: keypoints must have shape ({len(files)}, N, 2), got {keypoints.shape}")
    if names is None:
        names = numbered(keypoints.shape[1])
    if len(names) != keypoints.shape[1]:
        raise ValueError(f"{caller}: names must hold {keypoints.shape[1]} entries, got {len(names)}")
    return keypoints, list(names)
