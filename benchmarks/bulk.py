"""Estimation of a folder of JPEG files: images a second, and what share of the time the model waits.

`python benchmarks/bulk.py [--out FILE]`, by the demo's model, freshly initialised: how far ahead images are decoded, in
turns; poses must be the same for all. On one core, as by `taskset -c 0`, decoder and model share it: reading ahead can
then gain nothing, and the figures say what it costs.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from loading import draw_photographs
from run import keep, machine, parser_of

from ppl_fast import ExtendedPPL, inference, optimize
from ppl_fast.options.demo import MODEL

DEPTHS = (0, 2)


def once(model: torch.nn.Module, folder: Path, out: Path, depth: int) -> dict[str, float]:
    """One estimation of the folder into a CSV file."""
    poses = inference.estimate(model, folder, depth=depth)
    begun, used = time.perf_counter(), time.process_time()
    count = inference.write(poses, csv=out)
    seconds, waits = time.perf_counter() - begun, poses.waits
    found = {"images_a_second": count / seconds, "cpu_ms_an_image": (time.process_time() - used) * 1e3 / count}
    return found | {"waits_for_images": waits.reading / seconds, "waits_for_files": waits.writing / seconds}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--note", help="what else there is to know of the machine, for the file")
    parser.add_argument("--images", type=int, default=512, help="files in the folder")
    parser.add_argument("--side", type=int, default=512, help="of the files, in pixels")
    parser.add_argument("--rounds", type=int, default=5, help="turns; the first is not counted")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = optimize(ExtendedPPL(**MODEL).to(arguments.device).eval())
    measured: dict[int, list[dict[str, float]]] = {depth: [] for depth in DEPTHS}
    with tempfile.TemporaryDirectory() as made:
        folder = draw_photographs(Path(made, "images"), arguments.images, arguments.side)
        files = {depth: Path(made, f"{depth}.csv") for depth in DEPTHS}
        for _ in range(arguments.rounds + 1):
            for depth in DEPTHS:
                measured[depth].append(once(model, folder, files[depth], depth))
        if len({file.read_bytes() for file in files.values()}) != 1:
            raise AssertionError("poses depend on how far ahead images are decoded")
    rows = []
    for depth in DEPTHS:
        row = {name: round(median(each[name] for each in measured[depth][1:]), 3) for name in measured[depth][0]}
        rows.append({"images": arguments.images, "side": arguments.side, "ahead": depth, **row})
        print(rows[-1])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    keep(rows, arguments.out, machine=machine() | {"cores": cores, "note": arguments.note})


if __name__ == "__main__":
    main()
