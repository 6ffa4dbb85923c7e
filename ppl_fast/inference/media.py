"""What is to be estimated, looked at: folders, videos, images, tensors and data sets become sources."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ppl_fast import _check
from ppl_fast._documents import MAX_PIXELS
from ppl_fast._extras import needing
from ppl_fast.data.kinds import kind_of
from ppl_fast.inference.frames import Frames
from ppl_fast.inference.sources import Images, Losses, Source

if TYPE_CHECKING:
    from ppl_fast.data.box_files import Row
    from ppl_fast.data.framing import Views
    from ppl_fast.data.loading import Pictures
    from ppl_fast.data.shards import Shard
    from ppl_fast.data.video import Video
    from ppl_fast.options.footage import Framing


@dataclass(frozen=True)
class Media:
    """What `open_source` found.

    Attributes:
        parts: to estimate, in order.
        losses: what was left out, and may be; what is found while iterating comes to it. None where none may be.
        report: what was found, in a few lines fit for printing.
        root: the folder or file, where the source is one.
        boxes: that are looked into, of images and videos; none where all is seen.
    """

    parts: list[Source]
    losses: Losses | None = None
    report: str = ""
    root: Path | None = None
    boxes: Sequence[Row] = ()

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(name, reason) of the files that were left out so far."""
        return [] if self.losses is None else list(self.losses.skipped)

    @property
    def moving(self) -> bool:
        """Whether there are frames of videos."""
        return any(isinstance(part, Frames) for part in self.parts)

    @property
    def several(self) -> bool:
        """Whether there are several videos, or images beside one."""
        return self.moving and len(self.parts) > 1

    @property
    def single(self) -> bool:
        """Whether it is one video or image by itself, and no folder."""
        return self.root is not None and self.root.is_file() and kind_of(self.root) != "other"


def open_source(
    source: str | os.PathLike[str] | Video | Pictures,
    image_size: int | None = None,
    *,
    workers: int = 0,
    max_bad_share: float = 0.1,
    max_pixels: int = MAX_PIXELS,
    framing: Framing | None = None,
) -> Media:
    """Look at what is to be estimated: files are listed, and looked at as far as it takes to know that they open.

    Args:
        source: the path of a folder of images and videos, searched recursively, of one image or video, or of a SLEAP
            project that packs its images; shards, as `ppl_fast.data.shards.find_shards` takes them; a
            `ppl_fast.data.video.Video`; a tensor (n, 3, S, S) in [-1, 1]; or a map-style data set of (3, S, S).
        image_size: S, that files are resized to; tensors and data sets have theirs.
        workers: processes that load images.
        max_bad_share: a folder is refused where more than this share of its images and videos is unusable.
        max_pixels: that an image or a frame of a file may decode to; see `ppl_fast.data.ImageFolder`.
        framing: what is to be seen of files; None for all of them. Tensors and data sets are as they are.

    Raises:
        TypeError: none of these.
        ValueError: nothing to estimate there, too many unusable files, a video that does not open, or another shape.
        ImportError: an extra is not installed.
    """
    if isinstance(source, (str, os.PathLike)):
        with needing("estimate needs", "data"):
            from ppl_fast.data.shards import find_shards
        if shards := find_shards(source):
            limits: dict[str, Any] = {"max_bad_share": max_bad_share, "max_pixels": max_pixels}
            return _open_shards(shards, os.fspath(source), _size(image_size), workers, framing, limits)
        return _open_files(Path(source), _size(image_size), workers, max_bad_share, max_pixels, framing)
    if isinstance(source, Tensor):
        _check.tensor("estimate", "source", source, ("n", 3, "S", "S"))
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        if not len(source):
            raise ValueError("estimate: source must hold at least one image, got none")
        return Media([Images(source, workers)])
    with needing("estimate needs", "data"):
        from ppl_fast.data.framing import views_of
        from ppl_fast.data.video import Video
    if isinstance(source, Video):
        own = {source.path.name: source.path}
        views = views_of(framing, source.path.parent, [], own, source.max_pixels, keep=True)
        return Media([Frames(source, _size(image_size), views=views)], root=source.path)
    raise TypeError(
        f"estimate: source must be a path, a video, a tensor or a data set of images, got {type(source).__name__}"
    )


def _open_files(
    root: Path, image_size: int, workers: int, max_bad_share: float, max_pixels: int, framing: Framing | None
) -> Media:
    from ppl_fast.data import ImageFolder
    from ppl_fast.data.clips import find_media
    from ppl_fast.data.framing import views_of
    from ppl_fast.data.images import folder_of
    from ppl_fast.data.packed import PackedImages, packing
    from ppl_fast.data.video import Video
    from ppl_fast.data.video_frames import open_videos

    limits: dict[str, Any] = {"max_bad_share": max_bad_share, "max_pixels": max_pixels}
    if packed := packing(root):
        inside = PackedImages(packed, image_size, framing=framing, keep=True, **limits)
        lost = Losses("images", len(inside) + len(inside.skipped), max_bad_share, inside.skipped)
        return Media([Images(inside, workers, losses=lost)], lost, inside.report(), root, _boxes(inside.views))
    images, videos, others = find_media(root)
    if root.is_file() and videos:
        video = Video(root, max_pixels)
        views = views_of(framing, root.parent, [], videos, max_pixels, keep=True)
        report = "\n".join(views.report) if views else ""
        return Media([Frames(video, image_size, views=views)], None, report, root, _boxes(views))
    opened, skipped = open_videos(videos, max_pixels)
    kinds = [kind for kind, files in (("images", images), ("videos", videos)) if files]
    losses = Losses(" and ".join(kinds), len(images) + len(videos), max_bad_share, skipped)
    losses.check()
    lines = [f"{len(opened)} video{'s' * (len(opened) != 1)}"] if videos else []
    lines += [f"skipped {name}: {reason}" for name, reason in skipped]
    whole = {name: videos[name] for name in opened}
    views = views_of(framing, folder_of(root), images, whole, max_pixels, keep=True)
    parts: list[Source] = []
    if views and not images:
        lines += views.report
    if images:
        dataset = ImageFolder(root, image_size, views=views, beside=len(videos), **limits)
        dataset.ignored = others  # not the videos
        lines.append(dataset.report())
        losses.skipped.extend(dataset.skipped)
        losses.check()
        parts += [Images(dataset, workers, losses=losses)] if len(dataset) else []
    parts += [Frames(video, image_size, name, losses, views) for name, video in opened.items()]
    return Media(parts, losses, "\n".join(lines), root, _boxes(views))


def _boxes(views: Views | None) -> Sequence[Row]:
    return () if views is None else views.rows or ()


def _open_shards(
    shards: list[Shard], spec: str, image_size: int, workers: int, framing: Framing | None, limits: dict[str, Any]
) -> Media:
    from ppl_fast.data.shards import ShardedImages

    inside = ShardedImages(shards, image_size, spec=spec, framing=framing, keep=True, **limits)
    lost = Losses("images", len(inside) + len(inside.skipped), limits["max_bad_share"], inside.skipped)
    root = Path(spec) if os.path.exists(spec) else None
    return Media([Images(inside, workers, losses=lost)], lost, inside.report(), root, _boxes(inside.views))


def _size(image_size: int | None) -> int:
    if image_size is None:
        raise TypeError("open_source: image_size must be given for files, got None")
    return image_size
