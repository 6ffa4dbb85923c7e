"""Video files read frame by frame, and written, by PyAV (the `video` extra). No more than a frame is ever held."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from ppl_fast._extras import needing
from ppl_fast._files import OVERLAY, replacing

if TYPE_CHECKING:
    from av import VideoFrame, VideoStream
    from av.container import InputContainer

VIDEO_SUFFIXES = (".avi", ".mkv", ".mov", ".mp4", ".webm")
WRITTEN = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4"}  # suffix -> FFmpeg's name of the format
H264, MPEG4 = ("libx264", {"crf": "18", "preset": "veryfast"}), ("mpeg4", {"qmin": "2", "qmax": "4"})
FINEST_TICK = Fraction(1, 60_000)  # MPEG-4, where no H.264 encoder is there, counts no more than 65,535 a second
COMPLETE = 0.9  # a video that ends before this share of its announced duration was cut short
BT709 = MPEG_RANGE = 1  # FFmpeg's numbers for colours as in HD video
USUAL_RATE = Fraction(25)  # frames per second of a file that does not say

# First two columns' signs of FFmpeg's display matrix, row by row (x' = a x + c y, y' = b x + d y for the stored pixel
# (x, y), rows a b and c d) -> the transposition that turns the stored frame upright.
_UPRIGHT = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}


class Frame(NamedTuple):
    """One frame: its number in the video from 0, seconds since the first frame, the upright RGB image, timestamp."""

    number: int
    time: float
    image: Image.Image
    pts: int | None


class Video:
    """A video file, opened anew by each method, with its display matrix (rotation and mirroring) honoured.

    Attributes:
        path: the file.
        size: (W, H) of the upright frames.
        rate: average frames per second.
        tick: seconds, as a fraction, of which the frames' times are multiples.
        length: number of frames as the file announces it, or its estimate by duration and rate; None if unknown.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not decode, or has no video stream or frame.
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"video {self.path} does not exist")
        with self._opened() as (container, stream):
            first = next(container.decode(stream), None)
            if first is None:
                raise ValueError(f"video {self.path} holds no frame that decodes")
            self.size = _upright(first).size
            self.rate = stream.average_rate or USUAL_RATE
            self.tick = stream.time_base or 1 / self.rate
            self._start = first.pts or 0
            known = stream.duration * self.tick if stream.duration else (container.duration or 0) / 1_000_000
            self._seconds = float(known)
            self.length = stream.frames or round(self._seconds * self.rate) or None

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Every `every`-th frame in the order shown, from the first on.

        Raises:
            ValueError: a frame does not decode or changes its size, or the video ends well before its announced end.
        """
        time = 0.0
        with self._opened() as (container, stream):
            for number, raw in enumerate(container.decode(stream)):
                time = float(number / self.rate if raw.pts is None else (raw.pts - self._start) * self.tick)
                if number % every == 0:
                    frame = Frame(number, time, _upright(raw), raw.pts)
                    if frame.image.size != self.size:
                        raise ValueError(
                            f"video {self.path} changes its size from {self.size} to {frame.image.size} at {time:.3f} s"
                        )
                    yield frame
        covered = time + float(1 / self.rate)
        if covered < COMPLETE * self._seconds:
            raise ValueError(f"video {self.path} was cut short: it ends after {covered:.3f} of {self._seconds:.3f} s")

    def image(self, number: int, pts: int | None) -> Image.Image:
        """The frame of a number and timestamp that `frames` gave, found by seeking where the file allows it."""
        if pts is not None:
            with self._opened() as (container, stream):
                container.seek(pts, stream=stream)
                for raw in container.decode(stream):
                    if raw.pts == pts:
                        return _upright(raw)
                    if raw.pts is None or raw.pts > pts:
                        break
        return next(frame.image for frame in self.frames() if frame.number == number)

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        """Container and video stream; what fails while they are in use becomes one sentence about the file."""
        av = _av()
        try:
            with av.open(str(self.path), metadata_errors="replace") as container:
                if not container.streams.video:
                    raise ValueError(f"{self.path} has no video stream; a file that was cut short may look so too")
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                yield container, stream
        except av.FFmpegError as error:
            raise ValueError(f"{self.path} could not be decoded as a video: {error.strerror}") from error


@contextmanager
def video_writer(
    path: str | os.PathLike[str], size: tuple[int, int], rate: Fraction, tick: Fraction
) -> Iterator[Callable[[Image.Image, float], None]]:
    """A function `write(image, time)` that appends frames to a video, which appears whole or not at all.

    H.264 in yuv420p, or in yuv444p for odd sizes, which its yuv420p does not have; MPEG-4 where PyAV has no H.264.

    Args:
        path: .mp4, .mov or .mkv; replaced when the block ends well.
        size: (W, H) in pixels of every image.
        rate: nominal frames per second.
        tick: seconds of which the times are multiples, such as `Video.tick`; 1 / rate is fine for a steady rate.

    Raises:
        ValueError: a suffix of another format.
        OSError: the file cannot be written.
        ImportError: PyAV is not installed.
    """
    av, path = _av(), Path(path)
    check_written(path)
    tick = tick if tick.denominator <= 65_535 else FINEST_TICK
    try:
        with replacing(path) as temporary, av.open(str(temporary), "w", format=WRITTEN[path.suffix.lower()]) as output:
            output.metadata["comment"] = OVERLAY
            name, options = H264 if H264[0] in av.codecs_available else MPEG4
            stream = output.add_stream(name, rate=rate, options=options)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv444p" if (size[0] % 2 or size[1] % 2) and name != "mpeg4" else "yuv420p"
            stream.codec_context.time_base = tick
            # Players guess what a file does not say.
            stream.codec_context.colorspace, stream.codec_context.color_range = BT709, MPEG_RANGE

            def write(image: Image.Image, time: float) -> None:
                frame = av.VideoFrame.from_image(image)
                frame = _converted(frame, format=stream.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
                frame.pts, frame.time_base = round(time / tick), tick
                output.mux(stream.encode(frame))

            yield write
            output.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise OSError(f"{path} could not be written: {error.strerror}") from error


def check_written(path: str | os.PathLike[str]) -> None:
    """Raise a ValueError unless the suffix names a format that `video_writer` writes."""
    if Path(path).suffix.lower() not in WRITTEN:
        raise ValueError(f"{path} must end in {', '.join(WRITTEN)} to be written as a video")


def _converted(raw: VideoFrame, **options: Any) -> VideoFrame:
    """A frame in another format, by this thread alone.

    A converter with threads of its own may outlive the frame among Python's garbage. In a process that was forked from
    this one, as a loader's are, there are no such threads, and freeing it there would wait for them for ever.
    """
    try:
        return raw.reformat(**options, threads=1)
    except TypeError:  # a PyAV whose converters have no threads
        return raw.reformat(**options)


def _upright(raw: VideoFrame) -> Image.Image:
    image, matrix = _converted(raw, format="rgb24").to_image(), raw.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    # What PyAV calls an object here is a buffer.
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))  # type: ignore[call-overload]
    signs = tuple((value > 0) - (value < 0) for value in (a, b, c, d))
    return image.transpose(_UPRIGHT[signs]) if signs in _UPRIGHT else image


def _av() -> ModuleType:
    with needing("videos need", "video"):
        import av
    return av
