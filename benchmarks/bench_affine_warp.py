"""affine_warp against the published formula (homogeneous coordinates and a batched matrix product)."""

import pytest
from cases.affine_warp import random_warp
from formulas import published_affine_warp as FORMULA
from harness import Workload, measure, parameters


def _workload(b, n, gpu):
    tiny = random_warp(4, 5, True)
    return Workload(
        "affine_warp", f"B={b} N={n}", random_warp(b, n, True), random_warp(4, n, True), tiny, "all", gpu, rounds=200
    )


WORKLOADS = [_workload(64, 16, "all"), _workload(1024, 64, "kernels")]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("workload", "name"), parameters(WORKLOADS))
def test_affine_warp(benchmark, workload, name, direction):
    measure(benchmark, workload, name, direction, FORMULA)
