"""The demo's model trained in bfloat16 beside float32: the reconstruction loss of 300 steps, by seed.

`python benchmarks/precision.py [--out FILE]`, some minutes of one core. The steps are so few that a mean over the last
third still depends on the seed; what the precision changes is to be read beside that.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import mean

import torch
from run import keep, parser_of

from ppl_fast.data import make_figures
from ppl_fast.options.demo import LEARNING, MODEL
from ppl_fast.training import TrainConfig, train

PRECISIONS = {"float32": "no", "bfloat16": "bf16"}
EVERY = 10  # steps between records


def losses(precision: str, seed: int, steps: int, figures: Path, run: Path) -> list[float]:
    """The recorded means of the reconstruction loss, of every so many steps."""
    loop = {"cache": "memory", "workers": 0, "device": "cpu", "tracker": "none", "picture_every": 0}
    loop |= LEARNING | {"masks": None}  # as the figures of docs/performance.md were measured
    config = TrainConfig(steps, seed=seed, precision=PRECISIONS[precision], log_every=EVERY, **loop)
    train(MODEL, config, figures, run, architecture="extended-ppl")
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["losses"]["reconstruction"] for line in lines]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder, "figures")
        make_figures(figures, 400, size=MODEL["image_size"], seed=0, split="train")
        for seed in range(arguments.seeds):
            for precision in PRECISIONS:
                begun = time.process_time()
                found = losses(precision, seed, arguments.steps, figures, Path(folder, f"{precision}{seed}"))
                taken = time.process_time() - begun
                late = mean(found[-len(found) // 3 :])
                row = {"precision": precision, "seed": seed, "steps": arguments.steps, "first_ten": round(found[0], 4)}
                rows.append(row | {"last_third": round(late, 4), "cpu_seconds": round(taken, 1)})
                print(f"{precision:<10}seed {seed}: {late:.4f} in the last third, {taken:.0f} s", flush=True)
                keep(rows, arguments.out)


if __name__ == "__main__":
    main()
