"""How few labels do named joints need?

`python benchmarks/label_efficiency.py RUN LABELS --out FOLDER`: for 5, 10, 20, 40 and all labels, several draws of
which images are labelled, the error on test images (`--test`, or those that benchmarks/learning/run.py holds out of a
project for a seed), whole and with half of the blocks hidden, of

- the mean pose;
- labels alone: networks of the run's own shape, trained from scratch just as long, once on whole images and once with
  blocks hidden in a quarter of them. Whether these, those, or the mean of both count is chosen by the test error
  itself, cell by cell, whole and hidden apart: to their advantage, and without the time of a cross-validation;
- the map from the run's keypoints, after two rounds where something is hidden;
- one of the run's own networks (the mean of the single ones' errors), and what `ppl-fast name` makes of all of it.

A cell, draw by draw, is kept in FOLDER, so that a call goes on where another stopped; the table is printed, and written
to FOLDER/table.json with a chart beside it. The test labels choose nothing of the run's own.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning.sets import HELD_OUT
from torch import nn

from ppl_fast._files import write_text
from ppl_fast._side_by_side import side_by_side
from ppl_fast.data import open_set
from ppl_fast.evaluation import joint_errors, mean_over, occlude
from ppl_fast.inference.posing import device_of
from ppl_fast.models import MODELS, LinkModel
from ppl_fast.naming import Labelled, Schedule, name_joints
from ppl_fast.naming.fitting import NETWORKS
from ppl_fast.naming.network import JointNetworks, predicted, trained
from ppl_fast.training import load_model
from ppl_fast.visualization._charts import INK, new_figure, quieten, save_chart

COUNTS, DRAWS = (5, 10, 20, 40, 0), 5  # 0: all
HIDDEN = ("blocks", 0.5)
METHODS = ("mean pose", "labels alone", "one alone", "keypoints", "one network", "named")
HIDE = (0.0, 0.25)  # of the networks from scratch
DRAWN = {"mean pose": "#6d737e", "labels alone": "#b8434e", "keypoints": "#2f5f9e", "named": "#d1722e"}


def main() -> None:
    """Run what is missing, and print the table."""
    parser = parser_of(__doc__, COUNTS, DRAWS, Schedule().steps)
    parser.add_argument("--test", help="labelled images to measure on; without, the part of LABELS that is held out")
    parser.add_argument("--alone", type=int, default=NETWORKS, help="networks from scratch whose mean counts")
    parser.add_argument("--device", default="cpu", help="that learns and estimates")
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, a process each; a GPU serves many")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draws = {count: 1 if count == 0 else options.draws for count in options.counts}
    calls = [(count, draw) for count in options.counts for draw in range(draws[count])]
    cells = side_by_side(kept, (options,), calls, options.jobs)
    found = table(cells)
    write_text(options.out / "table.json", json.dumps(found, indent=2) + "\n")
    print("\n".join(lines(found)))
    chart(options.out / "table.png", found)


def parser_of(about: str | None, counts: Sequence[int], draws: int, steps: int) -> argparse.ArgumentParser:
    """The parser of a script that measures what few labels of a trained run are worth; and its defaults."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="trained run")
    parser.add_argument("labels", help="labelled images to draw from, and to hold out")
    parser.add_argument("--seed", type=int, default=0, help="of what is held out, as the run was trained without it")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--counts", type=int, nargs="+", default=list(counts), help="of labels; 0: all")
    parser.add_argument("--draws", type=int, default=draws)
    parser.add_argument("--steps", type=int, default=steps, help="of each network")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def divided(count: int, seed: int) -> list[np.ndarray]:
    """Of so many labelled images those that are held out, and the others."""
    order = np.random.default_rng(seed).permutation(count)
    return np.split(order, [round(HELD_OUT * len(order))])


def drawn(size: int, count: int, draw: int) -> np.ndarray:
    """Which of `size` images are labelled in a draw of `count`; 0: all."""
    return np.random.default_rng([draw, count]).permutation(size)[: count or None]


@functools.cache
def read(spec: str, image_size: int) -> Labelled:
    """All labelled images of a set, read once for all cells of a process."""
    opened = open_set(spec, image_size, split="fit")
    labelled, notes = Labelled.of(opened.dataset, opened.labels, "label_efficiency")
    for note in notes:
        print(f"note: {note}")
    return labelled


def part(labelled: Labelled, rows: np.ndarray) -> Labelled:
    """Some of the images."""
    images = labelled.images[torch.from_numpy(rows)]
    clips = [labelled.clips[row] for row in rows] if labelled.clips else ()
    return replace(labelled, images=images, joints=labelled.joints[rows], shown=labelled.shown[rows], clips=clips)


