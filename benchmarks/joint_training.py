"""What are labels worth inside the training?

`python benchmarks/joint_training.py RUN LABELS DATA --out FOLDER`: for the numbers of labels and the draws that
label_efficiency.py has, `train DATA --from RUN --labels FEW`, and on the same held-out frames the errors of the joints
as they are found, no map between: whole, and with half of the blocks hidden, as they are and after two rounds; and of
what the memory makes of them. DATA must not hold these frames.

A cell, draw by draw, is kept in FOLDER with its run, so that a call goes on where another stopped; all are written to
FOLDER/table.json.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_efficiency import HIDDEN, divided, drawn, found, parser_of, part, read

from ppl_fast._files import write_text
from ppl_fast.data import open_set
from ppl_fast.evaluation import joint_errors, mean_over, occlude
from ppl_fast.models import PPL
from ppl_fast.naming import Labelled
from ppl_fast.options.demo import LEARNING
from ppl_fast.training import TrainConfig, train
from ppl_fast.training.warm_start import options_of

# Beside the recipe of the demo: the run has found the subject, so that nothing needs to be withheld any more.
MODEL: dict[str, Any] = {"withhold_until": 0.0}
LOOP: dict[str, Any] = LEARNING | {
    "frames": 40, "frames_by": "difference", "cache": "memory", "workers": 0, "device": "cpu", "tracker": "none",
    "picture_every": 0, "checkpoint_every": 250,
    "masks": None,  # as the figures of docs/naming.md were measured
}  # fmt: skip


def main() -> None:
    """Train and measure what is missing."""
    parser = parser_of(__doc__, (10, 20), draws=1, steps=1000)
    parser.add_argument("data", help="unlabelled images and videos")
    parser.add_argument("--keypoints", type=int, default=24)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    architecture, begun, _ = options_of(options.run)
    model = begun | MODEL | {"num_keypoints": options.keypoints}
    labelled = read(options.labels, model["image_size"])
    test, pool = divided(len(labelled), options.seed)
    cells = []
    for count, draw in ((count, draw) for draw in range(options.draws) for count in options.counts):
        path = options.out / f"labels{count}-draw{draw}.json"
        if not path.is_file():
            few = path.with_suffix(".npz")
            write_labels(options.labels, pool[drawn(len(pool), count, draw)], few)
            config = TrainConfig(**LOOP, steps=options.steps, threads=options.threads, labels=str(few))
            started, out = time.process_time(), path.with_suffix("")
            trained = train(model, config, options.data, out, "auto", architecture, options.run)
            seconds = time.process_time() - started
            assert isinstance(trained, PPL)
            measured = {"labels": count, "draw": draw, "steps": options.steps, "seconds": seconds}
            write_text(path, json.dumps(measured | errors(trained, part(labelled, test)), indent=2) + "\n")
        cells.append(json.loads(path.read_text()))
        print(json.dumps(cells[-1]), flush=True)
    write_text(options.out / "table.json", json.dumps(cells, indent=2) + "\n")


def write_labels(spec: str, rows: np.ndarray, path: Path) -> None:
    """Some of a project's labelled images, by their numbers as `read` has them, as a label file."""
    opened = open_set(spec, 64, split="fit")
    labels = opened.labels
    _, matched = labels.match(opened.dataset.paths)
    labels.select(matched[labels.visible[matched].any(axis=1)][rows]).save(path)


@torch.no_grad()
def errors(model: PPL, test: Labelled) -> dict[str, float]:
    """Mean distances to the labels, as fractions of the image size."""

    def error(points: np.ndarray) -> float:
        joints = points[:, : len(test.names)]
        return float(mean_over(joint_errors(joints, test.joints, test.shown) / 2))

    def recalled(points: np.ndarray) -> float:
        return error(model.memory(torch.from_numpy(points).float())[0].double().numpy())

    hidden, visible = occlude(test.images, *HIDDEN)
    whole, rounds = found(model, test.images, None)[0], found(model, hidden, visible)[0]
    result = {"whole": error(whole), "hidden": error(rounds)}
    result["hidden, no round"] = error(model.estimate(hidden).double().numpy())
    return result | {"whole, memory": recalled(whole), "hidden, memory": recalled(rounds)}


if __name__ == "__main__":
    main()
