"""What moves in the videos and folders of images of some footage, as boxes by name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from ppl_fast._console import no_bar
from ppl_fast._documents import MAX_PIXELS
from ppl_fast._files import readable
from ppl_fast.data.box_files import Row
from ppl_fast.data.boxes import NOTHING
from ppl_fast.data.image_file import UNREADABLE, load_upright
from ppl_fast.data.moving import SIDE, background, boxes, tracked
from ppl_fast.data.order import by_clip, video_of
from ppl_fast.data.still import LEAST_SAMPLES, Background
from ppl_fast.data.video import Video

NEAR = 0.25  # of a box's side, that an image's animal may be away from where it is in its frame
TOLD = 3  # frames without an animal that a report names


def find(
    root: Path,
    images: Sequence[str],
    videos: dict[str, Path],
    turn: bool,
    max_pixels: int = MAX_PIXELS,
    beside: dict[str, Path] | None = None,
) -> tuple[list[Row], list[str]]:
    """The boxes of all images and frames that show an animal, and a line about each clip.

    Every video is read twice: for its background, and for what moves. Images of one folder are a clip without time,
    before the background of the video of the folder's name where there is one (as in a project of DeepLabCut), else
    before their own median. An image shows the body's axis and not which end leads: that is as in the frame of the
    video whose number ends the image's name, if the animal is at the same place there.

    Args:
        root: what the names of images are relative to.
        images: their names.
        videos: paths by name.
        turn: turn boxes along the body's axis.
        max_pixels: of an image or frame, that may be decoded at once.
        beside: videos that are looked at for the images' sake alone.

    Raises:
        ValueError: too few images of one size, or frames, for a background. A video that does not decode has no boxes,
            and a line that says why.
    """
    rows: list[Row] = []
    report, stills, of_videos = [], dict[str, Background](), dict[str, np.ndarray]()
    beside = beside or {}
    for name, path in {**videos, **beside}.items():
        try:
            video = Video(path, max_pixels)
            still = background(_frames(video, f"background of {name}"), video.size)
            wanted = name in videos or turn
            found = _in_video(video, still, turn, name) if still is not None and wanted else np.empty((0, 5))
        except (OSError, ValueError) as error:
            report.append(f"{name}: nothing is found in it: {error}")
            continue
        if still is None and name in beside:
            continue
        if still is None:
            raise ValueError(f"{name}: what moves cannot be told in a video of fewer than {LEAST_SAMPLES} frames")
        stills[name], of_videos[name] = still, found
        if name in beside:
            continue
        rows += [Row(name, number, box) for number, box in enumerate(found) if np.isfinite(box).all()]
        report.append(_line(name, "frames", found, [str(number) for number in range(len(found))]))
    for clip, names in sorted(by_clip(images).items()):
        video_name = video_of(clip, stills) or ""
        still = stills.get(video_name) or background(_loaded(root, names, max_pixels))
        if still is None:
            raise ValueError(
                f"{clip}: what moves cannot be told in {len(names)} images without {LEAST_SAMPLES} of one size; "
                "--crop FILE takes boxes from a file"
            )
        decoded: list[str] = []
        found = boxes(tracked(_loaded(root, names, max_pixels, decoded), still), None, turn)
        in_frames = of_videos.get(video_name, found[:0])
        unknown = _directed(found, decoded, in_frames) if turn else 0
        rows += [Row(name, None, box) for name, box in zip(decoded, found, strict=True) if np.isfinite(box).all()]
        report.append(_line(clip, "images", found, decoded))
        if unknown:
            report.append(f"{clip}: which end of the animal leads is unknown in {unknown} images: no video tells")
    return rows, report


def _directed(found: np.ndarray, names: list[str], of_video: np.ndarray) -> int:
    """Turn boxes (n, 5) of images by half a turn where the frames that they are of show that; how many have none."""
    unknown = 0
    for box, name in zip(found, names, strict=True):
        number = re.search(r"(\d+)$", PurePosixPath(name).stem)
        frame = of_video[int(number[1])] if number and int(number[1]) < len(of_video) else NOTHING
        if not np.linalg.norm(box[:2] - frame[:2]) < NEAR * box[2]:  # true where either is NaN
            unknown += bool(np.isfinite(box).all())
        elif math.cos(box[4] - frame[4]) < 0:
            box[4] = math.remainder(box[4] + math.pi, math.tau)
    return unknown


def _in_video(video: Video, still: Background, turn: bool, name: str) -> np.ndarray:
    return boxes(tracked(_frames(video, f"what moves in {name}"), still, video.size), float(video.rate), turn)


def _frames(video: Video, what: str) -> Iterator[Image.Image]:
    """All frames, reduced to no less than is looked at, with a bar, since an hour of video takes minutes."""
    frames = video.frames(size=SIDE // 2)
    for frame in tqdm(frames, readable(what), video.length, leave=False, unit="frame", disable=no_bar()):
        yield frame.image


def _loaded(root: Path, names: list[str], max_pixels: int, decoded: list[str] | None = None) -> Iterator[Image.Image]:
    """The images that are readable, whose names `decoded` takes; the data set tells of the others."""
    for name in names:
        try:
            image = load_upright(root / name, max_pixels)
        except UNREADABLE:
            continue
        if decoded is not None:
            decoded.append(name)
        yield image


def _line(clip: str, unit: str, found: np.ndarray, names: list[str]) -> str:
    shown = np.isfinite(found).all(axis=1)
    missing = [name for name, seen in zip(names, shown, strict=True) if not seen]
    side = f", boxes of {found[shown, 2].max():.0f} pixels" if shown.any() else ""
    without = f"; none in {', '.join(missing[:TOLD])}{' and others' * (len(missing) > TOLD)}" if missing else ""
    return f"{clip}: an animal moves in {shown.sum()} of {len(found)} {unit}{side}{without}"
