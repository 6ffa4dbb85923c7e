"""A video file opened by PyAV (the `video` extra): this file alone, and the stream that a player shows."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ppl_fast._extras import needing

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import InputContainer

ALONE = {"protocol_whitelist": "none"}  # of FFmpeg: no file by its name
PADDING = 1 << 16  # pixels, which FFmpeg counts as well


@contextmanager
def opened_video(path: Path, max_pixels: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Container and video stream of a regular file; what fails while they are in use becomes one sentence about it.

    Raises:
        ValueError: it does not decode, or has no video stream, or one of more pixels a frame.
        ImportError: PyAV is not installed.
    """
    av, bounds = pyav(), {"max_pixels": str(PADDING + 2 * max_pixels)}
    # Metadata that is no UTF-8 matters to nobody here: from PyAV 19 on it is read without being asked.
    lenient = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
    try:
        # FFmpeg takes names for addresses, http:a.mp4 too, and would open what playlists name: it gets no names.
        with (
            _File(path) as file,
            av.open(file, options=bounds | ALONE, **lenient) as container,
        ):
            stream = _film(container)
            if stream is None:
                raise ValueError(f"{path} has no video stream; a file that was cut short may look so too")
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > max_pixels:
                limit = f"more than max_pixels allows, {max_pixels}"
                raise ValueError(f"video {path} has {width} x {height} pixels, {limit}")
            stream.codec_context.options = bounds  # sizes may change
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        raise ValueError(f"{path} could not be decoded as a video: {error.strerror}") from error


def pyav() -> ModuleType:
    """The package, or an ImportError that names the extra."""
    with needing("videos need", "video"):
        import av
    return av


class _File(io.BufferedReader):
    """A file for PyAV, which would keep an error of `seek` and raise it later, whatever FFmpeg made of it."""

    def __init__(self, path: Path):
        super().__init__(io.FileIO(path))

    def seek(self, offset: int, whence: int = 0) -> int:
        """The new position, or FFmpeg's code of an error."""
        try:
            return super().seek(offset, whence)
        except OSError as error:
            return -(error.errno or errno.EINVAL)


def _film(container: InputContainer) -> VideoStream | None:
    """The video stream that a player shows: FFmpeg's choice, unless that is a picture, such as an album's cover."""
    from av.stream import Disposition

    pictures, best = Disposition.attached_pic | Disposition.timed_thumbnails, container.streams.best("video")
    films = [stream for stream in container.streams.video if stream.codec_context is not None]
    films = [stream for stream in films if not stream.disposition & pictures]
    return next((stream for stream in films if best and stream.index == best.index), next(iter(films), None))
