"""Whether a prior keeps left and right apart: `python benchmarks/learning/mirrored.py --out FOLDER`.

A subject that is seen from both sides is stood in for by images of which half are mirrored at random. PPL begins anew
on them, goes on with another room's model, or goes on and holds its prior. Measured on images of a validation part and
their mirror images: the share of keypoints beside the prior's middle that change sides between the two, which follow
the room or a side of the body and not a side of the pose; and the error on the images as they are, by a map of their
own labels. What is finished is not run again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from carry import HELD, LABELS, SIZE, points_of
from methods import METHODS
from report import interval
from run import trained
from sets import open_set

from ppl_fast._files import write_text
from ppl_fast.evaluation import fit_ridge, joint_errors, labelled_split, mean_over
from ppl_fast.inference import predict
from ppl_fast.options import demo

BESIDE = 0.1  # of half a side, from which on a keypoint of the prior lies beside the middle
METHOD = "ppl-moving"
WAYS: dict[str, tuple[bool, dict[str, Any]]] = {  # begins with the other room's model; further options
    "begins anew": (False, {}),
    "goes on": (True, {}),
    "goes on, prior held": (True, HELD),
}


def main() -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of figures and of runs of run.py or carry.py")
    parser.add_argument("--pairs", nargs="+", default=["1:0", "0:1", "2:0"], metavar="FROM:TO", help="seeds of rooms")
    parser.add_argument("--steps", type=int, default=1000, help="on mirrored images")
    parser.add_argument("--first-steps", type=int, default=demo.STEPS, help="on the first room")
    parser.add_argument("--device", default="cpu", help="that trains and estimates")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measured(way, *map(int, pair.split(":")), options) for way in WAYS for pair in options.pairs]
    write_text(options.out / "mirrored.json", json.dumps(rows, indent=2) + "\n")
    print("| | keypoints that change sides | error |")
    print("| --- | ---: | ---: |")
    for way in WAYS:
        found = [interval([row[key] for row in rows if row["way"] == way]) for key in ("change sides", "error")]
        print(f"| PPL {way} | " + " | ".join(f"{each['mean']:.3f} ± {each['half'] or 0:.3f}" for each in found) + " |")


def measured(way: str, first: int, room: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run on mirrored images of a room."""
    begins, further = WAYS[way]
    label = f"mirrored-{first}-{room}-{way.replace(',', '').replace(' ', '-')}"
    kept = options.out / "cells" / f"{label}.json"
    if not kept.is_file():
        print(f"== {label}", flush=True)
        data = open_set("lab", room, "validation", SIZE, options.out / "figures")
        start = options.out / "runs" / f"lab-{METHOD}-seed{first}-steps{options.first_steps}"
        if begins and not start.exists():
            source = open_set("lab", first, "validation", SIZE, options.out / "figures")
            trained(METHODS[METHOD], options.first_steps, first, source, start, device=options.device)
        run, beginning = options.out / "runs" / label, start if begins else None
        model, _ = trained(
            METHODS[METHOD], options.steps, 0, data, run, beginning, further, flip=True, device=options.device
        )
        row = {"way": way, "from": first, "to": room, "steps": options.steps, **sides(model.eval(), data)}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(row, indent=2) + "\n")
    return json.loads(kept.read_text())


def sides(model: Any, data: Any) -> dict[str, float]:
    """How many keypoints change sides under a mirror, and the error."""
    judged = labelled_split(*data.judged, "mirrored")[0].part(slice(LABELS))
    images = torch.stack([judged.images[i] for i in range(len(judged))])
    points, mirrored = (predict(model, each, progress=False) for each in (images, images.flip(3)))
    prior = model.memory.prior()[:, 0].detach().cpu().numpy()
    beside = np.abs(prior - prior.mean()) > BESIDE
    across = (each[..., 0] - each[..., 0].mean(axis=1, keepdims=True) for each in (points, mirrored))
    sign, other = (np.sign(each)[:, beside] for each in across)
    error = joint_errors(fit_ridge(*points_of(model, data.fit))(points), judged.joints, judged.visible)
    return {
        "beside": int(beside.sum()),
        "change sides": float((sign != other).mean()),
        "error": float(mean_over(error)),
    }


if __name__ == "__main__":
    main()
