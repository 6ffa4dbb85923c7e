"""link_heatmap against the published (B, E, H*W) formula, eager and compiled."""

import pytest
from cases import random_links
from formulas import published_link_heatmap as FORMULA
from harness import Workload, measure


def _workload(b, n, size, thickness, implementations, rounds=30):
    label = f"B={b} N={n} {size}x{size} t={thickness:g}"
    small = random_links(2, n, min(size, 48), thickness, spread=0.9)
    return Workload(
        "link_heatmap", label, random_links(b, n, size, thickness, spread=1.0), small, implementations, rounds
    )


WORKLOADS = [
    _workload(8, 16, 128, 1e-3, ("formula", "compiled", "reference", "cpp")),
    _workload(64, 16, 128, 1e-3, ("cpp",)),
    _workload(64, 16, 128, 7.5e-5, ("cpp",)),
    _workload(64, 32, 256, 1e-3, ("cpp",)),
    _workload(8, 64, 512, 1e-3, ("cpp",)),
]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("workload", "name"),
    [pytest.param(w, name, id=f"{w.label}-{name}") for w in WORKLOADS for name in w.implementations],
)
def test_link_heatmap(benchmark, workload, name, direction):
    measure(benchmark, workload, name, direction, FORMULA)
