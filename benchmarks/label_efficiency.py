"""How few labels do named joints need?

`python benchmarks/label_efficiency.py RUN LABELS --test LABELS --out FOLDER`: for 5, 10, 20, 40 and all labels, several
draws of which images are labelled, the error on the test images, whole and with half of the blocks hidden, of: the mean
pose; a network of the run's own shape trained on the labels alone, its steps and its hiding of blocks chosen by
cross-validation; the map from the run's keypoints; and what `ppl-fast name` makes of both. A cell, draw by draw, is
kept in FOLDER, so that a call goes on where another stopped; the table is printed, and written to FOLDER/table.json.
The test labels choose nothing.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ppl_fast._files import write_text
from ppl_fast.data import open_set
from ppl_fast.evaluation import joint_errors, labelled_split, mean_over, occlude
from ppl_fast.models import MODELS, LinkModel
from ppl_fast.naming import Labelled, Schedule, name_joints
from ppl_fast.naming.network import predicted, trained
from ppl_fast.training import load_model

COUNTS, DRAWS = (5, 10, 20, 40, 0), 5  # 0: all
SCHEDULES = [Schedule(steps=steps, hide=hide) for steps in (300, 600, 1200) for hide in (0.0, 0.25)]
FOLDS = 5
HIDDEN = ("blocks", 0.5)
METHODS = ("mean pose", "labels alone", "keypoints", "keypoints and network")


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="trained run")
    parser.add_argument("labels", help="labelled images to draw from")
    parser.add_argument("--test", required=True, help="labelled images to measure on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="of labels; 0: all")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.run).eval()
    pool, test = (read(spec, model.config["image_size"]) for spec in (options.labels, options.test))
    cells = []
    for count in options.counts:
        for draw in range(1 if count == 0 else options.draws):
            path = options.out / f"labels{count or len(pool)}-draw{draw}.json"
            if not path.is_file():
                print(f"== {path.stem}", flush=True)
                path.parent.mkdir(parents=True, exist_ok=True)
                rows = np.random.default_rng([draw, count]).permutation(len(pool))[: count or None]
                write_text(path, json.dumps(cell(model, part(pool, rows), test), indent=2) + "\n")
            cells.append(json.loads(path.read_text()))
    found = table(cells)
    write_text(options.out / "table.json", json.dumps(found, indent=2) + "\n")
    print("\n".join(lines(found)))


def read(spec: str, image_size: int) -> Labelled:
    """All labelled images of a set."""
    opened = open_set(spec, image_size, split="fit")
    split, notes = labelled_split(opened.dataset, opened.labels, "given", 0.5)
    for note in notes:
        print(f"note: {note}")
    images = torch.stack([split.images[i] for i in range(len(split))])
    return Labelled(images, split.joints * 2 - 1, split.visible, opened.labels.names, opened.labels.skeleton)


def part(labelled: Labelled, rows: np.ndarray) -> Labelled:
    """Some of the images."""
    images = labelled.images[torch.from_numpy(rows)]
    return replace(labelled, images=images, joints=labelled.joints[rows], shown=labelled.shown[rows])


def cell(model: LinkModel, few: Labelled, test: Labelled) -> dict[str, Any]:
    """Errors of every method, as fractions of the image size, "whole" and "hidden"."""
    named = name_joints(model, few)
    schedule = chosen(model, few)
    alone = network(model, few, schedule)
    mean = np.where(few.shown[..., None], few.joints, np.nan)
    mean = np.nan_to_num(np.nanmean(mean, axis=0)) if len(few) else mean
    hidden, visible = occlude(test.images, *HIDDEN)
    result: dict[str, Any] = {"labels": len(few), "schedule": {"steps": schedule.steps, "hide": schedule.hide}}
    for name, images, seen in (("whole", test.images, None), ("hidden", hidden, visible)):
        points = keypoints(model, images, seen)
        found = {
            "mean pose": np.broadcast_to(mean, test.joints.shape),
            "labels alone": predicted(alone, images).double().numpy(),
            "keypoints": named.map(points),
            "keypoints and network": named(images, points),
        }
        errors = {key: joint_errors(value, test.joints, test.shown) / 2 for key, value in found.items()}
        result[name] = {key: float(mean_over(value)) for key, value in errors.items()}
    return result


def keypoints(model: LinkModel, images: torch.Tensor, visible: torch.Tensor | None) -> np.ndarray:
    """Of all images; where something is hidden, after two rounds if the model has any."""
    passes = 3 if model.iterative and visible is not None else 1
    parts = torch.arange(len(images)).split(64)
    found = [model.estimate(images[rows], passes, None if visible is None else visible[rows]) for rows in parts]
    return torch.cat(found).double().numpy()


def network(model: LinkModel, few: Labelled, schedule: Schedule) -> Any:
    """A network of the run's shape, trained on these labels from scratch."""
    torch.manual_seed(schedule.seed)
    fresh = MODELS[model.architecture](**model.config)
    return trained(
        fresh, few.images, torch.from_numpy(np.nan_to_num(few.joints)), torch.from_numpy(few.shown), schedule
    )


def chosen(model: LinkModel, few: Labelled) -> Schedule:
    """The schedule with the smallest error on labels left out."""
    folds = np.random.default_rng(0).permutation(len(few)) % min(FOLDS, len(few))
    means = []
    for schedule in SCHEDULES:
        errors = []
        for fold in np.unique(folds):
            held, others = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            left = part(few, held)
            joints = predicted(network(model, part(few, others), schedule), left.images).double().numpy()
            errors.append(joint_errors(joints, left.joints, left.shown).ravel())
        means.append(float(mean_over(np.concatenate(errors))))
    return SCHEDULES[int(np.argmin(means))]


def table(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By number of labels and part: mean and standard deviation over the draws, and the ratio to labels alone."""
    rows = []
    for count in sorted({each["labels"] for each in cells}):
        for which in ("whole", "hidden"):
            values = {m: [each[which][m] for each in cells if each["labels"] == count] for m in METHODS}
            row: dict[str, Any] = {"labels": count, "images": which, "draws": len(values["mean pose"])}
            row |= {m: {"mean": float(np.mean(v)), "deviation": float(np.std(v))} for m, v in values.items()}
            row["ratio"] = row["keypoints and network"]["mean"] / row["labels alone"]["mean"]
            rows.append(row)
    return rows


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table as text."""
    text = [f"{'labels':>6}  {'images':<8}" + "".join(f"{method:>24}" for method in METHODS) + f"{'ratio':>8}"]
    for row in rows:
        numbers = "".join(f"{row[m]['mean']:16.4f} +-{row[m]['deviation']:.4f}" for m in METHODS)
        text.append(f"{row['labels']:>6}  {row['images']:<8}{numbers}{row['ratio']:8.2f}")
    return text


if __name__ == "__main__":
    main()
