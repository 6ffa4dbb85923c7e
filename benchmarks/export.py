"""A run in ONNX Runtime, float32 and int8: how far int8 moves keypoints, and one thread's processor time an image.

`python benchmarks/export.py RUN IMAGES [--out FILE]`; IMAGES is a folder, the first 100 of which the ranges of int8 are
taken from, the next 100 measured. One pass, without confidence. Both run in turns.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from run import keep, parser_of

from ppl_fast.data import open_set
from ppl_fast.export import export
from ppl_fast.export.int8 import quantize
from ppl_fast.training import load_model

COUNT, BATCH = 100, 10
# What is left in float32 beside all that is no convolution: the maps, whose softmax gives the positions.
WAYS = {"int8": [], "int8, maps in float32": ["maps"]}


def session(file: Path) -> onnxruntime.InferenceSession:
    """One of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options)


def measure(run: str, folder: str, rounds: int) -> list[dict]:
    """One row for each way."""
    model = load_model(run)
    opened = open_set(folder, model.config["image_size"]).dataset
    images = np.stack([opened[i].numpy() for i in range(2 * COUNT)])
    with tempfile.TemporaryDirectory() as there:
        file = Path(there, "float32.onnx")
        export(model, file, confidence=False)
        files = {"float32": file} | {way: file.with_name(f"{way}.onnx") for way in WAYS}
        for way, kept in WAYS.items():
            quantize(file, files[way], images[:COUNT], kept)
        sessions = {way: session(each) for way, each in files.items()}
        sizes = {way: each.stat().st_size / 1e6 for way, each in files.items()}
    taken: dict[str, list[float]] = {way: [] for way in sessions}
    found: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):  # the first is not counted
        for way, each in sessions.items():
            begun = time.process_time()
            parts = [each.run(None, {"images": part})[0] for part in np.split(images[COUNT:], COUNT // BATCH)]
            if turn:
                taken[way].append((time.process_time() - begun) * 1e3 / COUNT)
            found[way] = np.concatenate(parts)
    rows = []
    for way, times in taken.items():
        off = np.linalg.norm(found[way] - found["float32"], axis=2) / 2
        row = {"way": way, "cpu_ms_an_image": round(median(times), 3), "file_mb": round(sizes[way], 2)}
        row |= {"moved_mean": round(float(off.mean()), 5), "moved_p99": round(float(np.quantile(off, 0.99)), 5)}
        rows.append(row | {"times_float32": round(median(taken["float32"]) / median(times), 2)})
        print(rows[-1])
    return rows


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("run", help="run directory")
    parser.add_argument("images", help=f"folder of at least {2 * COUNT} images")
    parser.add_argument("--rounds", type=int, default=5, help="passes of each way over the images")
    arguments = parser.parse_args()
    rows = measure(arguments.run, arguments.images, arguments.rounds)
    keep(rows, arguments.out, run=Path(arguments.run).name)


if __name__ == "__main__":
    main()
