"""Videos written by PyAV (the `video` extra), frame by frame, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

from PIL import Image

from ppl_fast._files import OVERLAY, replacing
from ppl_fast.data.video import converted
from ppl_fast.data.video_file import pyav

WRITTEN = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4"}  # suffix -> FFmpeg's name of the format
H264, MPEG4 = ("libx264", {"crf": "18", "preset": "veryfast"}), ("mpeg4", {"qmin": "2", "qmax": "4"})
FINEST_TICK = Fraction(1, 60_000)  # MPEG-4, where no H.264 encoder is there, counts no more than 65,535 a second
Write = Callable[..., None]
BT709 = MPEG_RANGE = 1  # FFmpeg's numbers for colours as in HD video


@contextmanager
def video_writer(
    path: str | os.PathLike[str],
    size: tuple[int, int],
    rate: Fraction,
    tick: Fraction,
    aspect: Fraction = Fraction(1),
) -> Iterator[Write]:
    """A function `write(image, time, duration)` that appends frames to a video, which appears whole or not at all.

    Times and durations are in seconds; without a duration, a frame is shown for 1 / rate. Players show one frame at a
    time: where two would have the same tick, the later one takes the next.

    H.264 in yuv420p, or in yuv444p for odd sizes, which its yuv420p does not have; MPEG-4 where PyAV has no H.264.

    Args:
        path: .mp4, .mov or .mkv; replaced when the block ends well.
        size: (W, H) in pixels of every image.
        rate: nominal frames per second.
        tick: seconds of which the times are multiples, such as `Video.tick`; 1 / rate is fine for a steady rate.
        aspect: width by height of a pixel on the screen, such as `Video.aspect`.

    Raises:
        ValueError: a suffix of another format.
        OSError: the file cannot be written.
        ImportError: PyAV is not installed.
    """
    av, path = pyav(), Path(path)
    check_written(path)
    from av.codec.context import Flags

    name, options = H264 if H264[0] in av.codecs_available else MPEG4
    tick = tick if tick.denominator <= 65_535 or name == H264[0] else FINEST_TICK
    last = -1
    try:
        with replacing(path) as temporary, av.open(str(temporary), "w", format=WRITTEN[path.suffix.lower()]) as output:
            output.metadata["comment"] = OVERLAY
            stream = output.add_stream(name, rate=rate, options=options)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv444p" if (size[0] % 2 or size[1] % 2) and name != "mpeg4" else "yuv420p"
            stream.codec_context.time_base = tick
            stream.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio = aspect
            stream.codec_context.flags |= Flags.frame_duration  # else the last frame would be as short as the others
            # Players guess what a file does not say.
            stream.codec_context.colorspace, stream.codec_context.color_range = BT709, MPEG_RANGE

            def write(image: Image.Image, time: float, duration: float = float(1 / rate)) -> None:
                nonlocal last
                frame = av.VideoFrame.from_image(image)
                frame = converted(frame, format=stream.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
                last = max(last + 1, round(time / tick))
                frame.pts, frame.time_base, frame.duration = last, tick, max(1, round(duration / tick))
                output.mux(stream.encode(frame))

            yield write
            output.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise OSError(f"{path} could not be written: {error.strerror}") from error


def check_written(path: str | os.PathLike[str]) -> None:
    """Raise a ValueError unless the suffix names a format that `video_writer` writes."""
    if Path(path).suffix.lower() not in WRITTEN:
        raise ValueError(f"{path} must end in {', '.join(WRITTEN)} to be written as a video")