def kept(options: argparse.Namespace, count: int, draw: int) -> dict[str, Any]:
    """The cell of a draw, measured unless that was done before."""
    path = options.out / f"labels{count or 'all'}-draw{draw}.json"
    if not path.is_file():
        print(f"== {path.stem}", flush=True)
        model = load_model(options.run).to(options.device).eval()
        pool = read(options.labels, model.config["image_size"])
        if options.test:
            test = read(options.test, model.config["image_size"])
        else:
            test, pool = (part(pool, rows) for rows in divided(len(pool), options.seed))
        few = part(pool, drawn(len(pool), count, draw))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(cell(model, few, test, options.steps, options.alone), indent=2) + "\n")
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def cell(model: LinkModel, few: Labelled, test: Labelled, steps: int, alone: int) -> dict[str, Any]:
    """Errors of every method, as fractions of the image size, "whole" and "hidden"; seconds of a core."""
    started = time.process_time()
    named = name_joints(model, few, Schedule(steps=steps))
    seconds = time.process_time() - started
    torch.manual_seed(0)
    device = device_of(model)
    fresh = MODELS[model.architecture](**model.config).to(device)
    scratch = {hide: networks(fresh, few, Schedule(steps=steps, hide=hide), alone) for hide in HIDE}
    mean = np.nan_to_num(np.nanmean(np.where(few.shown[..., None], few.joints, np.nan), axis=0))
    shown = test.images.to(device)
    hidden, visible = occlude(shown, *HIDDEN)
    result: dict[str, Any] = {"labels": len(few), "seconds": seconds, "steps": steps, "networks alone": alone}

    def error(joints: np.ndarray) -> float:
        return float(mean_over(joint_errors(joints, test.joints, test.shown) / 2))

    def joints_of(network: nn.Module, images: torch.Tensor) -> np.ndarray:
        return np.asarray(predicted(network, images).cpu().double().numpy())

    def single(joined: JointNetworks, images: torch.Tensor) -> float:
        return float(np.mean([error(joints_of(each, images)) for each in joined.members]))

    for name, images, seen in (("whole", shown, None), ("hidden", hidden, visible)):
        points, filled = found(model, images, seen)
        joints = {str(hide): joints_of(each, images) for hide, each in scratch.items()}
        by_hide = {hide: error(each) for hide, each in joints.items()}
        by_hide["both"] = error(np.mean([*joints.values()], axis=0))
        result[name] = {
            "mean pose": error(np.broadcast_to(mean, test.joints.shape)),
            "labels alone": min(by_hide.values()),
            "one alone": min(single(each, images) for each in scratch.values()),
            "keypoints": error(named.map(points)),
            "one network": single(named.network, filled),
            "named": error(named(filled, points)),
            "by hide": by_hide,
        }
    return result


def found(model: LinkModel, images: torch.Tensor, visible: torch.Tensor | None) -> tuple[np.ndarray, torch.Tensor]:
    """Keypoints, and the images that they were found in; where something is hidden, after two rounds if there are."""
    passes = 3 if model.iterative and visible is not None else 1
    parts = torch.arange(len(images)).split(64)
    rounds = [model.estimate_rounds(images[p], passes, None if visible is None else visible[p])[-1] for p in parts]
    points, seen = (torch.cat(each) for each in zip(*rounds, strict=True))
    return points.cpu().double().numpy(), seen


def networks(fresh: LinkModel, few: Labelled, schedule: Schedule, count: int) -> JointNetworks:
    """Networks of a fresh model's shape, each on all labels."""
    labelled = few.images, torch.from_numpy(np.nan_to_num(few.joints)), torch.from_numpy(few.shown)
    images, joints, shown = (each.to(device_of(fresh)) for each in labelled)
    seeds = range(schedule.seed + 1, schedule.seed + 1 + count)
    members = [trained(fresh, images, joints, shown, replace(schedule, seed=seed)) for seed in seeds]
    return JointNetworks(members, shown.any(dim=0).expand(count, -1)).eval()


def table(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By number of labels and part: mean and standard deviation over the draws, and the ratio to labels alone."""
    rows = []
    for count in sorted({each["labels"] for each in cells}):
        for which in ("whole", "hidden"):
            values = {m: [each[which][m] for each in cells if each["labels"] == count] for m in METHODS}
            row: dict[str, Any] = {"labels": count, "images": which, "draws": len(values["mean pose"])}
            row |= {m: {"mean": float(np.mean(v)), "deviation": float(np.std(v))} for m, v in values.items()}
            row["ratio"] = row["named"]["mean"] / row["labels alone"]["mean"]
            rows.append(row)
    return rows


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table as text."""
    text = [f"{'labels':>6}  {'images':<8}" + "".join(f"{method:>19}" for method in METHODS) + f"{'ratio':>8}"]
    for row in rows:
        numbers = "".join(f"{row[m]['mean']:11.4f} +-{row[m]['deviation']:.4f}" for m in METHODS)
        text.append(f"{row['labels']:>6}  {row['images']:<8}{numbers}{row['ratio']:8.2f}")
    return text


def chart(path: Path, rows: list[dict[str, Any]]) -> None:
    """Errors over the number of labels, whole and hidden; bars are the standard deviation over the draws."""
    figure = new_figure(9, 4)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, which, title in zip(
        panels, ("whole", "hidden"), ("whole images", "half of the blocks hidden"), strict=True
    ):
        own = [row for row in rows if row["images"] == which]
        counts = [row["labels"] for row in own]
        for shift, (method, colour) in enumerate(DRAWN.items()):
            means, bars = ([row[method][key] for row in own] for key in ("mean", "deviation"))
            places = [count * 1.015 ** (shift - 1.5) for count in counts]  # that bars do not cover one another
            panel.errorbar(places, means, bars, color=colour, marker="o", markersize=4, capsize=2, label=method)
        panel.set_xscale("log")
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.set_xticks([], minor=True)
        panel.set_xlabel("labelled images", color=INK)
        panel.set_ylim(0)
        panel.set_title(title, loc="left", color=INK, fontsize=11)
        quieten(panel)
    panels[0].set_ylabel("error, fraction of the image size", color=INK)
    figure.set_layout_engine("constrained")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, labelcolor=INK, fontsize=9)
    save_chart(path, figure)


if __name__ == "__main__":
    main()
