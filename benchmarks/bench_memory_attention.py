"""memory_attention, hard and soft, against the published formula (a matrix product and a one-hot product)."""

import pytest
from cases import random_tokens
from formulas import published_memory_attention as FORMULA
from harness import Workload, measure


def _workload(b, m, k, d, temperature, implementations, rounds=30):
    label = f"B={b} m={m} k={k} d={d}" + ("" if temperature is None else " soft")
    small = random_tokens(4, 3, min(k, 40), d, temperature)
    return Workload("memory_attention", label, random_tokens(b, m, k, d, temperature), small, implementations, rounds)


WORKLOADS = [
    _workload(64, 34, 16, 512, None, ("formula", "compiled", "reference", "cpp")),
    _workload(64, 34, 16, 512, 500.0, ("reference", "cpp")),
    _workload(64, 34, 4096, 512, None, ("formula", "cpp"), rounds=5),
]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("workload", "name"),
    [pytest.param(w, name, id=f"{w.label}-{name}") for w in WORKLOADS for name in w.implementations],
)
def test_memory_attention(benchmark, workload, name, direction):
    measure(benchmark, workload, name, direction, FORMULA)
