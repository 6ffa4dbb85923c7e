"""The kernels from a C++ program without Python: docs/cpp_program.cpp, and what it relies on."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import ppl_fast
from ppl_fast import _library
from ppl_fast._library import OPERATORS

ROOT = Path(__file__).parent.parent
TORCH = Path(torch.__file__).parent
KERNELS = _library.loaded("_C_cpu")
FOLDER = Path(KERNELS.__file__).parent if KERNELS else None

pytestmark = pytest.mark.skipif(KERNELS is None, reason=str(_library.failure("_C_cpu")))


def test_cpp_and_python_define_the_same_operators():
    schemas = []
    for source in (ROOT / "csrc").glob("*_cpu.cpp"):
        block = re.search(r"Schemas kSchemas = \{(.*?)\};", source.read_text(), re.DOTALL)[1]
        schemas += re.findall(r"(\w+)(\(.*?\) -> (?:\(.*?\)|Tensor))", "".join(re.findall(r'"(.*)"', block)))
    assert sorted(name for name, _ in schemas) == sorted(name for op in OPERATORS.values() for name in op.ops)
    for name, rest in schemas:
        assert torch._C.parse_schema(f"ppl_fast::{name}{rest}") == getattr(torch.ops.ppl_fast, name).default._schema


@pytest.mark.skipif(shutil.which("nm") is None, reason="there is no nm to list symbols with")
def test_the_kernels_need_no_python():
    command = ["nm", "-D", "--undefined-only", FOLDER / "libppl_fast_cpu.so"]
    needed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "aoti_torch" in needed
    assert not re.search(r"\b_?Py", needed)


def reason_against_building() -> str | None:
    if shutil.which("g++") is None:
        return "there is no g++"
    headers = TORCH / "include" / "ATen" / "core" / "dispatch" / "Dispatcher.h"
    return None if headers.exists() else f"this torch has no headers: {headers} is missing"


@pytest.mark.slow
@pytest.mark.skipif(reason_against_building() is not None, reason=str(reason_against_building()))
def test_the_example_agrees_with_python(tmp_path):
    """Built by the command at the top of the file."""
    source = (ROOT / "docs" / "cpp_program.cpp").read_text()
    command = " ".join(re.findall(r"^// {3,7}(.*)$", source, re.MULTILINE))
    command = command.replace("$TORCH", str(TORCH)).replace("$PPL_FAST", str(FOLDER)).split()
    command[command.index("cpp_program.cpp")] = str(ROOT / "docs" / "cpp_program.cpp")
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    done = subprocess.run([tmp_path / "cpp_program"], capture_output=True, text=True, env={})
    assert done.returncode == 0, done.stderr
    printed = [float(number) for number in re.findall(r"-?\d+\.\d+(?:e[+-]\d+)?", done.stdout)]

    keypoints = torch.tensor([[[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]]], requires_grad=True)
    weights, links = torch.tensor([0.5, 1.0], requires_grad=True), torch.tensor([[0, 1], [1, 2]])
    heatmap = ppl_fast.link_heatmap(keypoints, weights, 5, 0.1, links, backend="reference")
    (grad_weights,) = torch.autograd.grad(heatmap.sum(), weights)
    expected = torch.cat([heatmap.detach().flatten(), grad_weights])
    torch.testing.assert_close(torch.tensor(printed), expected, rtol=1e-4, atol=1e-9)
