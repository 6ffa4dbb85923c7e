"""Frames of videos by name, in any order: decoded once, and kept at the size that is needed."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ppl_fast._console import no_bar
from ppl_fast._documents import MAX_PIXELS
from ppl_fast.data.boxes import seen
from ppl_fast.data.framing import Views
from ppl_fast.data.image_set import check_share
from ppl_fast.data.selection import Thinning
from ppl_fast.data.video import Video
from ppl_fast.options.footage import Selection

Place = tuple[int, Video, int, int | None]  # of a frame: row of the file, video, number, timestamp
ALL = Selection()


class VideoFrames:
    """The frames of videos by name, in any order: each video is decoded once, to frames of the size that is needed.

    They lie in a temporary file, 3 * S * S bytes each, in the folder that `TMPDIR` names; the file goes when the
    object does.

    Args:
        videos: name to path; frame 12 of the video named "walk.mp4" gets the name "walk.mp4/000012".
        image_size: S.
        choice: which frames of every video are taken.
        max_bad_share: above this share of videos that do not decode all are refused.
        views: what of each frame is seen; None for all of it. Frames that show nothing are left out.
        max_pixels: that a frame may have.
        beside: images that lie among the videos, which count as files in the share of those that do not decode.

    Attributes:
        files: the videos, by name.
        names: of all frames, video by video.
        skipped: (name, reason) of videos left out.

    Raises:
        ValueError: too many of the videos do not decode.
        OSError: the temporary file cannot be written.
    """

    def __init__(
        self,
        videos: dict[str, Path],
        image_size: int,
        choice: Selection = ALL,
        max_bad_share: float = 0.1,
        views: Views | None = None,
        max_pixels: int = MAX_PIXELS,
        beside: int = 0,
    ):
        self.image_size, self._choice, self._views = image_size, choice, views
        self.files, self.names = videos, list[str]()
        self._places: dict[str, Place] = {}
        self._count = 0  # of the file's rows
        folder = tempfile.mkdtemp(prefix="ppl_fast_frames_")
        self.remove = weakref.finalize(self, _remove, folder, os.getpid())
        self._file = Path(folder, "frames")
        self._rows: np.ndarray | None = None  # of the file, once a frame is asked for
        opened, self.skipped = open_videos(videos, max_pixels)
        expected = sum(-(-(video.length or 0) // choice.every) for video in opened.values())
        try:
            with (
                open(self._file, "wb") as file,
                tqdm(total=expected or None, desc="reading videos", unit="frame", leave=False, disable=no_bar()) as bar,
            ):
                for name, video in opened.items():
                    self._decode(name, video, file, bar)
        except OSError as error:
            raise OSError(
                f"the frames of the videos cannot be kept in {folder}: {error.strerror}; TMPDIR can name another place"
            ) from error
        check_share(self.skipped, len(videos), max_bad_share, "videos", beside)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def size(self, name: str) -> tuple[int, int]:
        """(W, H) of the upright frame in the video."""
        return self._places[name][1].size

    def pixels(self, name: str) -> torch.Tensor:
        """The frame as uint8 (3, S, S)."""
        if self._rows is None:
            shape = self._count, 3, self.image_size, self.image_size
            self._rows = np.memmap(self._file, np.uint8, "r", shape=shape)
        return torch.from_numpy(np.array(self._rows[self._places[name][0]]))

    def image(self, name: str) -> Image.Image:
        """The frame as it is in the video, upright RGB at its original size."""
        _, video, number, pts = self._places[name]
        return video.image(number, pts)

    def images(self, names: Sequence[str], size: int) -> Iterator[Image.Image]:
        """Frames of one video, in order, reduced to twice the size or little more where that is less."""
        numbers = {self._places[name][2] for name in names}
        return (frame.image for frame in self._places[names[0]][1].frames(wanted=numbers.__contains__, size=size))

    def __getstate__(self) -> dict[str, Any]:
        """For a loading process, which maps the file anew, and does not remove it."""
        return self.__dict__ | {"_rows": None, "remove": None}

    def _decode(self, name: str, video: Video, file: BinaryIO, bar: tqdm) -> None:
        """Write a video's frames to the file and take their names, or take nothing but the reason to `skipped`."""
        thinning, held = Thinning(self._choice, name), dict[int, tuple[str, Place]]()
        try:
            whole = self.image_size if self._views is None else None
            for frame in video.frames(self._choice.every, self._wanted(name), whole):
                bar.update()
                place = thinning.place(frame.image)
                if place is None:
                    continue
                row, called = self._count + place, f"{name}/{frame.number:06d}"
                box = None if self._views is None else self._views.box(called, video.size)
                file.seek(row * 3 * self.image_size**2)
                file.write(seen(frame.image, box, self.image_size).numpy().tobytes())
                held[place] = called, (row, video, frame.number, frame.pts)
        except ValueError as error:
            self.skipped.append((name, str(error)))
        else:
            taken = [held[place] for place in thinning.chosen()]
            self._places |= taken
            self.names += [frame for frame, _ in taken]
            self._count += thinning.places

    def _wanted(self, name: str) -> Callable[[int], bool]:
        """Whether a frame of the video is to be looked at, by its number."""
        views = self._views

        def wanted(number: int) -> bool:
            called = f"{name}/{number:06d}"
            return self._choice.takes(called) and (views is None or views.shows(called))

        return wanted


def open_videos(
    videos: dict[str, Path], max_pixels: int = MAX_PIXELS
) -> tuple[dict[str, Video], list[tuple[str, str]]]:
    """Those of the videos, by name, that open and have a first frame; and (name, reason) of the others."""
    opened, skipped = {}, []
    for name, path in videos.items():
        try:
            opened[name] = Video(path, max_pixels)
        except (OSError, ValueError) as error:
            skipped.append((name, str(error)))
    return opened, skipped


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked loading process ends without taking the file from the others
        shutil.rmtree(folder, ignore_errors=True)
