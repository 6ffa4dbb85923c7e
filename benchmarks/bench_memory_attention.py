"""memory_attention, hard and soft, against the published formula (a matrix product and a one-hot product)."""

import pytest
from cases.memory_attention import random_tokens
from formulas import published_memory_attention as FORMULA
from harness import Workload, measure, parameters


def _workload(b, m, k, d, temperature, cpu, gpu, rounds=30):
    label = f"B={b} m={m} k={k} d={d}" + ("" if temperature is None else " soft")
    make = random_tokens(b, m, k, d, temperature)
    # With many prototypes as many banks and prototypes, so that a block takes as many steps through its share of them.
    cooler = temperature and 20.0  # distances grow with d
    # With few, whole tiles of tokens, prototypes and elements as well.
    small = random_tokens(8, 3, k, d, temperature) if k < 1024 else random_tokens(20, m, k, 16, cooler)
    tiny = random_tokens(4, 3, min(k, 40), 40, cooler)
    return Workload("memory_attention", label, make, small, tiny, cpu, gpu, rounds)


WORKLOADS = [
    _workload(64, 34, 16, 512, None, "all", "all"),
    _workload(64, 34, 16, 512, 500.0, "reference", "reference"),
    _workload(64, 34, 4096, 512, None, "formula", "formula", rounds=5),
    _workload(64, 34, 4096, 512, 500.0, "none", "kernels"),
]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("workload", "name"), parameters(WORKLOADS))
def test_memory_attention(benchmark, workload, name, direction):
    measure(benchmark, workload, name, direction, FORMULA)
