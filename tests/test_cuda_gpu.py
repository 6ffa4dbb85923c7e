"""The CUDA C++ kernels on a GPU, beyond test_gpu.py: float64, which Triton's do not take, and what kernels occupy."""

import cuda_emulator
import pytest
import torch
from cases import every
from op_tester import check

from ppl_fast import _library

_reason = "there is no GPU here" if not torch.cuda.is_available() else _library.failure("_C_cuda")
pytestmark = [
    pytest.mark.skipif(_reason is not None, reason=str(_reason)),
    pytest.mark.usefixtures("gpu_answers"),
]


@pytest.mark.parametrize(("op", "case"), every())
def test_agrees_with_the_reference_in_float64(op, case):
    check(op, case, "cpp", torch.float64, "cuda")


def test_kernel_info_tells_what_the_kernels_occupy():
    rows = _library.loaded("_C_cuda").kernel_info()
    assert len(rows) == cuda_emulator.reported_kernels()
    for row in rows:
        assert row["local_bytes"] == 0, row
        assert row["blocks_per_multiprocessor"] >= 1, row
