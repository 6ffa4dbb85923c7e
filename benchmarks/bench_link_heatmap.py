"""link_heatmap against the published (B, E, H*W) formula, eager and compiled."""

import pytest
from cases.link_heatmap import random_links
from formulas import published_link_heatmap as FORMULA
from harness import Workload, measure, parameters


def _workload(b, n, size, thickness, cpu, gpu):
    label = f"B={b} N={n} {size}x{size} t={thickness:g}"
    make = random_links(b, n, size, thickness, spread=1.0)
    small = random_links(2, n, min(size, 48), thickness, spread=0.9)  # as many links, so in as many goes
    tiny = random_links(2, min(n, 8), 24, 1e-2, spread=0.9)
    return Workload("link_heatmap", label, make, small, tiny, cpu, gpu)


WORKLOADS = [
    _workload(8, 16, 128, 1e-3, "all", "none"),
    _workload(64, 16, 128, 1e-3, "kernels", "all"),
    _workload(64, 16, 128, 7.5e-5, "kernels", "kernels"),
    _workload(64, 32, 256, 1e-3, "kernels", "kernels"),
    _workload(8, 64, 512, 1e-3, "kernels", "kernels"),
]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("workload", "name"), parameters(WORKLOADS))
def test_link_heatmap(benchmark, workload, name, direction):
    measure(benchmark, workload, name, direction, FORMULA)
