"""A folder of clips as a data set of frames: sub-folders of images and video files, alike."""

import os
import shutil
import tempfile
import weakref
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ppl_fast._console import no_bar
from ppl_fast._options import integer
from ppl_fast.data.image_set import SMALLEST_SIDE, first_few, natural, resized
from ppl_fast.data.images import ImageFiles, list_files
from ppl_fast.data.kinds import IMAGE_SUFFIXES, MAX_PIXELS, VIDEO_SUFFIXES, kind_of
from ppl_fast.data.video import Video

Place = tuple[int, Video, int, int | None]  # of a frame: row of the file, video, number, timestamp


class ClipFolder(ImageFiles):
    """All frames of all clips below a folder, each resized to a square: an `ImageFolder` that knows clips.

    A clip is a folder that holds images, or a video file; both kinds may stand side by side. Frame 12 of the video
    `walk.mp4` goes by the name `walk.mp4/000012`, as if the video were a folder, so that a frame's clip is always
    the folder in its name. Clips, and the frames of a clip, are in natural order: 2 before 10.

    Images are read as by `ImageFiles`. Videos are decoded when the set is built (see `VideoFrames`);
    those that do not decode to their end are skipped, with the reason.

    Args:
        root: the folder, or a single video file.
        image_size: S; `dataset[i]` is a float32 tensor (3, S, S) in [-1, 1].
        every: keep each n-th frame of every clip.
        cache: keep the resized frames in memory, 3 * S * S bytes each.
        max_bad_share: above this share of unreadable images, or of unreadable videos, the folder is refused.
        max_pixels: of an image or a frame, that may be decoded at once; see `ImageSet`.

    Attributes:
        clips: per frame, the number of its clip.
        clip_names: name of each clip: its folder's or file's relative path, "." for images in `root` itself.
        paths, original_sizes, skipped, ignored: as those of `ImageFolder`.

    Raises:
        ValueError: missing or empty folder, too many unreadable images or videos, options out of range.
        OSError: no room for the frames of videos.
        ImportError: there are videos, and PyAV is not installed.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        image_size: int,
        *,
        every: int = 1,
        cache: bool = False,
        max_bad_share: float = 0.1,
        max_pixels: int = MAX_PIXELS,
    ):
        image_size = integer("ClipFolder", "image_size", image_size, low=SMALLEST_SIDE)
        every = integer("ClipFolder", "every", every, low=1)
        images, videos, self.ignored = find_media(Path(root))
        self._videos = VideoFrames(videos, image_size, every, max_bad_share, max_pixels)
        names = [name for clip in _by_clip(images).values() for name in clip[::every]]
        names = [name for clip in _by_clip(names + self._videos.names).values() for name in clip]
        super().__init__(root, names, image_size, cache=cache, max_bad_share=max_bad_share, max_pixels=max_pixels)
        self.skipped += self._videos.skipped
        clips = _by_clip(self.paths)
        self.clip_names = list(clips)
        self.clips = [number for number, frames in enumerate(clips.values()) for _ in frames]
        if cache:
            self._videos.remove()

    def report(self) -> str:
        """What was found, in a few lines fit for printing: used, skipped with reasons, ignored, and clips."""
        count = len(self.clip_names)
        return f"{super().report()}\nthey are frames of {count} clip{'s' * (count != 1)}"

    def _size(self, name: str) -> tuple[int, int]:
        return self._videos.size(name) if name in self._videos else super()._size(name)

    def _load(self, name: str) -> torch.Tensor:
        return self._videos.pixels(name) if name in self._videos else super()._load(name)

    def _picture(self, name: str) -> Image.Image:
        return self._videos.image(name) if name in self._videos else super()._picture(name)


class VideoFrames:
    """The frames of videos by name, in any order: each video is decoded once, to frames of the size that is needed.

    They lie in a temporary file, 3 * S * S bytes each, in the folder that `TMPDIR` names; the file goes when the
    object does.

    Args:
        videos: name to path; frame 12 of the video named "walk.mp4" gets the name "walk.mp4/000012".
        image_size: S.
        every: keep each n-th frame of every video.
        max_bad_share: above this share of videos that do not decode all are refused.
        max_pixels: that a frame may have.

    Attributes:
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
        every: int = 1,
        max_bad_share: float = 0.1,
        max_pixels: int = MAX_PIXELS,
    ):
        self.image_size = image_size
        self.names: list[str] = []
        self._places: dict[str, Place] = {}
        folder = tempfile.mkdtemp(prefix="ppl_fast_frames_")
        self.remove = weakref.finalize(self, _remove, folder, os.getpid())
        self._file = Path(folder, "frames")
        self._rows: np.ndarray | None = None  # of the file, once a frame is asked for
        opened, self.skipped = open_videos(videos, max_pixels)
        expected = sum(-(-(video.length or 0) // every) for video in opened.values())
        try:
            with (
                open(self._file, "wb") as file,
                tqdm(total=expected or None, desc="reading videos", unit="frame", leave=False, disable=no_bar()) as bar,
            ):
                for name, video in opened.items():
                    self._decode(name, video, every, file, bar)
        except OSError as error:
            raise OSError(
                f"the frames of the videos cannot be kept in {folder}: {error.strerror}; TMPDIR can name another place"
            ) from error
        check_share(self.skipped, len(videos), max_bad_share)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def size(self, name: str) -> tuple[int, int]:
        """(W, H) of the upright frame in the video."""
        return self._places[name][1].size

    def pixels(self, name: str) -> torch.Tensor:
        """The frame as uint8 (3, S, S)."""
        if self._rows is None:
            shape = len(self.names), 3, self.image_size, self.image_size
            self._rows = np.memmap(self._file, np.uint8, "r", shape=shape)
        return torch.from_numpy(np.array(self._rows[self._places[name][0]]))

    def image(self, name: str) -> Image.Image:
        """The frame as it is in the video, upright RGB at its original size."""
        _, video, number, pts = self._places[name]
        return video.image(number, pts)

    def __getstate__(self) -> dict[str, Any]:
        """For a loading process, which maps the file anew, and does not remove it."""
        return self.__dict__ | {"_rows": None, "remove": None}

    def _decode(self, name: str, video: Video, every: int, file: BinaryIO, bar: tqdm) -> None:
        """Append a video's frames to file and names, or nothing and the reason to `skipped`."""
        start, row = file.tell(), len(self.names)
        places: dict[str, Place] = {}
        try:
            for frame in video.frames(every):
                file.write(resized(frame.image, self.image_size).numpy().tobytes())
                places[f"{name}/{frame.number:06d}"] = row + len(places), video, frame.number, frame.pts
                bar.update()
        except ValueError as error:
            file.seek(start)
            file.truncate()
            self.skipped.append((name, str(error)))
        else:
            self._places |= places
            self.names += places


def find_media(root: Path) -> tuple[list[str], dict[str, Path], list[str]]:
    """Images, videos with their paths, and other files below a folder, by relative path; or one image or video alone.

    Raises:
        ValueError: there is neither image nor video.
    """
    kinds = f"images ({', '.join(IMAGE_SUFFIXES)}) or videos ({', '.join(VIDEO_SUFFIXES)})"
    kind = kind_of(root) if root.is_file() else "other"
    if kind == "video":
        return [], {root.name: root}, []
    if not root.is_dir() and kind == "other":
        state = "another file" if root.exists() else "missing"
        raise ValueError(f"{root} is {state}; expected a folder of {kinds}, or one image or video")
    images, others = list_files(root)
    videos = {name: root / name for name in others if kind_of(root / name) == "video"}
    if not images and not videos:
        raise ValueError(f"expected {kinds} in {root}, got none")
    return images, videos, [name for name in others if name not in videos]


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


def check_share(skipped: list[tuple[str, str]], count: int, max_bad_share: float, kind: str = "videos") -> None:
    """Raise a ValueError where all, or more than a share, of `count` videos or images were skipped."""
    if skipped and (len(skipped) > max_bad_share * count or len(skipped) == count):
        raise ValueError(
            f"{len(skipped)} of {count} {kind} are unusable, at most a share of {max_bad_share:g} may be, and not all: "
            f"{first_few(skipped)}"
        )


def _by_clip(names: list[str]) -> dict[str, list[str]]:
    """Clip to frames, both in natural order: in the folder part of the name, then in the rest."""
    paths = sorted(map(PurePosixPath, names), key=lambda path: (natural(str(path.parent)), natural(path.name)))
    return {str(clip): [str(path) for path in paths] for clip, paths in groupby(paths, key=lambda path: path.parent)}


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked loading process ends without taking the file from the others
        shutil.rmtree(folder, ignore_errors=True)
