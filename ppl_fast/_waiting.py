"""How the threads of OpenMP wait for each other, which is to be said before torch loads it.

torch's operations and the C++ kernels share its threads (`at::parallel_for`). Left alone, a thread that is done early
spins for milliseconds: the fastest where every thread has a core of its own, and ruinous where another process has one,
since it holds up the very thread that is waited for. A spin of some tenths of a millisecond bridges the gaps between
operations, so that an idle machine loses little; a shorter one pays with wake-ups. benchmarks/loaded.py measures it.
"""

from __future__ import annotations

import os
import sys

POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# Turns of a loop for GNU's OpenMP, which torch for Linux brings; milliseconds, 200 if unset, for LLVM's and Intel's.
SHORT = {"GOMP_SPINCOUNT": "6000", "KMP_BLOCKTIME": "1"}

_chosen: set[str] = set()


def shorten() -> None:
    """Let threads spin shortly and then sleep, unless the environment has a policy or torch is loaded already."""
    if "torch" not in sys.modules and not any(name in os.environ for name in POLICY):
        os.environ.update(SHORT)
        _chosen.update(SHORT)


def described() -> str:
    """What is set, by whom."""
    said = []
    for name in ("OMP_NUM_THREADS", *POLICY):
        value = os.environ.get(name)
        said.append(f"{name} {value or 'not set'}" + (" (by ppl-fast)" if name in _chosen else ""))
    return ", ".join(said)
