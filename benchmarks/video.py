"""Poses of a video in a CSV file: frames a second, and the share of what the model alone takes.

`python benchmarks/video.py [--out FILE]`, on an otherwise idle machine, by models freshly initialised, from `optimize`:
the model alone on frames in memory, and decoding, model and writing at once, in turns. The video is drawn: a room of
smooth colours with some grain, that moves.
"""

from __future__ import annotations

import tempfile
import time
from fractions import Fraction
from pathlib import Path
from statistics import median

import numpy as np
import torch
from estimate import MODELS
from PIL import Image
from run import keep, parser_of

from ppl_fast import inference, optimize
from ppl_fast.data.video_writer import video_writer

BATCH = 32
SIZES = ((640, 360), (1280, 720))  # of frames, width and height


def draw_video(path: Path, count: int, size: tuple[int, int]) -> Path:
    """H.264 at 25 frames a second."""
    width, height = size
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16, width // 8, 3), dtype=np.uint8))
    room = np.asarray(coarse.resize((2 * width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    room = (room + rng.normal(0, 4, room.shape)).clip(0, 255).astype(np.uint8)
    with video_writer(path, size, Fraction(25), Fraction(1, 25)) as write:
        for number in range(count):
            left = round((width - 1) * (0.5 - 0.5 * np.cos(number / 40)))
            write(Image.fromarray(room[:, left : left + width]), number / 25)
    return path


def rates(name: str, video: Path, count: int, size: tuple[int, int], rounds: int) -> dict:
    """The row of one model."""
    torch.manual_seed(0)
    model = optimize(MODELS[name][0]().eval())
    side = model.settings.image_size
    frames = torch.rand(count, 3, side, side) * 2 - 1
    taken: dict[str, list[float]] = {"model": [], "video": []}
    for _ in range(rounds + 1):  # the first is not counted
        begun = time.perf_counter()
        for batch in frames.split(BATCH):
            model.estimate(batch)
        between = time.perf_counter()
        written = inference.write(
            inference.estimate(model, video, batch_size=BATCH, depth=2), csv=video.with_suffix(".csv")
        )
        taken["model"].append(between - begun)
        taken["video"].append(time.perf_counter() - between)
        if written != count:
            raise AssertionError(f"{written} poses of {count} frames")
    alone, whole = (count / median(each[1:]) for each in taken.values())
    row = {"model": name, "frames": count, "width": size[0], "height": size[1], "batch": BATCH}
    row |= {"model_frames_a_second": round(alone, 1), "video_frames_a_second": round(whole, 1)}
    row["share"] = round(whole / alone, 3)
    print(f"{name:<22}{size[0]} x {size[1]}: {alone:8.1f} frames a second by the model, {whole:8.1f} of the video")
    return row


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3, help="turns")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as made:
        for size in SIZES:
            video = draw_video(Path(made, "drawn.mp4"), arguments.frames, size)
            rows += [rates(name, video, arguments.frames, size, arguments.rounds) for name in MODELS]
    keep(rows, arguments.out)


if __name__ == "__main__":
    main()
