"""Video files read frame by frame by PyAV (the `video` extra), as a player shows them. One frame is held at a time."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from PIL import Image

from ppl_fast._documents import MAX_PIXELS, check_regular
from ppl_fast._options import integer
from ppl_fast.data.video_file import opened_video, pyav

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

ANNOUNCING = {"asf", "avi", "flv", "matroska", "mov", "mxf"}  # formats that say how long they are; of others FFmpeg
# makes a guess from the first and last timestamps, or from the bit rate
COMPLETE = 0.9  # a video that ends before this share of its announced duration was cut short
USUAL_RATE = Fraction(25)  # frames per second of a file that does not say

# Signs of the first two columns of FFmpeg's display matrix, row by row (x' = a x + c y, y' = b x + d y for the stored
# pixel (x, y), rows a b and c d) -> the transposition that turns the stored frame upright.
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
    """One frame.

    Attributes:
        number: in the video, from 0.
        time: seconds since the first frame.
        image: upright RGB, in the stored pixels or reduced, as `Video.frames` was asked.
        pts: timestamp to find it by, if it has one of its own.
        duration: seconds that it is shown for.
        whole: gives it upright in the stored pixels.
    """

    number: int
    time: float
    image: Image.Image
    pts: int | None
    duration: float
    whole: Callable[[], Image.Image]


class Video:
    """A video file, opened anew by each method: the stream that a player shows, turned as its display matrix says.

    No other file is opened, whatever this one names: playlists are refused.

    Args:
        path: the file.
        max_pixels: that a frame may have.

    Attributes:
        path: the file.
        size: (W, H) of the upright frames in stored pixels.
        aspect: width by height of such a pixel on the screen, 1 for square ones.
        rate: average frames per second.
        tick: seconds, as a fraction, of which the frames' times are multiples.
        length: number of frames as the file announces it, or its estimate by duration and rate; None if unknown.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file does not decode, is no regular one, or has no video stream or frame, or too large a one.
        ImportError: PyAV is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS):
        self.path, self.max_pixels = Path(path), integer("Video", "max_pixels", max_pixels, low=1)
        try:
            check_regular(self.path)
        except FileNotFoundError:
            raise FileNotFoundError(f"video {self.path} does not exist") from None
        except ValueError as error:
            raise ValueError(f"video {self.path}: {error}") from None
        with opened_video(self.path, self.max_pixels) as (container, stream):
            first = next(_decoded(container, stream), None)
            if first is None:
                raise ValueError(f"video {self.path} holds no frame that decodes")
            self.size = _size(first)
            aspect = Fraction(stream.sample_aspect_ratio or 1)
            self.aspect = 1 / aspect if _signs(first)[0] == 0 else aspect
            self.rate = stream.average_rate or stream.guessed_rate or USUAL_RATE
            self.tick = stream.time_base or 1 / self.rate
            seconds = _own_seconds(stream) or (container.duration or 0) / 1_000_000
            self.length = stream.frames or round(seconds * self.rate) or None

    def frames(
        self, every: int = 1, wanted: Callable[[int], bool] | None = None, size: int | None = None
    ) -> Iterator[Frame]:
        """Every `every`-th frame in the order shown, from the first on, as far as its number is `wanted`.

        Args:
            every: n for each n-th.
            wanted: whether a number is; None for all.
            size: S, where images will be resized to no more than S a side: FFmpeg then reduces them to twice that or
                little more, which takes a tenth of the time that it takes to hand over and resize a large frame.

        Raises:
            ValueError: a frame does not decode or changes its size, or the video ends well before its announced end.
        """
        others: list[float] = []  # ends in seconds of sound and the like
        clock, end = _Clock(self.tick, 1 / self.rate), 0.0
        with opened_video(self.path, self.max_pixels) as (container, stream):
            for number, raw in enumerate(_decoded(container, stream, others)):
                time, duration, pts = clock.read(raw)
                end = float(raw.pts * self.tick + duration if raw.pts is not None else time + duration)
                if number % every == 0 and (wanted is None or wanted(number)):
                    if (found := _size(raw)) != self.size:
                        raise ValueError(
                            f"video {self.path} changes its size from {self.size} to {found} at {float(time):.3f} s"
                        )
                    image, whole = _upright(raw, size), partial(_upright, raw)
                    yield Frame(number, float(time), image, pts, float(duration), whole)
            # Some formats count from the first frame, others from 0.
            self._check_end(container, stream, max(float(time + duration), end), others)

    def image(self, number: int, pts: int | None) -> Image.Image:
        """The frame of a number and timestamp that `frames` gave, found by seeking where the file allows it."""
        if pts is not None:
            with opened_video(self.path, self.max_pixels) as (container, stream):
                with suppress(pyav().FFmpegError):
                    container.seek(pts, stream=stream)
                for raw in _decoded(container, stream):
                    if raw.pts == pts:
                        return _upright(raw)
                    if raw.pts is None or raw.pts > pts:
                        break
        return next(frame.image for frame in self.frames() if frame.number == number)

    def _check_end(self, container: InputContainer, stream: VideoStream, end: float, others: list[float]) -> None:
        """Raise a ValueError where the frames end well before the video does by its own account.

        Where the file has one for all its streams alone, its end may be that of the sound.
        """
        if not ANNOUNCING & set(container.format.name.split(",")):
            return
        announced, reached = _own_seconds(stream), end
        if not announced:
            announced, reached = (container.duration or 0) / 1_000_000, max([end, *others])
        if reached < COMPLETE * announced:
            raise ValueError(f"video {self.path} was cut short: it ends after {reached:.3f} of {announced:.3f} s")


