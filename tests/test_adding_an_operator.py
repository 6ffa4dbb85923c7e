"""docs/adding_an_operator.md, taken at its word: in a copy of the tree, its files alone make a fifth operator, which
doctor, the tests of every backend and the benchmarks find."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cuda_emulator
import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "adding_an_operator.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^### `(\S+)`\n.*?^```\w+\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
OP = "squared_steps"
LEFT = ("build", "dist", "runs", "*.so", "__pycache__", "*.egg-info", "docs", "demo")


def reason_against_building() -> str | None:
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    missing = [tool for tool in ("cmake", "ninja", "g++") if shutil.which(tool, path=beside) is None]
    return f"there is no {' and no '.join(missing)} here to build with" if missing else None


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the tree with the page's files, and the CPU kernels built in it for one instruction set."""
    copy = tmp_path_factory.mktemp("fifth")
    for name in ("ppl_fast", "csrc", "kernels", "cmake", "tests", "benchmarks"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(*LEFT))
    for name in ("CMakeLists.txt", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, copy)
    for path, text in FILES.items():
        assert not (copy / path).exists(), f"{path} is there already"
        (copy / path).write_text(text, encoding="utf-8")
    (copy / "ppl_fast" / "kernels").symlink_to(copy / "kernels")  # as it is installed
    (copy / "build").mkdir()
    cuda_emulator.OBJECTS.mkdir(parents=True, exist_ok=True)
    (copy / "build" / "cuda_emulator").symlink_to(cuda_emulator.OBJECTS)  # what the files here leave as it was
    run(copy, sys.executable, "setup.py", "-q", "build_ext", "--inplace", PPL_FAST_SIMD_LEVELS="baseline")
    return copy


def run(tree: Path, *command: str, **environment: str) -> str:
    """Run a command in the copy, on its package, and return what it printed."""
    settings = {"PYTHONPATH": str(tree), "PPL_FAST_CUDA": "off", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=tree, env=os.environ | settings | environment, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def passed(tree: Path, file: str, *options: str, **environment: str) -> int:
    """Run the tests of a file that name the operator, of which none may be skipped, and return how many passed."""
    quiet = ("-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning", "-W", "ignore::DeprecationWarning")
    command = (sys.executable, "-m", "pytest", *quiet, f"tests/{file}", *(options or ("-k", OP)))
    closing = run(tree, *command, **environment).splitlines()[-1]
    assert "skipped" not in closing, closing
    return int(re.search(r"(\d+) passed", closing)[1])


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(reason_against_building() is not None, reason=str(reason_against_building())),
]


def test_doctor_names_it(tree):
    report = run(tree, sys.executable, "-m", "ppl_fast.cli", "doctor")
    lines = report[report.index(f"  {OP}: auto uses cpp") :].splitlines()[1:4]
    assert re.match(r" +cpp +ok, largest relative error", lines[0])
    assert re.match(r" +reference +ok, largest relative error", lines[2])


def test_the_shared_tests_judge_its_reference_and_its_kernel(tree):
    # Cases in two dtypes, half types, strides, gradcheck, repetition, opcheck and second derivative; twice.
    assert passed(tree, "test_operators.py") >= 2 * (6 * 2 + 2 + 1 + 1 + 1 + 1 + 1)


def test_the_emulator_runs_its_cuda_kernel(tree):
    assert passed(tree, "test_cuda_operators.py") >= 6 + 2 + 1 + 1 + 1
    assert passed(tree, "test_cuda_operators.py", "-k", "kernel_info") == 1


def test_the_interpreter_runs_its_triton_kernel(tree):
    pytest.importorskip("triton", reason="triton is not installed")
    assert passed(tree, "test_triton_interpreted.py", TRITON_INTERPRET="1") >= 6 + 2 + 1 + 1 + 1


def test_programs_without_python_get_its_schemas(tree):
    assert passed(tree, "test_cpp_program.py", "-k", "same_operators") == 1


def test_the_benchmarks_measure_it(tree):
    run(tree, sys.executable, "benchmarks/run.py", OP, "--out", "bench.json")
    rows = json.loads((tree / "bench.json").read_text())["rows"]
    assert {row["backend"] for row in rows} == {"formula", "compiled", "reference", "cpp"}
    assert all(row["op"] == OP for row in rows)


def test_few_files_name_an_operator():
    """Of the files that are not named after an operator, nor docs nor results."""
    operators = ("affine_warp", "bilinear_upsample2x", "link_heatmap", "memory_attention")
    named = [
        path.relative_to(ROOT).as_posix()
        for room in ("ppl_fast", "csrc", "kernels", "cmake", "tests", "benchmarks")
        for path in sorted((ROOT / room).rglob("*"))
        if path.suffix in (".py", ".cpp", ".cu", ".h", ".cuh", ".cmake", ".sh")
        and not any(op in path.name for op in operators)
        and "affine_warp" in path.read_text(encoding="utf-8")
    ]
    assert len(set(named) - {Path(__file__).relative_to(ROOT).as_posix()}) <= 8, named


def test_the_page_is_whole():
    assert set(FILES) == {
        *(f"ppl_fast/ops/{OP}.py", f"tests/cases/{OP}.py", f"kernels/{OP}.py", f"benchmarks/bench_{OP}.py"),
        *(f"csrc/{OP}.h", f"csrc/{OP}_arguments.h", f"csrc/{OP}_cpu.cpp", f"csrc/{OP}_cuda.cu"),
    }
    assert OP not in torch.ops.ppl_fast.__dict__
