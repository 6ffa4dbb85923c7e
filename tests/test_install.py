"""Building the package where something is missing: one sentence that says what, and what to do about it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()
NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")
TOOLS = Path(sys.executable).parent


def tools_missing() -> str | None:
    missing = [name for name in ("cmake", "ninja", "g++") if not (TOOLS / name).exists() and not shutil.which(name)]
    return f"there is no {' and no '.join(missing)} here" if missing else None


needs_tools = pytest.mark.skipif(tools_missing() is not None, reason=str(tools_missing()))
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="there is no nvcc here")


# All that setup.py asks of torch; importing it takes seconds.
TORCH = f"""
import sys, types
sys.modules["torch"] = types.SimpleNamespace(__file__={torch.__file__!r}, __version__={torch.__version__!r})
"""


def build_extensions(tmp_path, before="", **environment):
    """Run setup.py as pip does, in a process of its own; `before` is Python code that spoils something first."""
    arguments = ["-q", "build_ext", "--build-temp", str(tmp_path / "temp"), "--build-lib", str(tmp_path / "lib")]
    code = f"{TORCH}\n{before}\nimport runpy; sys.argv = ['setup.py', *{arguments}]; runpy.run_path('setup.py')"
    kept = {k: v for k, v in os.environ.items() if k not in ("CXX", "CUDACXX", "PPL_FAST_CUDA", "TORCH_CUDA_ARCH_LIST")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env={**kept, **environment}, capture_output=True, text=True)


def test_without_torch(tmp_path):
    done = build_extensions(tmp_path, before="sys.modules['torch'] = None")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "ppl_fast builds against the installed torch and found none. Run: pip install 'torch>=2.10' numpy ninja cmake "
        "pybind11 setuptools wheel && pip install --no-build-isolation ."
    )


def test_without_a_compiler_the_reference_serves(tmp_path):
    spoilt = {"before": "import shutil; shutil.which = lambda name, **_: None"}
    done = build_extensions(tmp_path, **spoilt)
    assert done.returncode == 0, done.stderr
    assert "a C++ compiler (g++ or clang++); the PyTorch reference will serve, slowly." in done.stderr
    assert not list((tmp_path).rglob("*.so"))
    done = build_extensions(tmp_path, PPL_FAST_CUDA="on", **spoilt)
    assert done.returncode != 0
    assert "a C++ compiler (g++ or clang++); PPL_FAST_CUDA=on asks for them." in done.stderr


@needs_tools
def test_cuda_asked_for_without_nvcc(tmp_path):
    done = build_extensions(tmp_path, PPL_FAST_CUDA="on", CUDACXX="")  # named, but as nothing: none is looked for
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert "PPL_FAST_CUDA=on: no nvcc was found; install the CUDA toolkit and put nvcc on the PATH, or name it" in said
    assert "the build stopped; the reason is above" in said and "Traceback" not in said


@pytest.mark.slow
@needs_tools
def test_an_nvcc_that_does_not_work(tmp_path):
    broken = tmp_path / "nvcc"
    broken.write_text("#!/bin/sh\necho unsupported GNU version\nexit 1\n")
    broken.chmod(0o755)
    done = build_extensions(tmp_path, PPL_FAST_CUDA="on", CUDACXX=str(broken))
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert f"PPL_FAST_CUDA=on: {broken} does not work: 1 unsupported GNU version; install a CUDA toolkit and" in said


@pytest.mark.slow
@needs_tools
@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"PPL_FAST_CUDA": "yes"}, "PPL_FAST_CUDA must be auto, on or off, got 'yes'"),
        ({"MAX_JOBS": "many"}, "MAX_JOBS must be a number of at least 1, got 'many'"),
        pytest.param(
            {"PPL_FAST_CUDA": "on", "TORCH_CUDA_ARCH_LIST": "Hopper"},
            "TORCH_CUDA_ARCH_LIST must hold entries like 9.0 or 9.0+PTX, got 'Hopper'",
            marks=needs_nvcc,
        ),
        pytest.param(
            {"PPL_FAST_CUDA": "on", "TORCH_CUDA_ARCH_LIST": "8.0;3.0"},
            "does not know the architecture 3.0; it knows",
            marks=needs_nvcc,
        ),
    ],
)
def test_settings_of_no_meaning(tmp_path, variables, sentence):
    done = build_extensions(tmp_path, **variables)
    assert done.returncode != 0
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@needs_tools
def test_a_torch_that_is_too_old(tmp_path):
    old = f"sys.modules['torch'].__file__ = {str(tmp_path / '__init__.py')!r}"
    done = build_extensions(tmp_path, before=old, PPL_FAST_CUDA="off")
    assert done.returncode != 0
    assert "TORCH_DIR must be the folder of torch >= 2.10" in " ".join(done.stderr.split())


def test_every_package_is_installed():
    """setuptools takes the packages that pyproject.toml lists; one left out would be missing from a wheel alone."""
    listed = set(re.findall(r'"(ppl_fast[.\w]*)"', re.search(r"\npackages = \[(.*?)\]", PYPROJECT, re.DOTALL)[1]))
    written = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "ppl_fast").rglob("__init__.py")}
    assert listed == written | {"ppl_fast.kernels"}
