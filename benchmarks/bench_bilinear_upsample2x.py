"""bilinear_upsample2x against torch's own, which autocast has in float32."""

import pytest
import torch
from cases.bilinear_upsample2x import random_maps
from harness import OPERATORS, Workload, measure, parameters

FORMULA = OPERATORS["bilinear_upsample2x"].formula  # torch's interpolation


def _repeated(b, c, size, last):
    """One sample b times: drawing all of them would take longer than what is measured."""

    def make(g):
        maps = torch.randn(1, c, size, size, generator=g).expand(b, -1, -1, -1)
        return {"maps": maps.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)}

    return make


def _workload(b, c, size, cpu, gpu, last=True, dtype=torch.float32):
    label = f"B={b} C={c} {size}x{size}" + " contiguous" * (not last) + " bfloat16" * (dtype != torch.float32)
    makes = _repeated(b, c, size, last), random_maps(2, c, 9, 10, last), random_maps(1, 8, 5, 4, last)
    return Workload("bilinear_upsample2x", label, *makes, cpu, gpu, dtype=dtype)


WORKLOADS = [
    _workload(8, 128, 32, "formula", "none"),
    _workload(8, 128, 32, "formula", "none", last=False),
    _workload(64, 256, 64, "none", "formula"),
    _workload(64, 512, 32, "none", "formula"),
    _workload(64, 256, 64, "none", "formula", dtype=torch.bfloat16),
]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("workload", "name"), parameters(WORKLOADS))
def test_bilinear_upsample2x(benchmark, workload, name, direction):
    measure(benchmark, workload, name, direction, FORMULA)
