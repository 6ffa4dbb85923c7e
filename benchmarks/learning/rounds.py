"""What rounds owe to the memory, and to being told what is hidden: `python benchmarks/learning/rounds.py --out FOLDER`.

FOLDER holds runs of PPL that `run.py` has trained; nothing is trained here. Each is measured as it is, with the pose as
it was found drawn in place of the memory's, and with rounds that imagine the whole image, as of one whose hidden part
nobody told. Errors are of the ridge on test images, half or 80 % of whose blocks are hidden.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from report import interval
from run import measured
from sets import open_set
from torch import Tensor

from ppl_fast._files import write_text
from ppl_fast.models import ExtendedPPL
from ppl_fast.options import demo
from ppl_fast.training import load_model


class FedBack(ExtendedPPL):
    """PPL whose rounds draw the pose as it was found, T', and not as the memory has it, M(T')."""

    def imagined(self, images: Tensor, visible: Tensor | None, keypoints: Tensor, weights: Tensor) -> Tensor:
        """See `PPL.imagined`."""
        return self.painted(images, visible, keypoints, weights)


class Untold(ExtendedPPL):
    """PPL whose rounds imagine all of an image, hidden or not."""

    def imagined(self, images: Tensor, visible: Tensor | None, keypoints: Tensor, weights: Tensor) -> Tensor:
        """See `PPL.imagined`."""
        return super().imagined(images, None, keypoints, weights)


WAYS: dict[str, type[ExtendedPPL]] = {
    "as they are": ExtendedPPL,
    "T' drawn in place of M(T')": FedBack,
    "not told what is hidden": Untold,
}


def main() -> None:
    """Measure what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of run.py")
    parser.add_argument("--sets", nargs="+", default=["lab"], help="lab, studio, folders of projects with labels")
    parser.add_argument("--method", default="ppl-moving")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=demo.STEPS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    print("| set | rounds | half hidden, no round | two | 80 % hidden, no round | two |")
    print("| --- | --- |" + " ---: |" * 4)
    for name in options.sets:
        for way in WAYS:
            row: dict[str, Any] = {"set": Path(name).name, "rounds": way, "seeds": options.seeds}
            found = [errors(options, name, seed, way) for seed in options.seeds]
            row |= {key: interval([each[key] for each in found]) for key in found[0]}
            rows.append(row)
            numbers = " | ".join(f"{row[key]['mean']:.4f} ± {row[key]['half'] or 0:.4f}" for key in found[0])
            print(f"| {row['set']} | {way} | {numbers} |", flush=True)
    write_text(options.out / "rounds.json", json.dumps(rows, indent=2) + "\n")


def errors(options: argparse.Namespace, name: str, seed: int, way: str) -> dict[str, float]:
    """Of one run with its rounds in one way."""
    label = f"{Path(name).name}-{options.method}-seed{seed}-steps{options.steps}"
    kept = options.out / "rounds" / f"{label}-{WAYS[way].__name__}.json"
    if not kept.is_file():
        model = load_model(options.out / "runs" / label).eval()
        model.__class__ = WAYS[way]
        data = open_set(name, seed, "test", demo.MODEL["image_size"], options.out / "figures")
        half, most = (row["ridge"] for row in measured(model, data)["occlusion"]["rows"])
        found = {"half": half[0], "half, two rounds": half[-1], "80 %": most[0], "80 %, two rounds": most[-1]}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, json.dumps(found, indent=2) + "\n")
    return json.loads(kept.read_text())


if __name__ == "__main__":
    main()
