"""A training step of the demo's model on an idle machine, and beside one busy process, by how threads wait.

`python benchmarks/loaded.py [--out FILE]`, on an otherwise idle machine: each way in processes of its own, in turns.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

import torch
from run import keep, parser_of

from ppl_fast import ExtendedPPL, _waiting
from ppl_fast.options.demo import MODEL, TRAIN

WAYS = {
    "as torch has it": {},
    "as the commands have it": _waiting.SHORT,
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=30000": {"GOMP_SPINCOUNT": "30000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def step_here(seconds: float) -> float:
    """The median time of a step in this process, in ms, over so many seconds."""
    torch.manual_seed(0)
    model = ExtendedPPL(**MODEL).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=TRAIN["lr"], fused=True)
    images = torch.rand(TRAIN["batch_size"], 3, MODEL["image_size"], MODEL["image_size"]) * 2 - 1
    images = images.to(memory_format=torch.channels_last)
    taken: list[float] = []
    while sum(taken[3:]) < seconds:  # the first are not counted
        begun = time.perf_counter()
        model(images).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        taken.append(time.perf_counter() - begun)
    return median(taken[3:]) * 1e3


def step_apart(way: str, busy: bool, seconds: float) -> float:
    """The same in a process of its own, whose threads wait in one of `WAYS`, beside a busy one or none."""
    free = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", *_waiting.POLICY)}
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        command = [sys.executable, __file__, "--here", "--seconds", str(seconds)]
        return float(subprocess.run(command, env=free | WAYS[way], check=True, capture_output=True, text=True).stdout)
    finally:
        if loop:
            loop.kill()
            loop.wait()


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind")
    parser.add_argument("--seconds", type=float, default=20, help="of steps in each")
    parser.add_argument("--here", action="store_true", help="print a step's ms in this process, as it is")
    arguments = parser.parse_args()
    if arguments.here:
        return print(step_here(arguments.seconds))
    taken: dict[tuple[str, bool], list[float]] = {(way, busy): [] for way in WAYS for busy in (False, True)}
    for _ in range(arguments.rounds):
        for way, busy in taken:
            taken[way, busy].append(step_apart(way, busy, arguments.seconds))
    rows = []
    for way in WAYS:
        idle, loaded = (round(median(taken[way, busy]), 1) for busy in (False, True))
        rows.append({"threads_wait": way, "idle_ms": idle, "loaded_ms": loaded})
        print(f"{way:<26}{idle:10.1f} ms idle{loaded:10.1f} ms beside a busy process")
    keep(rows, arguments.out)


if __name__ == "__main__":
    main()
