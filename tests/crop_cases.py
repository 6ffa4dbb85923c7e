"""An animal, a bright ellipse with a dark head, that walks before a static background, and where it is."""

from fractions import Fraction

import av
import numpy as np

from ppl_fast.data.clips import find_media
from ppl_fast.data.framing import views_of
from ppl_fast.options.footage import Framing

SIZE = (160, 120)
LENGTH, WIDTH = 26.0, 9.0


def path(number: int, count: int) -> tuple[np.ndarray, float]:
    """Centre in pixels counted from the outer corner, and heading, of a walk around an ellipse."""
    turn = 2 * np.pi * number / count
    centre = np.array([80 + 50 * np.cos(turn), 60 + 32 * np.sin(turn)])
    return centre, float(np.arctan2(32 * np.cos(turn), -50 * np.sin(turn)))


def background(size=SIZE) -> np.ndarray:
    rng = np.random.default_rng(0)
    small = rng.integers(50, 130, (size[1] // 8, size[0] // 8, 3))
    return np.kron(small, np.ones((8, 8, 1), int)).astype(np.uint8)


def body_of(centre, heading: float) -> tuple[np.ndarray, np.ndarray]:
    """Whether each pixel is the animal's, and how far towards its head: both (H, W)."""
    y, x = np.mgrid[: SIZE[1], : SIZE[0]] + 0.5
    along = (x - centre[0]) * np.cos(heading) + (y - centre[1]) * np.sin(heading)
    across = (y - centre[1]) * np.cos(heading) - (x - centre[0]) * np.sin(heading)
    return (along / LENGTH * 2) ** 2 + (across / WIDTH * 2) ** 2 < 1, along


def drawn(centre, heading: float, noise: int = 0) -> np.ndarray:
    """uint8 (H, W, 3); without a centre, an empty scene."""
    rng = np.random.default_rng(noise)
    image = background().astype(int)
    if centre is not None:
        body, along = body_of(centre, heading)
        image[body] = 235
        image[body & (along > 8)] = (250, 30, 30)
    return (image + rng.integers(-3, 4, image.shape)).clip(0, 255).astype(np.uint8)


def film(path_to, count=80, empty=(), rate=25):
    """A video of the walk, whose frames in `empty` show no animal."""
    with av.open(str(path_to), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = *SIZE, "yuv420p", 4_000_000
        for number in range(count):
            centre, heading = path(number, count)
            pixels = drawn(None if number in empty else centre, heading, number)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path_to


def moving_views(root, **options):
    """What is seen of a folder's images and frames around what moves."""
    images, videos, _ = find_media(root)
    return views_of(Framing(crop="moving", **options), root, images, videos)
