"""A folder of clips as a data set of frames: sub-folders of images and video files, alike."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ppl_fast._documents import MAX_PIXELS
from ppl_fast._files import stamp
from ppl_fast._options import integer
from ppl_fast.data.boxes import Box
from ppl_fast.data.framing import Views
from ppl_fast.data.image_file import SMALLEST_SIDE
from ppl_fast.data.images import ImageFiles, list_files
from ppl_fast.data.kinds import IMAGE_SUFFIXES, kind_of
from ppl_fast.data.order import by_clip
from ppl_fast.data.video_frames import VideoFrames
from ppl_fast.options.footage import Selection

USUAL = (".avi", ".mkv", ".mov", ".mp4", ".webm")  # of `VIDEO_SUFFIXES`, those that an error names


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
        every: keep each n-th frame of every clip; short for a `choice`.
        choice: which frames are taken (`ppl_fast.data.selection.Selection`).
        cache: where to keep the resized frames, see `ImageSet`; "disk" keeps nothing where there are videos, whose
            frames lie on disk as it is.
        max_bad_share: above this share of unreadable files the folder is refused.
        max_pixels: of an image or a frame, that may be decoded at once; see `ImageSet`.
        views: what of each image and frame is seen; see `ImageSet`.

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
        choice: Selection | None = None,
        cache: str = "no",
        max_bad_share: float = 0.1,
        max_pixels: int = MAX_PIXELS,
        views: Views | None = None,
    ):
        image_size = integer("ClipFolder", "image_size", image_size, low=SMALLEST_SIDE)
        every = integer("ClipFolder", "every", every, low=1)
        choice = choice or Selection(every)
        images, videos, self.ignored = find_media(Path(root))
        self._videos = VideoFrames(videos, image_size, choice, max_bad_share, views, max_pixels, len(images))
        names = [name for clip in by_clip(images).values() for name in clip[:: choice.every] if choice.takes(name)]
        names = [name for clip in by_clip(names + self._videos.names).values() for name in clip]
        bounds = {"max_bad_share": max_bad_share, "max_pixels": max_pixels}
        self._kept_anyway = cache == "disk" and bool(videos)
        kept = "no" if self._kept_anyway else cache
        super().__init__(root, names, image_size, cache=kept, views=views, **bounds)
        self.skipped += self._videos.skipped
        clips = by_clip(self.paths)
        self.clip_names = list(clips)
        self.clips = [number for number, frames in enumerate(clips.values()) for _ in frames]
        if kept == "memory":
            self._videos.remove()

    def report(self) -> str:
        """What was found, in a few lines fit for printing: used, skipped with reasons, ignored, and clips."""
        count = len(self.clip_names)
        kept = "\nframes of videos lie on disk as it is, for this run" if self._kept_anyway else ""
        return f"{super().report()}\nthey are frames of {count} clip{'s' * (count != 1)}{kept}"

    def originals(self, rows: Sequence[int], size: int) -> Iterator[Image.Image]:
        """As of any set; a video is decoded once, and not from a key frame on for each of its frames."""
        names = [self.paths[row] for row in rows]
        return self._videos.images(names, size) if names[0] in self._videos else super().originals(rows, size)

    def stamps(self) -> Iterator[tuple[Any, ...]]:
        """Names of the files that are read, videos too, each with size and date."""
        yield from ((name, *stamp(self.root / name)) for name in self.paths if name not in self._videos)
        yield from ((name, *stamp(path)) for name, path in self._videos.files.items())

    def _size(self, name: str) -> tuple[int, int]:
        return self._videos.size(name) if name in self._videos else super()._size(name)

    def _pixels(self, name: str, box: Box | None) -> torch.Tensor:
        return self._videos.pixels(name) if name in self._videos else super()._pixels(name, box)

    def _picture(self, name: str) -> Image.Image:
        return self._videos.image(name) if name in self._videos else super()._picture(name)


def find_media(root: Path) -> tuple[list[str], dict[str, Path], list[str]]:
    """Images, videos with their paths, and other files below a folder, by relative path; or one image or video alone.

    Raises:
        ValueError: there is neither image nor video.
    """
    kinds = f"images ({', '.join(IMAGE_SUFFIXES)}) or videos ({', '.join(USUAL)} and others that PyAV reads)"
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
