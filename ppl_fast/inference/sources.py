"""What poses are estimated of: folders, videos, tensors and data sets, each read batch by batch and in order."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ppl_fast import _check
from ppl_fast._extras import needing
from ppl_fast.inference.poses import Origins

if TYPE_CHECKING:
    from PIL.Image import Image

    from ppl_fast.data.loading import Pictures
    from ppl_fast.data.video import Video


class Source(ABC):
    """Images of one kind in order: those of a folder or a tensor, or the frames of one video.

    Attributes:
        name: for the progress bar.
        unit: what one of them is called.
        length: how many there are, as far as that is known before they are read; else None.
    """

    name: str
    unit: str
    length: int | None

    @abstractmethod
    def read(self, batch_size: int) -> Iterator[tuple[Origins, Tensor]]:
        """Batches in order, no sooner than they are asked for.

        Returns:
            Pairs: where the images come from, and float32 (n, 3, S, S) in [-1, 1] on the CPU.

        Raises:
            ValueError: an image or frame does not decode; it is named.
        """


class Images(Source):
    """A tensor (n, 3, S, S), or a map-style data set of (3, S, S), in [-1, 1].

    A data set may tell `paths`, `original_sizes` and `original(i)`, as `ppl_fast.data.ImageFolder` does; without
    them, images go by their number and are their own originals.

    Args:
        images: the tensor or data set.
        workers: processes that load images; 0 loads in the calling one.
        name: for the progress bar.
    """

    unit = "image"

    def __init__(self, images: Pictures, workers: int = 0, name: str = "poses"):
        self.images, self.workers, self.name, self.length = images, workers, name, len(images)

    def read(self, batch_size: int) -> Iterator[tuple[Origins, Tensor]]:
        """See `Source.read`."""
        first = 0
        images = cast("Dataset[Tensor]", self.images)  # which of a map-style data set asks no more than `Pictures`
        for pixels in DataLoader(images, batch_size=batch_size, num_workers=self.workers):
            yield self._origins(first, pixels), pixels
            first += len(pixels)

    def _origins(self, first: int, pixels: Tensor) -> Origins:
        rows = slice(first, first + len(pixels))
        names, sizes = (getattr(self.images, name, None) for name in ("paths", "original_sizes"))
        original = getattr(self.images, "original", None)

        def picture(index: int) -> Image:
            if original is not None:
                found: Image = original(first + index)
                return found
            from ppl_fast.visualization._draw import to_image

            return to_image(pixels[index], 1, "Origins.image")

        own = [(pixels.shape[3], pixels.shape[2])] * len(pixels)
        return Origins(
            names=[f"{i:06d}" for i in range(rows.start, rows.stop)] if names is None else list(names[rows]),
            sizes=np.asarray(own if sizes is None else sizes[rows], dtype=np.int64),
            frames=[None] * len(pixels),
            times=[None] * len(pixels),
            picture=picture,
        )


class Frames(Source):
    """The frames of a video, decoded as they are asked for.

    Args:
        video: the file.
        image_size: S, that frames are resized to.
        name: of the video, such as its path below a folder.
    """

    unit = "frame"

    def __init__(self, video: Video, image_size: int, name: str | None = None):
        self.video, self.image_size, self.name, self.length = video, image_size, name or video.path.name, video.length

    def read(self, batch_size: int) -> Iterator[tuple[Origins, Tensor]]:
        """See `Source.read`."""
        from ppl_fast.data.image_set import normalised, resized

        frames = self.video.frames()
        while batch := list(islice(frames, batch_size)):
            pictures = [frame.image for frame in batch]
            pixels = torch.stack([resized(picture, self.image_size) for picture in pictures])
            origins = Origins(
                names=[self.name] * len(batch),
                sizes=np.asarray([self.video.size] * len(batch), dtype=np.int64),
                frames=[frame.number for frame in batch],
                times=[frame.time for frame in batch],
                durations=[frame.duration for frame in batch],
                video=self.video,
                picture=pictures.__getitem__,
            )
            yield origins, normalised(pixels)


@dataclass(frozen=True)
class Media:
    """What `open_source` found.

    Attributes:
        parts: to estimate, in order.
        skipped: (name, reason) of files left out.
        report: what was found, in a few lines fit for printing.
        root: the folder or video, where the source is one.
    """

    parts: list[Source]
    skipped: list[tuple[str, str]] = field(default_factory=list)
    report: str = ""
    root: Path | None = None

    @property
    def moving(self) -> bool:
        """Whether there are frames of videos."""
        return any(isinstance(part, Frames) for part in self.parts)

    @property
    def single(self) -> bool:
        """Whether it is one video by itself, and no folder."""
        return self.moving and self.root is not None and self.root.is_file()


def open_source(
    source: str | os.PathLike[str] | Video | Pictures,
    image_size: int | None = None,
    *,
    workers: int = 0,
    max_bad_share: float = 0.1,
) -> Media:
    """Look at what is to be estimated: files are listed, and looked at as far as it takes to know that they open.

    Args:
        source: the path of a folder of images and videos, searched recursively, or of one video; a
            `ppl_fast.data.video.Video`; a tensor (n, 3, S, S) in [-1, 1]; or a map-style data set of (3, S, S).
        image_size: S, that files are resized to; tensors and data sets have theirs.
        workers: processes that load images.
        max_bad_share: a folder is refused where more than this share of its images, or of its videos, is unusable.

    Raises:
        TypeError: none of these.
        ValueError: nothing to estimate there, too many unusable files, a video that does not open, or another shape.
        ImportError: an extra is not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_files(Path(source), _size(image_size), workers, max_bad_share)
    if isinstance(source, Tensor):
        _check.tensor("estimate", "source", source, ("n", 3, "S", "S"))
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        if not len(source):
            raise ValueError("estimate: source must hold at least one image, got none")
        return Media([Images(source, workers)])
    with needing("estimate needs", "data"):
        from ppl_fast.data.video import Video
    if isinstance(source, Video):
        return Media([Frames(source, _size(image_size))], root=source.path)
    raise TypeError(
        f"estimate: source must be a path, a video, a tensor or a data set of images, got {type(source).__name__}"
    )


def _open_files(root: Path, image_size: int, workers: int, max_bad_share: float) -> Media:
    from ppl_fast.data import ImageFolder
    from ppl_fast.data.clips import check_share, find_media, open_videos
    from ppl_fast.data.video import Video

    images, videos, others = find_media(root)
    if root.is_file():
        return Media([Frames(Video(root), image_size)], root=root)
    opened, skipped = open_videos(videos)
    check_share(skipped, len(videos), max_bad_share)
    lines = [f"{len(opened)} video{'s' * (len(opened) != 1)}"] if videos else []
    lines += [f"skipped {name}: {reason}" for name, reason in skipped]
    parts: list[Source] = []
    if images:
        dataset = ImageFolder(root, image_size, max_bad_share=max_bad_share)
        dataset.ignored = others  # not the videos
        lines.append(dataset.report())
        skipped = skipped + dataset.skipped
        parts.append(Images(dataset, workers))
    parts += [Frames(video, image_size, name) for name, video in opened.items()]
    return Media(parts, skipped, "\n".join(lines), root)


def _size(image_size: int | None) -> int:
    if image_size is None:
        raise TypeError("open_source: image_size must be given for files, got None")
    return image_size
