"""The cycle model's counts of affine_warp's backward against counts made by hand."""

import re

import cycle_model
import pytest
import test_cuda_compiles
from cycles_affine_warp import CYCLES
from test_cycle_model import code_of, needs_nvcc


@pytest.mark.slow
@needs_nvcc
@pytest.mark.parametrize("arch", test_cuda_compiles.ARCHITECTURES)
def test_a_point_with_its_own_keypoint(arch):
    """By hand from point_backward in csrc/affine_warp_cuda.cu and warp_point_backward in csrc/affine_warp.h."""
    code = code_of(CYCLES[0], arch)
    names = [re.sub(r"^@\S+ ", "", text).split()[0].split(".")[0] for _, text in code]
    # grad_theta: four products; grad_x and grad_y: two products each, and the sum's start, which is 0.
    assert names.count("FMUL") + names.count("FFMA") + names.count("FADD") == 10
    # Loads: the gradient, the point and the four elements of A; b is not needed.
    assert names.count("LDG") == 2 + 2 + 4 and names.count("STG") == 6 + 2
    issued = cycle_model.counts(code, CYCLES[0].trips)
    assert issued["memory"] == 8 + 8 + names.count("LDC") and issued["fma"] >= 10
