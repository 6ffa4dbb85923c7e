"""A step of training: the published model against the published formulas, and the demo's; time, memory, and on what.

`python benchmarks/step.py [--out FILE] [--threads N] [--chart PNG]`: each way in processes of its own, in turns, one
thread by default. Besides the time on the wall it has the processor's, which leaves out what other processes take.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from run import keep, parser_of

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # of the gate

from harness import resident  # noqa: E402
from whole_model import FORMULA, TINY, ModelWorkload, Subject, gate  # noqa: E402

from ppl_fast import ExtendedPPL, _allocation  # noqa: E402
from ppl_fast.options.demo import MODEL, TRAIN  # noqa: E402

PUBLISHED, DEMO = "published, 128 x 128, batch 4", "demo, 64 x 64, batch 8"


class Way(NamedTuple):
    """What is timed: a model in an implementation, with options of the model; and how many steps in a process."""

    model: str
    name: str = "cpp"
    options: dict = {}
    steps: int = 1
    precision: str = "float32"
    keeps: bool = True  # the memory that is freed, as training does


WAYS = {
    f"{PUBLISHED}: formulas": Way(PUBLISHED, FORMULA, keeps=False),
    f"{PUBLISHED}: formulas, freed memory kept": Way(PUBLISHED, FORMULA),
    f"{PUBLISHED}: ours": Way(PUBLISHED),
    f"{PUBLISHED}: ours, bfloat16": Way(PUBLISHED, precision="bfloat16"),
    f"{PUBLISHED}: ours, layers recomputed": Way(PUBLISHED, options={"recompute": "layers"}),
    f"{PUBLISHED}: ours, blocks recomputed": Way(PUBLISHED, options={"recompute": "blocks"}),
    f"{DEMO}: ours": Way(DEMO, steps=30),
}
GROUPS = {  # the first whose word the name of an operation has
    "convolutions": ("convolution", "conv2d", "Convolution"),
    "normalisation": ("batch_norm", "layer_norm", "BatchNorm", "LayerNorm"),
    "activations": ("relu", "gelu", "Relu"),
    "resizing and pooling": ("upsample", "pool", "Upsample", "Pool", "grid_sampler"),
    "optimizer": ("adam", "Adam", "Optimizer"),
    "our operators": ("ppl_fast",),
    "matrix products": ("mm", "linear"),
    "copies": ("copy", "cat", "contiguous", "clone", "fill", "zero"),
}
REST, PYTHON = "other operations", "Python and autograd"


def stepper(way: str) -> Callable[[], object]:
    """What takes one step of a way."""
    model, name, options, _, precision, _ = WAYS[way]
    if model == PUBLISHED:
        subject = Subject(name, ModelWorkload(4, options), precision=precision)
        if name != FORMULA:  # as `ppl-fast train --channels-last true` has them
            subject.model.to(memory_format=torch.channels_last)
            subject.images = subject.images.contiguous(memory_format=torch.channels_last)
        return subject.step
    torch.manual_seed(0)
    small = ExtendedPPL(**MODEL).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    small.progressed(0.3)  # of a training: a phase in which links are withheld
    optimizer = torch.optim.AdamW(small.parameters(), lr=TRAIN["lr"], fused=True)
    images = torch.rand(TRAIN["batch_size"], 3, MODEL["image_size"], MODEL["image_size"]) * 2 - 1
    images = images.to(memory_format=torch.channels_last)

    def step() -> None:
        small(images).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def measured(way: str) -> dict:
    """The medians of a step in this process, in ms, and its peak memory above the model, in MB."""
    model, name, options, count, precision, keeps = WAYS[way]
    if model == PUBLISHED:
        tiny = ModelWorkload(TINY.batch, TINY.options | options)
        gate(Subject(name, tiny, precision=precision), "training step", tiny)
    step = stepper(way)
    if keeps:
        _allocation.keep_freed()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    wall, processor = [], []
    with resident() as held:
        for number in range(count + 1):
            torch.manual_seed(number)
            begun = time.perf_counter(), time.process_time()
            step()
            wall.append((time.perf_counter() - begun[0]) * 1e3)
            processor.append((time.process_time() - begun[1]) * 1e3)
    return {"ms": median(wall[1:]), "cpu_ms": median(processor[1:]), "peak_mb": held()}


def shares(way: str) -> dict[str, float]:
    """What a step's time goes to, by group, as shares of it."""
    step, count = stepper(way), WAYS[way].steps
    step()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as profile, torch.profiler.record_function("steps"):
        for number in range(count):
            torch.manual_seed(number)
            step()
    found = dict.fromkeys([*GROUPS, REST, PYTHON], 0.0)
    for event in profile.key_averages():
        own = event.key == "steps" or event.key.startswith("autograd::") or event.key.endswith("Backward0")
        group = next((name for name, words in GROUPS.items() if any(word in event.key for word in words)), REST)
        found[PYTHON if own else group] += event.self_cpu_time_total
    total = sum(found.values())
    return {name: round(value / total, 4) for name, value in found.items()}


def chart(rows: list[dict], path: Path) -> None:
    """Draw the shares of each way that has them as one bar."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows if "shares" in row][::-1]
    figure, axes = pyplot.subplots(figsize=(9, 0.9 + 0.75 * len(rows)), layout="constrained")
    left = [0.0] * len(rows)
    for number, group in enumerate([*GROUPS, REST, PYTHON]):
        widths = [100 * row["shares"][group] for row in rows]
        labels = [row["way"].replace(", ", "\n", 1) for row in rows]
        bars = axes.barh(labels, widths, left=left, color=pyplot.get_cmap("tab10")(number), label=group)
        axes.bar_label(bars, [f"{width:.0f}" if width >= 3 else "" for width in widths], label_type="center", color="w")
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of a training step, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=5, frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way")
    parser.add_argument("--chart", type=Path, help="draw the shares into this PNG")
    parser.add_argument("--results", type=Path, help="draw those of this result file, and measure nothing")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # "measured" or "shares", and a way
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.here:
        task, way = arguments.here.split("/")
        return print(json.dumps({"measured": measured, "shares": shares}[task](way)))
    if arguments.results:
        return chart(json.loads(arguments.results.read_text())["rows"], arguments.chart)

    def apart(task: str, way: str) -> dict:
        command = [sys.executable, __file__, "--threads", str(arguments.threads), "--here", f"{task}/{way}"]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    taken: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way in WAYS:
            taken[way].append(apart("measured", way))
    rows = []
    for way, found in taken.items():
        row = {"way": way} | {key: round(median(one[key] for one in found), 1) for key in found[0]}
        rows.append(row | ({} if WAYS[way].name == FORMULA else {"shares": apart("shares", way)}))
        print(f"{way:<50}{row['ms']:10.1f} ms{row['cpu_ms']:10.1f} ms of processor{row['peak_mb']:9.1f} MB", flush=True)
    keep(rows, arguments.out)
    if arguments.chart:
        chart(rows, arguments.chart)


if __name__ == "__main__":
    main()
