"""What the tests on a GPU share: which machine they are on, and its backends."""

import os

import pytest
import torch
from cases import CASES

from ppl_fast import _backend

REHEARSE = os.environ.get("TRITON_INTERPRET") == "1"  # gpu_suite.sh --rehearse: what does not need a GPU, on the CPU
if not torch.cuda.is_available() and not REHEARSE:
    pytest.skip("no GPU", allow_module_level=True)
if REHEARSE:
    import interpreted

    interpreted.faster()
    interpreted.use_large_tiles()
DEVICE = "cpu" if REHEARSE else "cuda"
pytestmark = pytest.mark.usefixtures("gpu_answers")
needs_gpu = pytest.mark.skipif(REHEARSE, reason="no GPU to rehearse on")
BACKENDS = [name for name in ("triton", "cpp") if not any(_backend.reason_against(op, name, DEVICE) for op in CASES)]
each_backend = pytest.mark.parametrize("name", BACKENDS)  # that runs on this GPU; CUDA C++ where it was built