class _Clock:
    """Times of frames from their timestamps, which may be missing, or start again in the middle.

    Args:
        tick: seconds of a timestamp's unit.
        usual: seconds between frames that do not say.
    """

    def __init__(self, tick: Fraction, usual: Fraction):
        self._tick, self._usual = tick, usual
        self._next = Fraction(0)  # when the frame before ends
        self._last: Fraction | None = None
        self._zero: Fraction | None = None  # what the timestamps count from
        self._restarted = False

    def read(self, raw: VideoFrame) -> tuple[Fraction, Fraction, int | None]:
        """Time, duration, and the timestamp if no other frame may have it, of the next frame."""
        duration = raw.duration * self._tick if raw.duration else self._usual
        time, pts = self._next, raw.pts
        if pts is not None:
            if self._zero is None:
                self._zero = pts * self._tick - time
            time = pts * self._tick - self._zero
            if self._last is not None and time <= self._last:
                self._zero, time, self._restarted = pts * self._tick - self._next, self._next, True
        self._last, self._next = time, time + duration
        return time, duration, None if self._restarted else pts


def _own_seconds(stream: VideoStream) -> float:
    """How long the video announces to be, or when it ends: by its header, or by Matroska's tag; 0 if it does not."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    tags = (value for name, value in stream.metadata.items() if name.upper().startswith("DURATION"))
    found = re.match(r"(\d+):(\d+):(\d+(?:\.\d+)?)", next(tags, ""))
    return sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0.0


def _decoded(container: InputContainer, stream: VideoStream, ends: list[float] | None = None) -> Iterator[VideoFrame]:
    """The frames in the order shown; `ends` receives when, in seconds, the packets of other streams end."""
    for packet in container.demux():
        if packet.stream.index == stream.index:
            yield from cast("list[VideoFrame]", packet.decode())
        elif ends is not None:
            ends[:] = [max([*ends, _end(packet)])]


def _end(packet: Packet[Any]) -> float:
    if packet.pts is None or packet.time_base is None:
        return 0.0
    return float((packet.pts + (packet.duration or 0)) * packet.time_base)


def converted(raw: VideoFrame, **options: Any) -> VideoFrame:
    """A frame in another format, by this thread alone.

    A converter with threads of its own may outlive the frame among Python's garbage. In a process that was forked from
    this one, as a loader's are, there are no such threads, and freeing it there would wait for them for ever.
    """
    try:
        return raw.reformat(**options, threads=1)
    except TypeError:  # a PyAV whose converters have no threads
        return raw.reformat(**options)


def _signs(raw: VideoFrame) -> tuple[int, int, int, int]:
    """How stored pixels lie on the screen: a key of `_UPRIGHT`, or (1, 0, 0, 1) as they are."""
    matrix = raw.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    # What PyAV calls an object here is a buffer.
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))  # type: ignore[call-overload]
    largest = max(map(abs, (a, b, c, d))) or 1
    return round(a / largest), round(b / largest), round(c / largest), round(d / largest)


def _size(raw: VideoFrame) -> tuple[int, int]:
    """(W, H) of the upright frame."""
    return (raw.height, raw.width) if _signs(raw)[0] == 0 else (raw.width, raw.height)


def _upright(raw: VideoFrame, size: int | None = None) -> Image.Image:
    """RGB, its shorter side of twice `size` or little more where it is at least twice as long as that."""
    options: dict[str, Any] = {"format": "rgb24"}
    if size is not None and (times := min(raw.width, raw.height) // (2 * size)) > 1:
        options |= {"width": round(raw.width / times), "height": round(raw.height / times), "interpolation": "AREA"}
    image, turn = converted(raw, **options).to_image(), _UPRIGHT.get(_signs(raw))
    return image if turn is None else image.transpose(turn)
