"""The Triton backend without a GPU: interpreted in a process of its own, chosen where it can run, refused in words."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ppl_fast
from ppl_fast import _backend, _library
from ppl_fast._library import OPERATORS

HERE = Path(__file__).parent
OP = "link_heatmap"  # any will do
POINTS, WEIGHTS = torch.zeros(1, 3, 2), torch.zeros(3)


@pytest.fixture
def no_cuda_extension(monkeypatch, choosing):
    failures = {"_C_cuda": "ppl_fast._C_cuda is not part of this installation (it was not built)"}
    monkeypatch.setattr(_library, "failure", lambda name: failures.get(name, _library._failures.get(name)))
    monkeypatch.delitem(_library._loaded, "_C_cuda", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))


# The quick loop runs each operator once, forward and backward, and what is easiest to break; the whole suite the rest.
FEW = "strides or test_launches or ties_across or wrong_link"


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize(
    ("chosen", "least"), [(FEW, 9), pytest.param(f"not ({FEW})", 180, marks=pytest.mark.slow)], ids=["few", "rest"]
)
def test_kernels_agree_under_the_interpreter(chosen, least):
    quiet = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    command = [sys.executable, "-m", "pytest", *quiet, "-k", chosen, "test_triton_interpreted.py"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    closing = done.stdout.splitlines()[-1]
    assert int(re.match(r"(\d+) passed", closing)[1]) >= least and "skipped" not in closing, closing


def test_importing_ppl_fast_imports_no_triton():
    code = "import sys, ppl_fast.kernels\nfrom ppl_fast import *\n"
    code += "print('triton' in sys.modules, 'torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("op", OPERATORS)
def test_auto_takes_triton_on_cuda_without_the_extension(op, no_cuda_extension):
    assert _backend.select(op, "auto", torch.device("cuda")) is getattr(torch.ops.ppl_fast, f"{op}_triton").default


@pytest.mark.filterwarnings("ignore:ppl_fast. no compiled kernels")
def test_auto_leaves_float64_to_the_reference(no_cuda_extension):
    chosen = _backend.select(OP, "auto", torch.device("cuda"), torch.float64)
    assert chosen is OPERATORS[OP].overload("_reference")


def refusal(error, device="cpu", dtype=torch.float32) -> str:
    with pytest.raises(error) as caught:
        _backend.select(OP, "triton", torch.device(device), dtype)
    return str(caught.value)


def test_cpu_tensor(monkeypatch, choosing):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(RuntimeError) as caught:
        ppl_fast.link_heatmap(POINTS, WEIGHTS, 8, 0.1, backend="triton")
    assert str(caught.value) == (
        "link_heatmap: backend 'triton' cannot run on 'cpu': Triton compiles for GPUs alone (TRITON_INTERPRET=1 "
        "interprets its kernels on the CPU, to debug them); meanwhile backend='auto' or 'reference' work "
        "('ppl-fast doctor' shows what runs where)"
    )


def test_no_triton(monkeypatch, choosing):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert "cannot run on 'cuda': triton is not installed (pip install triton); " in refusal(RuntimeError, "cuda")


def test_other_device(choosing):
    assert "there are no Triton kernels for the device type 'meta'; " in refusal(RuntimeError, "meta")


def test_old_gpu(monkeypatch, choosing):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (6, 1))
    assert "Triton needs a GPU of compute capability 7.0 or later, this one has 6.1; " in refusal(RuntimeError, "cuda")


def test_float64(choosing):
    with pytest.raises(TypeError) as caught:
        ppl_fast.link_heatmap(POINTS, WEIGHTS.double(), 8, 0.1, backend="triton")
    assert str(caught.value) == (
        "link_heatmap: backend 'triton' takes float16, bfloat16 and float32, got float64, which 'cpp' and 'reference' "
        "take"
    )


def test_other_dtype():
    with pytest.raises(TypeError, match="link_heatmap: weights must have a dtype of float16, bfloat16"):
        ppl_fast.link_heatmap(POINTS, WEIGHTS.int(), 8, 0.1, backend="triton")


def test_two_devices():
    with pytest.raises(ValueError, match="link_heatmap: weights must be on cpu like the other tensors, got meta"):
        ppl_fast.link_heatmap(POINTS, WEIGHTS.to("meta"), 8, 0.1, backend="triton")
