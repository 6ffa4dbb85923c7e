"""Which files are images, and which are videos."""

from pathlib import Path
from typing import Literal

from ppl_fast._documents import check_regular

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pgm", ".ppm", ".heic",
    ".heif",
)  # fmt: skip
# In a folder; what they hold is looked at, and any format that PyAV reads will do. These are the extensions of FFmpeg's
# demuxers of films, and those of formats that it knows by their content alone; left out are sound, text and images, raw
# pixels, which do not say how large they are, and what more often is something else (.dat, .txt, .v, .avs).
VIDEO_SUFFIXES = (
    ".264", ".265", ".266", ".3g2", ".3gp", ".amv", ".apv", ".asf", ".avc", ".avi", ".avs2", ".avs3", ".cdxl", ".dav",
    ".divx", ".dv", ".dvr-ms", ".evc", ".f4v", ".flm", ".flv", ".gif", ".h261", ".h264", ".h265", ".h266", ".h26l",
    ".hevc", ".ifv", ".imx", ".ismv", ".ivf", ".ivr", ".kux", ".lrv", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mj2",
    ".mjpeg", ".mjpg", ".mk3d", ".mkv", ".mod", ".moflex", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mpv", ".mts",
    ".mvi", ".mxf", ".mxg", ".nut", ".obu", ".ogm", ".ogv", ".psp", ".qt", ".rcv", ".rm", ".rmvb", ".ser", ".tod",
    ".trp", ".ts", ".ty", ".usm", ".vc1", ".viv", ".vob", ".vvc", ".webm", ".wmv", ".wtv", ".xmv", ".y4m", ".yop",
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
    from ppl_fast.data.image_file import UNREADABLE, opened

    try:
        with opened(path) as image:
            return bool(getattr(image, "is_animated", False))
    except UNREADABLE:
        return False
