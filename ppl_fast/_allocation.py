"""What becomes of the memory that a step of training frees: it is kept for the next one.

glibc gives large blocks back to the system as soon as they are free, and every step fetches them anew, page by page,
each cleared: hundreds of thousands of pages a step of the published model (docs/performance.md).
"""

from __future__ import annotations

import ctypes
import os
import sys

OWN = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "LD_PRELOAD")
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # M_* of malloc.h
MOST = 2**31 - 1


def keep_freed() -> bool:
    """Let this process keep what it frees, unless the environment has settings of its own; whether it does now."""
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in OWN):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, MOST))
