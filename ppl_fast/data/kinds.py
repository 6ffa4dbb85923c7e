"""Which files are images, which are videos, and how large they may be."""

from pathlib import Path
from typing import Literal

from ppl_fast._documents import MAX_PIXELS as MAX_PIXELS
from ppl_fast._documents import check_regular

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm")
# In a folder; what they hold is looked at, and any format that PyAV reads will do.
VIDEO_SUFFIXES = (
    ".264", ".265", ".3g2", ".3gp", ".amv", ".asf", ".avi", ".dav", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264",
    ".h265", ".hevc", ".ivf", ".lrv", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mod",
    ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod",
    ".trp", ".ts", ".vob", ".webm", ".wmv", ".wtv", ".y4m",
)  # fmt: skip
OF_TEXTS_TOO = (".mod", ".ts")  # modules, and TypeScript


def kind_of(path: Path) -> Literal["image", "video", "other"]:
    """What a file is by its suffix, and where that is of two kinds, by what is in it.

    A GIF is a video if it moves, and else an image, as one that does not open is. Of `OF_TEXTS_TOO`, text is no video.
    """
    suffix = path.suffix.lower()
    if suffix == ".gif":
        return "video" if _moves(path) else "image"
    if suffix in OF_TEXTS_TOO and _is_text(path):
        return "other"
    return "image" if suffix in IMAGE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else "other"


def _is_text(path: Path) -> bool:
    try:
        check_regular(path)
        with open(path, "rb") as file:
            return b"\0" not in file.read(4096)
    except (OSError, ValueError):
        return False


def _moves(path: Path) -> bool:
    from ppl_fast.data.image_file import opened
    from ppl_fast.data.image_set import UNREADABLE

    try:
        with opened(path) as image:
            return bool(getattr(image, "is_animated", False))
    except UNREADABLE:
        return False
