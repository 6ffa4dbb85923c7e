"""What every test module shares: backends and devices that can run here."""

import pytest
import torch

from ppl_fast import _library


def cpu_backends() -> list[str]:
    """Return the backends of the CPU: the reference, and the C++ kernels once per instruction set."""
    kernels = _library.loaded("_C_cpu")
    return ["reference", *(f"cpp:{isa}" for isa in (kernels.available_isas() if kernels else []))]


@pytest.fixture(params=cpu_backends())
def backend(request) -> str:
    """Each CPU backend in turn, as `op_tester.running` takes it."""
    return request.param


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
