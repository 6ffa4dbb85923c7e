"""ppl_fast._allocation: memory that is freed is kept for the next step, where the C library can."""

import ctypes
import os
import subprocess
import sys

import pytest

from ppl_fast import _allocation

# Page faults of taking 40 MB and giving them back, eight times.
FAULTS = """
import resource
from ppl_fast import _allocation
if {keep}:
    print(_allocation.keep_freed())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    b"1" * (5 * 2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
GLIBC = sys.platform.startswith("linux") and hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def lines(keep: bool, **more: str) -> list[str]:
    free = {name: value for name, value in os.environ.items() if name not in _allocation.OWN}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=keep)], env=free | more, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc, whose setting it is")
def test_what_is_freed_is_taken_again():
    pages = 5 * 2**23 // os.sysconf("SC_PAGE_SIZE")
    (without,) = lines(keep=False)
    kept, after = lines(keep=True)
    assert kept == "True" and int(after) < 1.2 * pages  # those of the first time
    assert int(without) > 4 * pages


def test_settings_of_the_environment_stay():
    assert lines(keep=True, MALLOC_TRIM_THRESHOLD_="0")[0] == "False"
