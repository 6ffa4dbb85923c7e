"""Compare methods of learning on equal terms: `python benchmarks/learning/run.py --out FOLDER`.

A cell is a data set, a method, a seed and a budget: "steps" gives every method the same optimizer steps, "time" as many
as it can take in the time that the slowest takes for those, by its pace, measured in turns beforehand. Cells run one
after the other, one thread each, or by --jobs several at a time, and what is finished is not run again: stop it at any
time and call it again to go on. --judged validation is for choosing options; test labels are looked at once. `report.py
FOLDER` makes the table and the chart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from methods import METHODS
from sets import FIGURES, LearningSet, open_set

from ppl_fast._files import write_text
from ppl_fast._side_by_side import side_by_side
from ppl_fast.data.subjects import SubjectMasks
from ppl_fast.evaluation import evaluate_model
from ppl_fast.models import MODELS, KeypointModel
from ppl_fast.options import demo
from ppl_fast.training import TrainConfig, train

PACE_STEPS, PACE_TURNS = 12, 5
ALIKE = 0.03  # paces that differ by less are the same
MASKS = (("blocks", 0.5), ("blocks", 0.8))
ROUNDS = 2


def main() -> None:
    """Run what is missing of the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of data, runs and cells")
    parser.add_argument("--sets", nargs="+", default=list(FIGURES), help="lab, studio, folders of projects with labels")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--budgets", nargs="+", default=["steps", "time"], choices=["steps", "time"])
    parser.add_argument("--steps", type=int, default=demo.STEPS)
    parser.add_argument("--judged", default="validation", choices=["validation", "test"])
    parser.add_argument("--device", default="cpu", help="that trains and estimates")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, a process each; a GPU serves many")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cells = chosen(options)
    if options.jobs > 1:  # sets are drawn once for several of the cells
        sets = [(name, seed, judged, METHODS[method].size()) for _, name, method, seed, _, judged, _ in cells]
        for each in dict.fromkeys(sets):
            open_set(*each, options.out / "figures")
    side_by_side(cell, (), cells, options.jobs)


def chosen(options: argparse.Namespace) -> list[tuple[Path, str, str, int, int, str, str]]:
    """The arguments of `cell`, for each of the cells."""
    pace = measured_pace(options.out / "pace.json", options.methods) if "time" in options.budgets else {}
    cells = []
    for budget in options.budgets:
        for seed, name, method in product(options.seeds, options.sets, options.methods):
            more = max(pace[other] for other in options.methods) / pace[method] if budget == "time" else 1.0
            steps = options.steps if more < 1 + ALIKE else round(options.steps * more)
            cells.append((options.out, name, method, seed, steps, options.judged, options.device))
    return list(dict.fromkeys(cells))


def cell(out: Path, name: str, method: str, seed: int, steps: int, judged: str, device: str = "cpu") -> dict[str, Any]:
    """The metrics of one cell, trained and measured unless that was done before."""
    short = Path(name).name
    label = f"{short}-{method}-seed{seed}-steps{steps}"
    found = out / "cells" / f"{label}-{judged}.json"
    if found.is_file():
        return json.loads(found.read_text())
    other = "test" if judged == "validation" else "validation"
    if name not in FIGURES and found.with_name(f"{label}-{other}.json").exists():  # it learned from other images
        raise SystemExit(f"{out} holds runs of {short} that are judged on {other}: choose another --out")
    print(f"== {label}", flush=True)
    data = open_set(name, seed, judged, METHODS[method].size(), out / "figures")
    model, seconds = trained(METHODS[method], steps, seed, data, out / "runs" / label, device=device)
    metrics = measured(model, data)
    metrics["cell"] = {
        "set": short,
        "method": method,
        "seed": seed,
        "steps": steps,
        "seconds": seconds,
        "judged": judged,
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
    }
    found.parent.mkdir(parents=True, exist_ok=True)
    write_text(found, json.dumps(metrics, indent=2) + "\n")
    return metrics


def trained(
    method: Any,
    steps: int,
    seed: int,
    data: LearningSet,
    run: Path,
    start: Path | None = None,
    further: dict[str, Any] | None = None,
    flip: bool = False,
    device: str = "cpu",
) -> tuple[KeypointModel, float]:
    """The model, and the seconds that its steps took; `start` to begin with, further options, images mirrored."""
    if method.masks == "drawn" and data.masks is None:
        raise SystemExit(f"{data.train.name} has no masks to tell {method.words}")
    masks = str(data.masks[0]) if method.masks == "drawn" and data.masks else method.masks or None
    options = method.model() | (further or {})
    own = {"threads": 1, "picture_every": 0, "masks": masks, "flip": flip, "device": device}
    config = TrainConfig(steps=steps, seed=seed, **(demo.TRAIN | own))
    model = train(options, config, data.train, run, resume="auto", architecture=method.architecture, start=start)
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return model, records[-1]["seconds"]


def measured(model: KeypointModel, data: LearningSet) -> dict[str, Any]:
    """By every protocol, whole and partly hidden."""
    subjects = data.masks and SubjectMasks(data.masks[1], data.judged[0])
    return evaluate_model(model, *data.fit, *data.judged, masks=MASKS, rounds=ROUNDS, subjects=subjects, progress=False)


def measured_pace(path: Path, methods: list[str]) -> dict[str, float]:
    """Seconds of a training step of each method, measured in turns and kept, so that a later call compares alike."""
    pace: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
    if set(methods) <= set(pace):
        return pace
    steppers = {name: stepper(METHODS[name]) for name in METHODS}
    turns: dict[str, list[float]] = {name: [] for name in steppers}
    for _ in range(PACE_TURNS):
        for name, step in steppers.items():
            step()
            started = time.perf_counter()
            for _ in range(PACE_STEPS):
                step()
            turns[name].append((time.perf_counter() - started) / PACE_STEPS)
    pace = {name: statistics.median(each) for name, each in turns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(pace, indent=2) + "\n")
    return pace


def stepper(method: Any) -> Any:
    """A function that takes one training step of a method on images drawn by chance."""
    torch.manual_seed(0)
    model = MODELS[method.architecture](**method.model()).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    size = method.size()
    images = (torch.rand(demo.TRAIN["batch_size"], 3, size, size) * 2 - 1).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        optimizer.zero_grad()
        model(images).loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    main()
