"""The CPU kernels in a program of their own (cpu_alone): on aarch64, by an emulator, and with sanitizers."""

import re
import subprocess

import cpu_alone
import pytest
import torch
from cases import CASES
from op_tester import check

pytestmark = pytest.mark.slow
# Of multiply-adds of four floats; there are some 130, 28, 65, 49 and 30.
LEAST = {
    "link_heatmap": 100,
    "link_heatmap_backward": 20,
    "memory_attention": 50,
    "memory_attention_few": 32,
    "memory_attention_screen": 16,
}


def needs(kind: str):
    """A mark that skips where the program cannot be built and run, and says why."""
    reason = cpu_alone.reason_against(kind)
    return pytest.mark.skipif(reason is not None, reason=str(reason))


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=needs(kind)) for kind in cpu_alone.BUILDS])
def test_every_case_agrees_with_the_reference(kind):
    with cpu_alone.serving(kind) as program:
        assert program.isa == cpu_alone.BUILDS[kind].isa
        for dtype in (torch.float32, torch.float64):
            for op, cases in CASES.items():
                for case in cases:
                    check(op, case, "alone", dtype)


@needs("aarch64")
def test_the_kernels_of_aarch64_use_its_vectors():
    """Fused multiply-additions of four floats, the minimum in one instruction, and masks added up across lanes."""
    objects = cpu_alone.build("aarch64") / "CMakeFiles" / "simd_baseline.dir" / "csrc"
    for name, least in LEAST.items():
        command = ["aarch64-linux-gnu-objdump", "-d", objects / f"{name}_simd.cpp.o"]
        code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert len(re.findall(r"\sfml[as]\s+v\d+\.4s", code)) >= least, name
    assert re.search(r"\sfminnm\s+v\d+\.4s", code) and re.search(r"\saddv\s+s\d+, v\d+\.4s", code)
