"""Image files, and a folder of them, as a data set."""

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ppl_fast._documents import check_regular
from ppl_fast._files import OVERLAY
from ppl_fast.data.image_file import load_resized, load_upright, upright_size
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES, kind_of
from ppl_fast.data.label_files.deeplabcut import DRAWN, FRAMES, VIDEOS, is_project

_OVERLAID = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)  # `a.jpg` becomes `a.jpg.png`
COMPANION_SUFFIXES = (".npz", ".json", ".csv", ".yaml", ".yml", ".md", ".txt", ".h5", ".slp", ".pickle")

_LOOKED_AT = 65_536  # bytes at either end of a file, where `OVERLAY` would stand


class ImageFiles(ImageSet):
    """Image files below a folder, by their relative paths.

    EXIF orientation is honoured; grayscale, palette, CMYK and 16-bit images become RGB (12 bits in 16 are told by the
    file, or by no value above 4095); transparent ones are laid on white. HEIC needs the extra of that name. Images are
    stretched to the square, antialiased, with half-pixel centres (see `ppl_fast.data.to_pixels`).

    When the set is built, every file's header is read and its end looked for, so that truncated files are found
    before any work starts; with a cache every image is decoded then. Files that fail are skipped and kept with
    the reason in `skipped`. A body that turns out to be damaged only when it is decoded later raises
    `ValueError` with the file's name: leaving it out silently would change the order of a resumed run.

    Arguments, attributes and errors are those of `ImageSet`; `names` are paths below `root`, forward slashes.
    """

    def __init__(self, root: str | os.PathLike[str], names: list[str], image_size: int, **options: Any):
        super().__init__(folder_of(Path(root)), names, image_size, **options)

    def _size(self, name: str) -> tuple[int, int]:
        return upright_size(self.root / name, self.image_size, self.max_pixels)

    def _load(self, name: str) -> torch.Tensor:
        return load_resized(self.root / name, self.image_size, self.max_pixels)

    def _picture(self, name: str) -> Image.Image:
        return load_upright(self.root / name, self.max_pixels)


class ImageFolder(ImageFiles):
    """All images below a folder, each resized to a square; labels are neither needed nor read.

    Nested files that `kind_of` takes for images, in the sorted order of their relative paths, read as by `ImageFiles`.
    Runs of `train` below the folder, and overlays that were written there, are left out.

    Args:
        root: the folder, or one image file.
        image_size: S; `dataset[i]` is a float32 tensor (3, S, S) in [-1, 1].
        cache: where to keep the resized images; see `ImageSet`.
        max_bad_share: above this share of unreadable images the folder is refused.
        max_pixels: that may be decoded at once; see `ImageSet`.

    Attributes:
        paths: relative paths with forward slashes, sorted.
        original_sizes: (W, H) of each image, upright.
        skipped: (path, reason) of image files left out.
        ignored: paths of files that are no images by their suffix; hidden files and companions such as labels,
            configuration and text are not listed.

    Raises:
        ValueError: missing or empty folder, too many unreadable images, sizes out of range.
    """

    def __init__(self, root: str | os.PathLike[str], image_size: int, **options: Any):
        names, self.ignored = list_files(Path(root))
        if not names:
            raise ValueError(f"ImageFolder: expected {', '.join(IMAGE_SUFFIXES)} files in {root}, got none")
        super().__init__(root, names, image_size, **options)


def folder_of(root: Path) -> Path:
    """What names are relative to: the folder, or that of the one file."""
    return root.parent if root.is_file() else root


def list_files(root: Path) -> tuple[list[str], list[str]]:
    """Relative paths of (images, other files) below `root`, each sorted; hidden and companion files left out.

    Of a single image file, its name. A run of `train` counts as one other file, and overlays, `a.jpg.png`, are others.
    Of a project of DeepLabCut or Lightning Pose, the labelled frames and videos alone, without drawn ones.
    """
    if root.is_file() and kind_of(root) == "image":
        return [root.name], []
    if not root.is_dir():
        state = "not a folder" if root.exists() else "missing"
        raise ValueError(f"ImageFolder: {root} is {state}; expected a folder of images")
    images: list[str] = []
    others: list[str] = []
    entered: set[str] = set()  # folders that a link led to
    project = is_project(root)
    for folder, subfolders, files in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        below = Path(folder).relative_to(root)
        if project:
            drawn, subfolders[:], files = _of_project(below, subfolders, files)
            others += drawn
        runs = [name for name in subfolders if _is_run(Path(folder, name))]
        others += [f"{(below / name).as_posix()}/ (a training run)" for name in runs]
        subfolders[:] = sorted(name for name in subfolders if not (name.startswith(".") or name in runs))
        # A link to a folder above would be followed for ever, and links to one another's folders, too.
        subfolders[:] = [name for name in subfolders if not _is_known(Path(folder, name), here, entered)]
        for name in files:
            path, suffix = (below / name).as_posix(), Path(name).suffix.lower()
            if name.startswith(".") or suffix in COMPANION_SUFFIXES:
                continue
            if Path(name).stem.lower().endswith(_OVERLAID) and _is_overlay(Path(folder, name)):
                others.append(f"{path} (an overlay)")
                continue
            (images if kind_of(Path(folder, name)) == "image" else others).append(path)
    return sorted(images), sorted(others)


def _of_project(below: Path, subfolders: list[str], files: list[str]) -> tuple[list[str], list[str], list[str]]:
    """What was drawn in a folder of a project, by its path; and the folders and files there that are footage."""
    drawn = [name for name in (*subfolders, *files) if Path(name).stem.endswith(DRAWN)]
    folders, kept = ([name for name in names if name not in drawn] for names in (subfolders, files))
    if below == Path():
        folders, kept = [name for name in folders if name in (FRAMES, VIDEOS)], []
    return [f"{(below / name).as_posix()} (drawn by the project's program)" for name in drawn], folders, kept


def _is_known(folder: Path, parent: Path, entered: set[str]) -> bool:
    """Whether a link leads to a folder above it, or where another link has led already; `entered` takes note."""
    if not folder.is_symlink():
        return False
    target = os.path.realpath(folder)
    if target in entered or parent.is_relative_to(target):
        return True
    entered.add(target)
    return False


def _is_overlay(path: Path) -> bool:
    """Whether a picture or video was drawn here, by what is written at its beginning or end."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            ends = file.read(_LOOKED_AT)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOOKED_AT))
            return OVERLAY.encode() in ends + file.read(_LOOKED_AT)
    except (OSError, ValueError):
        return False


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run of `train`, whose pictures show what was learned."""
    return (folder / "config.yaml").is_file() and any(
        (folder / name).exists() for name in ("log.jsonl", "checkpoints", "model/model.safetensors")
    )
