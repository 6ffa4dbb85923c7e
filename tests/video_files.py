"""Small videos, written for the tests of video, clips and estimation."""

from fractions import Fraction

import av
import numpy as np
from av.codec.context import Flags
from PIL import Image

CODECS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "avi": "mpeg4", "webm": "libvpx"}
FURTHER_CODECS = {
    "ts": "libx264", "m2ts": "mpeg2video", "mpg": "mpeg2video", "m4v": "mpeg4", "wmv": "wmv2", "flv": "flv",
    "nut": "mpeg4", "mxf": "mpeg2video", "gif": "gif", "h264": "libx264", "mjpeg": "mjpeg", "3gp": "mpeg4",
}  # fmt: skip
PIXELS = {"gif": "rgb8", "mjpeg": "yuvj420p"}  # formats of pixels other than yuv420p
SOUND = {"webm": "libopus", "avi": "mp3", "mpg": "mp2"}  # codecs other than AAC
SIZE = (48, 32)


def drawn(number: int, size=SIZE) -> np.ndarray:
    """uint8 (H, W, 3): grey, a bright bar at 4 * number, and a red patch at the top left."""
    image = np.full((size[1], size[0], 3), 60, np.uint8)
    image[:, 4 * number % size[0] :][:, :4] = 230
    image[:8, :8] = (220, 30, 30)
    return image


def bar_at(image: Image.Image) -> int:
    """The number that a frame was `drawn` with, up to the bar's period of 12."""
    return int(np.asarray(image, int)[16:].sum(axis=(0, 2)).reshape(-1, 4).sum(axis=1).argmax())


def encode(path, count=12, rate=25, size=SIZE, times=None, matrix=None, metadata=None):
    """A video of `drawn` frames, a key frame every fifth; `times` in ticks of 1 / rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", 5
        stream.bit_rate = 4_000_000
        if matrix:
            stream.set_display_matrix(matrix)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(drawn(i, size), format="rgb24")
            frame.pts = times[i] if times else i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def record(
    path, count=12, late=0, sound=0.0, last=None, subtitle=0, aspect=None, matrix=None, pix_fmt=None, options=None
):
    """A video of `drawn` frames at 25 a second, as recorders make them.

    Args:
        path: its suffix gives container and codec.
        count: frames.
        late: frames that it begins after the clock.
        sound: seconds of silence.
        last: seconds that the last frame stays.
        subtitle: seconds at which a line of text ends.
        aspect: of a pixel.
        matrix: the nine numbers of the display matrix.
        pix_fmt: format of the pixels.
        options: of the encoder.
    """
    suffix = path.suffix[1:]
    with av.open(str(path), "w") as container:
        stream = None
        tick = Fraction(1, 1000) if last else Fraction(1, 25)
        if count:
            stream = container.add_stream(
                (CODECS | FURTHER_CODECS)[suffix], rate=25, options=options or {"bf": "0"} if last else options
            )
            stream.width, stream.height, stream.pix_fmt = *SIZE, pix_fmt or PIXELS.get(suffix, "yuv420p")
            stream.bit_rate = 4_000_000
        if aspect:
            stream.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio = aspect
        if matrix:
            stream.set_display_matrix(matrix)
        if last:
            stream.time_base = stream.codec_context.time_base = tick
            stream.codec_context.flags |= Flags.frame_duration
        other = container.add_stream(SOUND.get(suffix, "aac"), rate=48000) if sound else None
        if subtitle:
            lines = path.with_suffix(".srt")
            lines.write_text(f"1\n00:00:00,000 --> 00:00:{subtitle:02d},000\ntext\n")
            text = av.open(str(lines))
            written = container.add_stream_from_template(text.streams[0])
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(drawn(i), format="rgb24")
            frame.pts, frame.time_base = round((i + late) / 25 / tick), tick
            frame.duration = round((last if last and i == count - 1 else Fraction(1, 25)) / tick)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None) if stream else [])
        for packet in text.demux() if subtitle else ():
            if packet.size:
                packet.stream = written
                container.mux(packet)
        if other:
            _silence(container, other, sound)
    return path


def _silence(container, stream, seconds):
    stream.container.start_encoding()
    size = stream.codec_context.frame_size
    shape, form = ((2, size), "fltp") if stream.format.is_planar else ((1, 2 * size), "flt")
    for k in range(int(seconds * 48000 / size)):
        samples = av.AudioFrame.from_ndarray(np.zeros(shape, np.float32), format=form, layout="stereo")
        samples.sample_rate, samples.pts, samples.time_base = 48000, k * size, Fraction(1, 48000)
        container.mux(stream.encode(samples))
    container.mux(stream.encode(None))


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def write_clips(root):
    """Two folders of frames, numbered without leading zeros, and two videos."""
    for clip, count in (("clip2", 11), ("clip10", 3)):
        (root / clip).mkdir()
        for i in range(count):
            Image.fromarray(drawn(i)).save(root / clip / f"{i}.png")
    encode(root / "clip3.mp4", count=7)
    encode(root / "far" / "b.avi", count=5, size=(64, 48))
    (root / "notes.doc").write_text("x")
    return root
