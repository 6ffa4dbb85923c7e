"""The order of images by their names, and which of them are frames of one clip or video."""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import PurePosixPath


def natural(name: str) -> tuple[list[int | str], str]:
    """Sorting key by which digits count as numbers, 2 before 10; the name itself decides between 1 and 01."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split("([0-9]+)", name))], name


def by_clip(names: Sequence[str]) -> dict[str, list[str]]:
    """Clip to frames, both in natural order: in the folder part of the name, then in the rest."""
    paths = sorted(map(PurePosixPath, names), key=lambda path: (natural(str(path.parent)), natural(path.name)))
    return {str(clip): [str(path) for path in paths] for clip, paths in groupby(paths, key=lambda path: path.parent)}


def video_of(folder: str, videos: Iterable[str]) -> str | None:
    """The one video whose name a folder of its frames has, as in a project of DeepLabCut; None where there is none."""
    named = [video for video in videos if PurePosixPath(video).stem == PurePosixPath(folder).name]
    return named[0] if len(named) == 1 else None
