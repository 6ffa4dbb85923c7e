"""Published data sets by name, beside plain folders: `open_set("human36m:ROOT", 128)`.

Each reads the layout that its authors, AutoLink or PPL published; nothing is downloaded. Labels are read only when
asked for.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from ppl_fast._documents import MAX_PIXELS
from ppl_fast._files import readable
from ppl_fast.data.clips import ClipFolder, find_media
from ppl_fast.data.framing import views_of
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.images import ImageFolder, folder_of, list_files
from ppl_fast.data.kinds import kind_of
from ppl_fast.data.label_files import has_labels, load_labels
from ppl_fast.data.labels import Labels
from ppl_fast.data.packed import PackedImages, packing
from ppl_fast.data.sets.cub import CUB, CUB001, CUB002, CUB003, CUBThree
from ppl_fast.data.sets.folders import Dogs, Hands, Horses, Zebras, flowers
from ppl_fast.data.sets.footage import in_media
from ppl_fast.data.sets.human36m import Human36M, Human36MMasked
from ppl_fast.data.sets.layout import LayoutError, Published
from ppl_fast.data.sets.taichi import TaichiFrames, TaichiVideos
from ppl_fast.data.shards import ShardedImages, find_shards
from ppl_fast.options.footage import Framing, Selection

__all__ = ["SETS", "SPLITS", "LabelledSet", "LayoutError", "known_name", "open_set"]

SPLITS = ("train", "fit", "test")


def _taichi(root: str | os.PathLike[str], image_size: int, split: str, **options: Any) -> TaichiVideos | TaichiFrames:
    """Videos to train on, other frames to fit the regression on and to test."""
    if split == "train":
        return TaichiVideos(root, image_size, split, **options)
    return TaichiFrames(root, image_size, "train" if split == "fit" else "test", **options)


def _same(kind: Callable[..., Published]) -> Callable[..., Published]:
    """A data set whose regression is fitted on the images trained on."""
    return lambda root, image_size, split, **options: kind(
        root, image_size, "train" if split == "fit" else split, **options
    )


SETS: dict[str, Callable[..., Published]] = {
    **{
        kind.name: _same(kind)
        for kind in (Human36M, Human36MMasked, CUB, CUBThree, CUB001, CUB002, CUB003, Hands, Horses, Zebras, Dogs)
    },
    "flowers": _same(flowers),
    "taichi": _taichi,
}


@dataclass
class LabelledSet:
    """Images, and what is needed to measure on them.

    Attributes:
        dataset: `ImageSet`-like.
        name: of the published data set, or of the folder.
        protocol: keyword arguments of `ppl_fast.evaluation.regression`; none is AutoLink's protocol.
    """

    dataset: Any
    name: str
    protocol: dict[str, Any] = field(default_factory=dict)
    read_labels: Callable[[], Labels | None] = lambda: None

    @cached_property
    def labels(self) -> Labels | None:
        """The labels, read on first use; None where there are none.

        Raises:
            ValueError: a label file that cannot be read; it is named.
        """
        return self.read_labels()


def known_name(spec: str | os.PathLike[str]) -> str | None:
    """The published data set that `spec` names, as in `human36m:ROOT`; None for anything else, and for folders."""
    name, colon, _ = str(spec).partition(":")
    return name if colon and name in SETS and not Path(spec).exists() else None


def open_set(
    spec: str | os.PathLike[str],
    image_size: int,
    *,
    split: str = "train",
    cache: str = "no",
    max_bad_share: float = 0.1,
    max_pixels: int = MAX_PIXELS,
    choice: Selection | None = None,
    framing: Framing | None = None,
    labels: str | os.PathLike[str] | None = None,
    individual: str | None = None,
) -> LabelledSet:
    """A folder of images, or a published data set by name.

    Args:
        spec: a folder of images and videos, with labels beside them where there are any (see `load_labels`), such as a
            project of DeepLabCut or Lightning Pose; or one video, or a SLEAP project that packs its images
            (`.pkg.slp`); or shards, as `ppl_fast.data.shards.find_shards` takes them; or `NAME:ROOT`, a name in `SETS`
            and the folder that holds the data set. What exists as a folder is one, whatever its name.
        image_size: S; images are float32 (3, S, S) in [-1, 1].
        split: train: what models learn from; fit: labelled images for the regression from keypoints to joints, other
            than train for Taichi alone; test. A plain folder is the same for all, but that of its videos only the
            labelled frames are fitted and tested on.
        cache: where to keep the resized images, see `ImageSet`.
        max_bad_share: above this share of unreadable images the set is refused.
        max_pixels: images that decode to more are unreadable.
        choice: which frames of a folder's clips and videos are trained on; None takes all.
        framing: what is seen of each image; None stretches the whole to the square.
        labels: file or folder of a folder's labels, where they do not lie beside the images.
        individual: whose joints to take from labels that have several.

    Raises:
        LayoutError: ROOT does not have the published layout.
        ValueError: unknown name or split, or what the data set raises.
    """
    if split not in SPLITS:
        raise ValueError(f"open_set: split must be one of {', '.join(SPLITS)}, got {split!r}")
    options: dict[str, Any] = {"cache": cache, "max_bad_share": max_bad_share, "max_pixels": max_pixels}
    name = known_name(spec)
    if name:
        for what, given in {"choice of frames": choice, "other labels": labels, "individual": individual}.items():
            if given is not None:
                raise ValueError(f"open_set: {spec} is a published data set, which takes no {what}")
        root = Path(str(spec).partition(":")[2]).expanduser()
        views = views_of(framing, root, [], {}, max_pixels)
        dataset = SETS[name](root, image_size, split, views=views, **options)
        return LabelledSet(dataset, name, dataset.protocol, dataset.read_labels)
    if shards := find_shards(spec):
        images = ShardedImages(shards, image_size, spec=os.fspath(spec), framing=framing, **options)
        beside = partial(load_labels, labels, individual) if labels is not None else lambda: None
        return LabelledSet(images, os.fspath(spec), read_labels=beside)
    root = Path(spec)
    if ":" in str(spec) and not root.exists():
        raise ValueError(f"{spec}: no such folder, and no known data set; known are {', '.join(SETS)} (NAME:ROOT)")
    options |= {"framing": framing or Framing()}
    if packed := packing(root):
        inside = partial(load_labels, packed if labels is None else labels, individual)
        return LabelledSet(PackedImages(packed, image_size, **options), packed.name, read_labels=inside)
    read = partial(_beside, root, labels, individual)
    if not _has_videos(root):
        if root.is_dir() and not list_files(root)[0] and (known := read()) is not None:
            raise _images_are_missing(known, root)
        return LabelledSet(_image_folder(root, image_size, **options), root.name, read_labels=read)
    if split != "train" and (known := read()) is not None:
        return _labelled(root, image_size, known, options)
    return LabelledSet(clip_folder(root, image_size, choice=choice, **options), root.name, read_labels=read)


def check_media(spec: str | os.PathLike[str]) -> None:
    """Raise a ValueError unless there are images or videos, shards, or a project that may pack some."""
    if not find_shards(spec) and packing(Path(spec)) is None:
        find_media(Path(spec))


def clip_folder(root: Path, image_size: int, framing: Framing, **options: Any) -> ClipFolder:
    """A `ClipFolder` whose images and frames are seen as `framing` says."""
    images, videos, _ = find_media(root)
    views = views_of(framing, folder_of(root), images, videos, options.get("max_pixels", MAX_PIXELS))
    return ClipFolder(root, image_size, views=views, **options)


def _image_folder(root: Path, image_size: int, framing: Framing, **options: Any) -> ImageFolder:
    images, videos, _ = find_media(root)
    folders = {PurePosixPath(name).parent.name for name in images}
    beside = {name: path for name, path in videos.items() if PurePosixPath(name).stem in folders}
    views = views_of(framing, folder_of(root), images, {}, options.get("max_pixels", MAX_PIXELS), beside=beside)
    return ImageFolder(root, image_size, views=views, **options)


def _labelled(root: Path, image_size: int, labels: Labels, options: dict[str, Any]) -> LabelledSet:
    """The labelled images and frames of a folder with videos, to fit and to measure on."""
    labels, frames = in_media(labels, root)
    if frames:
        dataset: ImageSet = clip_folder(root, image_size, choice=Selection(only=frames), **options)
    elif list_files(root)[0]:
        dataset = _image_folder(root, image_size, **options)
    else:
        raise _images_are_missing(labels, root)
    return LabelledSet(dataset, root.name, read_labels=lambda: labels)


def _images_are_missing(labels: Labels, root: Path) -> ValueError:
    example = f", such as {readable(labels.files[0])}" if labels.files else ""
    return ValueError(f"the labels are of {len(labels.files)} images{example}, and {root} has no image")


def _has_videos(root: Path) -> bool:
    files = [root] if root.is_file() else [root / name for name in list_files(root)[1]]
    return any(kind_of(file) == "video" for file in files)


def _beside(root: Path, labels: str | os.PathLike[str] | None, individual: str | None) -> Labels | None:
    """Labels of a file, or in the folder of the images, if any."""
    if labels is None and not has_labels(root):
        return None
    return load_labels(root if labels is None else labels, individual)
