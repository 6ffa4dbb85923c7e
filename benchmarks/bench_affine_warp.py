"""affine_warp against the published formula (homogeneous coordinates and a batched matrix product)."""

import pytest
from cases import random_warp
from formulas import published_affine_warp as FORMULA
from harness import Workload, measure

WORKLOADS = [
    Workload(
        "affine_warp", f"B={b} N={n}", random_warp(b, n, True), random_warp(4, n, True),
        ("formula", "compiled", "reference", "cpp"), 200,
    )
    for b, n in ((64, 16), (1024, 64))
]  # fmt: skip


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("workload", "name"),
    [pytest.param(w, name, id=f"{w.label}-{name}") for w in WORKLOADS for name in w.implementations],
)
def test_affine_warp(benchmark, workload, name, direction):
    measure(benchmark, workload, name, direction, FORMULA)
