"""Whether labels of one set serve another: `python benchmarks/learning/carry.py --out FOLDER`.

A model is trained on one set, and what turns its keypoints into joints is fitted on that set's labels. It then goes on
learning on a few unlabelled images of another set, each way of the comparison by the same steps, and is measured there
by the first set's map: no label of the other set is read for it. Beside it stands the error by a map that is fitted on
the other set's labels, which says how good the keypoints are, and not whether they still mean the same; of a model that
begins anew, on the few images alone, that is the only one that means something. Figures of
other seeds have another room, other outfits and other poses. What is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from methods import METHODS
from report import interval
from run import trained
from sets import LearningSet, open_set

from ppl_fast.data import make_figures
from ppl_fast.evaluation import fit_ridge, joint_errors, labelled_split, mean_over
from ppl_fast.inference import predict
from ppl_fast.naming import linear
from ppl_fast.options import demo

LABELS = 500  # of each set, that maps are fitted on
SIZE = demo.MODEL["image_size"]
HELD = {"hold_prior": True, "plausibility_weight": 5.0}
ANEW = "PPL begins anew"  # without the first set
WAYS: dict[str, tuple[str, dict[str, Any]]] = {  # method and further options
    ANEW: ("ppl-moving", {}),
    "AutoLink goes on": ("autolink-moving", {}),
    "PPL goes on": ("ppl-moving", {}),
    "PPL goes on, prior held": ("ppl-moving", HELD),
}


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of figures, runs and results")
    parser.add_argument("--pairs", nargs="+", default=["lab-1:lab-0", "lab-0:lab-1", "lab-2:lab-0"], metavar="FROM:TO")
    parser.add_argument("--images", type=int, default=100, help="unlabelled ones of the other set")
    parser.add_argument("--steps", type=int, default=1000, help="on them")
    parser.add_argument("--first-steps", type=int, default=demo.STEPS, help="on the first set")
    parser.add_argument("--judged", default="validation", choices=["validation", "test"])
    parser.add_argument("--device", default="cpu", help="that trains and estimates")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for pair in options.pairs for row in compared(*pair.split(":"), options)]
    (options.out / "carry.json").write_text(json.dumps(rows, indent=2) + "\n")
    print("| | by the first set's map | by that of `ppl-fast name` | by a map of its own labels |")
    print("| --- | ---: | ---: | ---: |")
    for way in dict.fromkeys(row["way"] for row in rows):
        found = [interval([row[key] for row in rows if row["way"] == way]) for key in ("ridge", "named", "own")]
        print(f"| {way} | " + " | ".join(f"{each['mean']:.4f} ± {each['half'] or 0:.4f}" for each in found) + " |")


def compared(first: str, other: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one pair of sets, each by name and seed, as lab-1."""
    source, target = (_open(name, options) for name in (first, other))
    few = options.out / "figures" / f"{other}-few-{options.images}"
    if not few.exists():
        kind, seed = other.rsplit("-", 1)
        make_figures(few, options.images, size=SIZE, seed=int(seed), difficulty=kind)
    rows = []
    for way, (method, further) in WAYS.items():
        label = "-".join([first, other, *way.replace(",", "").split(), options.judged])
        found = options.out / "cells" / f"{label}.json"
        if not found.is_file():
            begun = options.out / "runs" / f"{first.replace('-', f'-{method}-seed')}-steps{options.first_steps}"
            seed, device = int(first.rsplit("-", 1)[1]), options.device
            model, _ = trained(METHODS[method], options.first_steps, seed, source, begun, device=device)
            cell = {"from": first, "to": other, "images": options.images, "steps": options.steps}
            row = {"way": way, **cell, **measured(model, model, source, target)}
            found.parent.mkdir(parents=True, exist_ok=True)
            run = options.out / "runs" / found.stem
            data = LearningSet(few, target.fit, target.judged)
            start = None if way == ANEW else begun
            after, _ = trained(METHODS[method], options.steps, 0, data, run, start, further, device=device)
            row |= {f"{key} before": row[key] for key in ("ridge", "named", "own")}
            found.write_text(json.dumps(row | measured(model, after, source, target), indent=2) + "\n")
        rows.append(json.loads(found.read_text()))
    return rows


def measured(model: Any, after: Any, source: LearningSet, target: LearningSet) -> dict[str, float]:
    """Errors on the other set of a model by maps from what the one before had of the first, and by one of its own."""
    (points, joints), (own, labels), (judged, truth) = (
        points_of(each, part) for each, part in ((model, source.fit), (after, target.fit), (after, target.judged))
    )
    shown = np.ones(joints.shape[:2], bool)
    maps = {"ridge": fit_ridge(points, joints), "named": linear.fit((points + 1) / 2, joints, shown).map}
    found = {
        "ridge": maps["ridge"](judged),
        "named": maps["named"]((judged + 1) / 2),
        "own": fit_ridge(own, labels)(judged),
        "mean pose": np.broadcast_to(joints.mean(0), truth.shape),
    }
    every = np.ones(truth.shape[:2], bool)
    return {name: float(mean_over(joint_errors(each, truth, every))) for name, each in found.items()}


def points_of(model: Any, part: tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints in [-1, 1] and joints in [0, 1] of up to `LABELS` images."""
    split = labelled_split(*part, "carry")[0].part(slice(LABELS))
    return predict(model, split.images, progress=False), split.joints


def _open(name: str, options: argparse.Namespace) -> LearningSet:
    kind, seed = name.rsplit("-", 1)
    return open_set(kind, int(seed), options.judged, SIZE, options.out / "figures")


if __name__ == "__main__":
    main()
