"""Run every case of the CUDA C++ kernels once, for a checker to watch.

On a GPU: `compute-sanitizer python benchmarks/gpu_check.py`. On the CPU: `python benchmarks/gpu_check.py --rehearse
BUILD`, by the emulator's build `sanitized` (accesses out of bounds) or `watched` (races), which stand for memcheck and
racecheck. `--seconds` bounds it: the workloads that are measured come first, then the operators' cases in turn.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time

from gpu_clock import DEVICE, REHEARSE, stand_in  # it says where the tests are

# isort: split
import torch
from cases import CASES, Case
from harness import suites
from op_tester import check


def cases():
    """(op, case): the gates of what is measured, then the first case of each operator, the second, ..."""
    for suite in suites().values():
        yield from ((w.op, Case(w.label, w.tiny if REHEARSE else w.small)) for w in suite.WORKLOADS if w.gpu != "none")
    by_turns = itertools.zip_longest(*([(op, case) for case in some] for op, some in CASES.items()))
    yield from filter(None, itertools.chain.from_iterable(by_turns))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", choices=("sanitized", "watched"), metavar="BUILD", help="by the emulator")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further case after this time")
    arguments = parser.parse_args()
    if REHEARSE:
        import cuda_emulator

        needed = cuda_emulator.sanitizer_environment() if arguments.rehearse == "sanitized" else {}
        if needed and "ASAN_OPTIONS" not in os.environ:
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **needed})
        stand_in(arguments.rehearse)
    start, seen, every = time.monotonic(), 0, list(cases())
    for op, case in every:
        if time.monotonic() - start > arguments.seconds:
            break
        check(op, case, "cpp", torch.float32, DEVICE)
        seen += 1
    print(f"checked {seen} of {len(every)} cases")
    return int(seen == 0)


if __name__ == "__main__":
    sys.exit(main())
