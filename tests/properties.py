"""What the tests of properties share: how many examples hypothesis draws, and backends to try them on.

The same few examples on every machine by default; PPL_FAST_EXAMPLES=1000 searches with a thousand new ones each time.
"""

import contextlib
import os

import cuda_emulator
import pytest
from conftest import cpu_backends
from op_tester import running

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis, which draws the examples, is not installed")
given, st = hypothesis.given, pytest.importorskip("hypothesis.strategies")

_wanted = os.environ.get("PPL_FAST_EXAMPLES")
hypothesis.settings.register_profile(
    "ppl_fast",
    max_examples=int(_wanted or 30),
    derandomize=_wanted is None,
    database=None,
    deadline=None,  # a busy machine is no failure
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],  # conftest's seed and threads, set once
)
hypothesis.settings.load_profile("ppl_fast")

_against = cuda_emulator.reason_against()
_emulated = pytest.param("emulated", marks=pytest.mark.skipif(_against is not None, reason=str(_against)))
BACKENDS = [*cpu_backends(), _emulated]


@contextlib.contextmanager
def suffix_of(backend: str):
    """Choose one of BACKENDS; yields what its operators' names end in: `torch.ops.ppl_fast.<op><suffix>`."""
    if backend == "emulated":
        with cuda_emulator.emulation():
            yield "_plain"
    else:
        with running(backend) as name:
            yield "" if name == "cpp" else f"_{name}"
