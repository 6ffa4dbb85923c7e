"""Small videos, written for the tests of video, clips and estimation."""

import av
import numpy as np
from PIL import Image

CODECS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "avi": "mpeg4", "webm": "libvpx"}
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
