"""Files of poses. A format is one function here and one line in `FORMATS`.

Such a function opens a path and gives another one, which takes `Poses` batch by batch; the file appears under its
name, whole, when the block ends well, and not at all when it does not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ppl_fast._extras import needing
from ppl_fast._files import filling
from ppl_fast._messages import hint
from ppl_fast.data.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ppl_fast.inference.exchange import MANY, dlc_writer, npz_writer, sleap_writer
from ppl_fast.inference.poses import Poses
from ppl_fast.inference.schema import Format, Schema, Write
from ppl_fast.inference.tables import parquet_writer
from ppl_fast.inference.threads import behind

if TYPE_CHECKING:
    from ppl_fast.inference.estimation import Estimation


@contextmanager
def csv_writer(path: Path, schema: Schema) -> Iterator[Write]:
    """One row a pose: file, of videos frame and time in seconds, then of every keypoint x and y in pixels.

    Where there is confidence, every keypoint has it, and its expected error in pixels, as well; where tracks were
    smoothed, 1 or 0 for whether it was filled.
    """
    from ppl_fast.data.predictions import csv_file

    with csv_file(path, schema.names) as append:

        def write(poses: Poses) -> None:
            times = [None if time is None else f"{time:.6f}" for time in poses.times]
            columns = {"frame": poses.frames, "time": times} if schema.moving else {}
            also = {"confidence": poses.confidence, "error": poses.expected_error, "filled": poses.filled}
            append(poses.names, poses.keypoints, columns, {k: v for k, v in also.items() if v is not None})

        yield write


@contextmanager
def coco_writer(path: Path, schema: Schema) -> Iterator[Write]:
    """COCO keypoint JSON, one annotation a pose, the links as its skeleton; frames as `walk.mp4/000012`."""
    from ppl_fast.data.predictions import coco_file

    with coco_file(path, schema.names, skeleton=schema.links.tolist()) as append:
        yield lambda poses: append(poses.unique_names, poses.keypoints, poses.sizes, poses.confidence, poses.filled)


@contextmanager
def overlay_writer(path: Path, schema: Schema) -> Iterator[Write]:
    """Images and videos with their poses: a folder, for one video by itself a video, for one image a .png or a folder.

    The folder gets `a.jpg.png` for `a.jpg` and `walk.mp4.mp4` for `walk.mp4`, suffixes included: `a.jpg` and
    `a.png` must not share a name. Where that is longer than file systems take, the middle gives way. Videos keep size,
    shape of pixels, rate and times of the originals.
    """
    with needing("overlays need", "viz"):
        from ppl_fast.data.video import Video
        from ppl_fast.data.video_writer import check_written, video_writer
        from ppl_fast.visualization import draw_overlay, save_overlay

    if schema.single and schema.moving:
        check_written(path)
    with ExitStack() as whole:
        alone = schema.single and (schema.moving or path.suffix.lower() == ".png")
        folder = None if alone else whole.enter_context(filling(path))
        opened = whole.enter_context(ExitStack())  # of the video that is being written
        current: Video | None = None
        append: Callable[..., None]

        def write(poses: Poses) -> None:
            nonlocal current, append
            if poses.video is not None and poses.video is not current:
                opened.close()
                current = poses.video
                target = path if folder is None else folder / fitting(f"{poses.names[0]}.mp4")
                target.parent.mkdir(parents=True, exist_ok=True)
                like = current.size, current.rate, current.tick, current.aspect
                append = opened.enter_context(video_writer(target, *like))
            for i, name in enumerate(poses.names):
                seen = np.isfinite(poses.keypoints[i]).all()
                pose = (poses.keypoints[i], schema.links, schema.weights) if seen else NO_POSE
                names = schema.names if seen else None
                if poses.video is None:
                    target = path if folder is None else folder / fitting(f"{name}.png")
                    save_overlay(target, poses.image(i), *pose, names=names)
                else:
                    drawn = draw_overlay(poses.image(i), *pose, names=names)
                    append(drawn, poses.times[i], *poses.durations[i : i + 1])

        yield write


def fitting(name: str) -> str:
    """A path whose last part is at most `LONGEST_NAME` bytes long: a digest stands for the middle of a longer one."""
    head, slash, last = name.rpartition("/")
    raw = last.encode("utf-8", "surrogateescape")
    if len(raw) > LONGEST_NAME:
        start, end = raw[: LONGEST_NAME // 2], raw[-LONGEST_NAME // 4 :]
        digest = hashlib.sha256(raw).hexdigest()[:12]
        last = "~".join([start.decode("utf-8", "ignore"), digest, end.decode("utf-8", "ignore")])
    return head + slash + last


FORMATS: dict[str, Format] = {"csv": csv_writer, "coco": coco_writer, "overlay": overlay_writer}
FORMATS |= {"dlc": dlc_writer, "sleap": sleap_writer, "npz": npz_writer, "parquet": parquet_writer}
SUFFIXES = {"csv": (".csv",), "dlc": (".csv", ".h5"), "sleap": (".h5",), "coco": (".json",), "npz": (".npz",)}
SUFFIXES |= {"parquet": (".parquet",)}
STRICT = ("dlc", "sleap", "npz", "parquet")  # take no other suffix; the others are refused those of a format
EACH = ("dlc", "sleap")  # of a single track: several take a file each
OTHERS = (
    ".csv", ".tsv", ".json", ".npz", ".npy", ".h5", ".hdf5", ".slp", ".nc", ".mat", ".pkl", ".xlsx", ".parquet",
    ".yaml", ".gz", ".zip", *IMAGE_SUFFIXES, *VIDEO_SUFFIXES,
)  # fmt: skip
NO_POSE = np.zeros((0, 2)), np.zeros((0, 2), np.int64), np.zeros(0)  # drawn where there was nothing to see
LONGEST_NAME = 200  # bytes; file systems end at 255, and a temporary name is longer


def write(poses: Estimation, **outputs: str | os.PathLike[str] | None) -> int:
    """Write all poses of an estimation, batch by batch, to one or more files.

    The files are written by a thread of their own, up to `poses.depth` batches behind the model.

    Args:
        poses: what `estimate` gave, not yet iterated.
        outputs: a path by format, `csv="poses.csv", coco="poses.json", overlay="drawn"`; None leaves one out. See
            `FORMATS`. Of dlc and sleap, `poses/{}.csv` is a file for each video, by its name without the suffix.

    Returns:
        The number of poses.

    Raises:
        TypeError: an unknown format.
        ValueError: poses were taken already; an output that is the input itself or another output, or a suffix that a
            format does not have; what iterating raises.
        OSError: an output cannot be written.
    """
    paths = {name: Path(path) for name, path in outputs.items() if path is not None}
    for name in paths:
        if name not in FORMATS:
            known = f"; known are {', '.join(FORMATS)}"
            raise TypeError(f"write: unknown format {name!r}{hint(name, FORMATS, otherwise=known)}")
    if poses.begun:
        raise ValueError("write: poses must be an estimation that nothing was taken of yet, got one that was begun")
    check_paths(poses.media.root, paths, alone=poses.schema.single)
    count = 0
    with ExitStack() as whole:
        whole.callback(poses.close)
        writers = [whole.enter_context(FORMATS[name](path, poses.schema)) for name, path in paths.items()]

        def take(batch: Poses) -> None:
            for each in writers:
                each(batch)

        hand = whole.enter_context(behind(take, poses.depth, poses.waits))
        for batch in poses:
            hand(batch)
            count += len(batch)
            del batch
    return count


def check_paths(
    root: Path | None, outputs: Mapping[str, Path], alone: bool, kinds: Mapping[str, str] | None = None
) -> None:
    """Refuse outputs that would take the place of the source or of one another, or are named as another format.

    Args:
        root: the source, where it is a path.
        outputs: paths, each by its format, or by another name.
        alone: the source is one file.
        kinds: the formats of those by another name.

    Raises:
        ValueError: the sentence names the output as it is named here.
    """
    places: dict[Path, str] = {}
    for name, path in outputs.items():
        place = path.resolve()
        if root is not None and place == root.resolve():
            raise ValueError(f"{name} must not be the input itself, got {path}")
        if place in places and place != Path(os.devnull):
            raise ValueError(f"{name} must be another file than {places[place]}, got {path} for both")
        places[place] = name
    for name, path in outputs.items():
        kind, suffix = (kinds or {}).get(name, name), path.suffix.lower()
        if kind == "overlay" and not alone and suffix in OTHERS and not path.is_dir():
            raise ValueError(f"{name} must name a folder for a folder of images and videos, got {path}")
        if kind == "overlay" and alone and suffix in OTHERS and suffix not in (".png", ".mkv", ".mov", ".mp4"):
            raise ValueError(f"{name} must end in .png for an image, or in .mkv, .mov, .mp4 for a video, got {path}")
        if MANY in path.name and kind in SUFFIXES and kind not in EACH:
            raise ValueError(f"{name} writes {kind.upper()}, all into one file; {MANY} is for {' and '.join(EACH)}")
        if suffix not in SUFFIXES.get(kind, suffix) and (suffix in OTHERS or kind in STRICT):
            fitting = [other for other, suffixes in SUFFIXES.items() if suffix in suffixes]
            takes = f"; {suffix} is for {' or '.join(fitting)}" if fitting else ""
            own = " or ".join(SUFFIXES[kind])
            raise ValueError(f"{name} writes {kind.upper()}, for files that end in {own}, got {path}{takes}")
