"""Files of poses that other tools read: DeepLabCut's tables, SLEAP's analysis files, and NumPy's arrays.

In all of them (0, 0) is the centre of the top left pixel, as it is here, so coordinates are written as they are:
DeepLabCut's labels are made in napari, and SLEAP's files have it so since their format 1.1 (docs/formats.md).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppl_fast._extras import needing
from ppl_fast._files import filling, readable, replacing
from ppl_fast.inference.poses import Poses, collect
from ppl_fast.inference.schema import Format, Schema, Write

SCORER = "ppl_fast"
COORDINATES = ("x", "y", "likelihood")
MANY, IMAGES = "{}", "images"  # what stands for a video's name in a path, and for that of images beside them
KEY = "df_with_missing"  # that DeepLabCut and movement look for


def files_of(pattern: Path, videos: Iterable[str]) -> dict[str | None, Path]:
    """The file of each video, and under None that of images beside them, for a path with {} in its name.

    In the place of {} is the video's name below its folder, without its suffix where that is of this video alone.

    Raises:
        ValueError: two of them would have one file.
    """
    videos = [*videos]
    stems = [str(PurePosixPath(name).with_suffix("")) for name in videos]
    names: dict[str | None, str] = {
        name: stem if [*stems, IMAGES].count(stem) == 1 else name for name, stem in zip(videos, stems, strict=True)
    }
    names[None] = IMAGES
    files = {name: pattern.parent / pattern.name.replace(MANY, readable(text)) for name, text in names.items()}
    if len({*files.values()}) < len(files):
        owners = {path: [str(name) for name in names if files[name] == path] for path in files.values()}
        path, twice = next((path, owner) for path, owner in owners.items() if len(owner) > 1)
        raise ValueError(f"{' and '.join(twice)} would both be written to {path}; rename one of them")
    return files


def _a_file_each(kind: str) -> Callable[[Format], Format]:
    """Lets a format of a single track take several, a file each, where its path has {} in its name."""

    def wrapped(one: Format) -> Format:
        @wraps(one)
        @contextmanager
        def opened(path: Path, schema: Schema) -> Iterator[Write]:
            if MANY not in path.name:
                check_one_track(kind, schema.several, path)
                with one(path, schema) as write:
                    yield write
                return
            files = files_of(path, schema.videos)
            with filling(path.parent) as folder, ExitStack() as last:
                current: Any = last  # none of the names
                append: Write

                def write_to_its_own(poses: Poses) -> None:
                    nonlocal current, append
                    video = None if poses.video is None else poses.names[0]
                    if video != current:
                        last.close()
                        target = folder / files[video].relative_to(path.parent)
                        target.parent.mkdir(parents=True, exist_ok=True)
                        own = replace(schema, moving=video is not None, single=True, several=False)
                        current, append = video, last.enter_context(one(target, own))
                    append(poses)

                yield write_to_its_own

        return opened

    return wrapped


@_a_file_each("dlc")
@contextmanager
def dlc_writer(path: Path, schema: Schema) -> Iterator[Write]:
    """DeepLabCut's predictions, .csv or .h5: three rows of header, then x, y and likelihood of every keypoint.

    A row is a frame of a video by its number, or an image by its name. Without confidence, likelihoods are empty.

    Raises:
        ValueError: frames of several videos, and no {} in the name.
        ImportError: for .h5, pandas or PyTables is not installed.
    """
    if path.suffix.lower() == ".csv":
        with _dlc_csv(path, schema) as write:
            yield write
        return
    with needing("DeepLabCut's .h5 files need", "dlc", "write .csv"):
        import pandas
        import tables  # noqa: F401
    with replacing(path) as temporary, _whole(schema) as (write, take):
        yield write
        poses = take()
        columns = pandas.MultiIndex.from_product(
            [[SCORER], schema.titles(poses.keypoints.shape[1]), COORDINATES], names=["scorer", "bodyparts", "coords"]
        )
        frame = pandas.DataFrame(_triples(poses).reshape(len(poses), -1), index=_rows(poses), columns=columns)
        frame.to_hdf(temporary, key=KEY, format="table", mode="w")


@_a_file_each("sleap")
@contextmanager
def sleap_writer(path: Path, schema: Schema) -> Iterator[Write]:
    """SLEAP's analysis file, .h5, of one animal without tracks, its axes in the order that SLEAP writes for MATLAB.

    Raises:
        ValueError: frames of several videos, and no {} in the name.
        ImportError: h5py is not installed.
    """
    with needing("SLEAP's analysis files need", "data"):
        import h5py
    with replacing(path) as temporary, _whole(schema) as (write, take):
        videos: list[str] = []

        def noting(poses: Poses) -> None:
            write(poses)
            videos.extend([] if poses.video is None or videos else [str(poses.video.path)])

        yield noting
        poses = take()
        titles = schema.titles(poses.keypoints.shape[1])
        triples = _triples(poses)
        here = np.asarray(np.isfinite(triples[:, :, 0]).any(axis=1))
        scores = np.where(here, _mean(triples[:, :, 2]), np.nan)
        with h5py.File(temporary, "w") as file:

            def text(value: Any) -> NDArray[Any]:
                return np.char.encode(np.asarray(value, dtype=np.str_), "utf-8")

            file["node_names"], file["edge_inds"] = text(titles), schema.links
            file["edge_names"] = text([[titles[i], titles[j]] for i, j in schema.links]).reshape(-1, 2)
            file["track_names"] = np.zeros(0, "S1")
            file["tracks"] = triples[:, :, :2].transpose(2, 1, 0)[None]  # (track, xy, node, frame)
            file["track_occupancy"] = here[:, None].astype(np.uint8)  # (frame, track)
            file["point_scores"] = triples[:, :, 2].T[None]  # (track, node, frame)
            file["instance_scores"] = scores[None]  # (track, frame)
            file["tracking_scores"] = np.full((1, len(poses)), np.nan)
            # Single values, as variable strings.
            file["labels_path"], file["video_path"], file["video_ind"] = "", readable("".join(videos[:1])), 0
            file["provenance"] = json.dumps({"writer": SCORER})


@contextmanager
def npz_writer(path: Path, schema: Schema) -> Iterator[Write]:
    """Arrays, which `ppl_fast.data.load_labels` reads too; docs/formats.md lists them."""
    with replacing(path) as temporary, _whole(schema) as (write, take):
        yield write
        poses = take()
        optional = {
            name: value
            for name in ("confidence", "expected_error", "filled")
            if (value := getattr(poses, name)) is not None
        }
        if schema.moving:
            optional["frames"] = np.array([-1 if frame is None else frame for frame in poses.frames])
            optional["times"] = np.array([np.nan if time is None else time for time in poses.times])
        with open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                files=np.array([readable(name) for name in poses.unique_names], dtype=np.str_),
                keypoints=poses.keypoints,
                visible=np.isfinite(poses.keypoints).all(axis=2),
                names=np.array(schema.titles(poses.keypoints.shape[1]), dtype=np.str_),
                skeleton=schema.links,
                sizes=poses.sizes,
                weights=schema.weights,
                **optional,
            )


@contextmanager
def _dlc_csv(path: Path, schema: Schema) -> Iterator[Write]:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")

        def write(poses: Poses) -> None:
            titles = schema.titles(poses.keypoints.shape[1])
            if file.tell() == 0:
                count = len(COORDINATES)
                writer.writerow(["scorer", *[SCORER] * len(titles) * count])
                writer.writerow(["bodyparts", *(title for title in titles for _ in COORDINATES)])
                writer.writerow(["coords", *COORDINATES * len(titles)])
            for row, values in zip(_rows(poses), _triples(poses), strict=True):
                writer.writerow([row, *("" if np.isnan(value) else repr(float(value)) for value in values.ravel())])

        yield write


@contextmanager
def _whole(schema: Schema) -> Iterator[tuple[Write, Callable[[], Poses]]]:
    """A function that takes batches, and one that gives them all as one at the end."""
    parts: list[Poses] = []

    def write(poses: Poses) -> None:
        parts.append(collect([poses]))  # without the images

    yield write, lambda: collect(parts)


def check_one_track(kind: str, several: bool, path: Path) -> None:
    """Raise a ValueError where a format of a single track has no file for each of what it is given."""
    if several and MANY not in path.name:
        raise ValueError(
            f"{kind} files hold one video, or images alone, got a folder of more; for a file each give a name with "
            f"{MANY} in it, as poses/{MANY}{path.suffix}"
        )


def _rows(poses: Poses) -> list[Any]:
    return [readable(name) if frame is None else frame for name, frame in zip(poses.names, poses.frames, strict=True)]


def _triples(poses: Poses) -> NDArray[np.float64]:
    """(n, N, 3): x, y and likelihood, which is NaN where there is no confidence."""
    shape = poses.keypoints.shape[:2]
    likelihood = np.full(shape, np.nan) if poses.confidence is None else poses.confidence
    return np.concatenate([poses.keypoints, likelihood[..., None]], axis=2)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) means over what is finite of (n, N); NaN where nothing is."""
    finite = np.isfinite(values)
    total: NDArray[np.float64] = np.where(finite, values, 0).sum(axis=1) / np.maximum(finite.sum(axis=1), 1)
    return np.where(finite.any(axis=1), total, np.nan)
