"""Options of the build: instruction sets, CUDA architectures, platforms; each says what it leaves out."""

import os
import subprocess
import sys

import pytest
import torch
from test_install import ROOT, TOOLS, build_extensions, needs_nvcc, needs_tools

# os lacks sched_getaffinity on both and sysconf on Windows: an AttributeError to whoever asks for them.
PLATFORMS = {
    "Darwin": "sys.platform = 'darwin'; del os.sched_getaffinity",
    "Windows": "sys.platform = 'win32'; del os.sched_getaffinity, os.sysconf",
}


@pytest.mark.parametrize("system", PLATFORMS)
def test_other_systems_install_the_reference(tmp_path, system):
    """Simulated: no such system has run this."""
    imports = "import os, platform, setuptools.command.build_ext"  # before, since setuptools looks at the platform too
    pretence = {"before": f"{imports}; {PLATFORMS[system]}; platform.system = lambda: {system!r}"}
    done = build_extensions(tmp_path, **pretence)
    assert done.returncode == 0, done.stderr
    sentence = f"ppl_fast: kernels not built, which is done on Linux alone, not on {system}; "
    assert sentence + "the PyTorch reference will serve, slowly." in done.stderr
    assert not list(tmp_path.rglob("*.so"))
    done = build_extensions(tmp_path, PPL_FAST_CUDA="on", **pretence)
    assert done.returncode != 0
    assert sentence + "PPL_FAST_CUDA=on asks for them." in done.stderr


def configure(tmp_path, *options, **environment):
    """Run CMake's first step, which compiles no kernel."""
    import pybind11

    cmake = TOOLS / "cmake"
    command = [str(cmake) if cmake.exists() else "cmake", "-S", str(ROOT), "-B", str(tmp_path), "-G", "Ninja"]
    command += [f"-DTORCH_DIR={os.path.dirname(torch.__file__)}", f"-DPython_EXECUTABLE={sys.executable}"]
    command += [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", *options]
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True)
    return done.returncode, " ".join((done.stdout + done.stderr).split()), tmp_path / "build.ninja"


@pytest.mark.slow
@needs_tools
@pytest.mark.parametrize(("levels", "others"), [("baseline", ("avx2", "avx512")), ("avx512, baseline", ("avx2",))])
def test_some_instruction_sets_alone(tmp_path, levels, others):
    pytest.importorskip("pybind11", reason="pybind11, which the Python module is built with, is not installed")
    status, said, ninja = configure(tmp_path, "-DPPL_FAST_CUDA=off", f"-DPPL_FAST_SIMD_LEVELS={levels}")
    if os.uname().machine != "x86_64" and "avx512" in levels:
        assert status != 0 and "PPL_FAST_SIMD_LEVELS must hold some of baseline, got" in said
        return
    assert status == 0, said
    rules = ninja.read_text()
    assert "simd_baseline.dir/csrc/link_heatmap_simd.cpp.o" in rules and "-DPPL_FAST_SIMD_BASELINE" in rules
    for level in others:
        assert f"simd_{level}.dir" not in rules and f"-DPPL_FAST_SIMD_{level.upper()}" not in rules


@pytest.mark.slow
@needs_tools
def test_an_instruction_set_of_no_meaning(tmp_path):
    done = build_extensions(tmp_path, PPL_FAST_CUDA="off", PPL_FAST_SIMD_LEVELS="baseline,sse9")
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert "PPL_FAST_SIMD_LEVELS must hold some of baseline" in said and "got 'baseline,sse9'" in said


@pytest.mark.slow
@needs_tools
@needs_nvcc
@pytest.mark.parametrize(
    ("wanted", "sentences"),
    [
        (
            "8.0;3.0;Hopper",
            (
                "3.0 is left out: TORCH_CUDA_ARCH_LIST:",
                "does not know the architecture 3.0; it knows",
                "Hopper is left out: TORCH_CUDA_ARCH_LIST must hold entries like 9.0 or 9.0+PTX, got 'Hopper'",
                "CUDA kernels for 80-real",
            ),
        ),
        (
            "Hopper",
            ("Hopper is left out", "knows none of the architectures that are asked for", "such as 9.0"),
        ),
        ("", ("CUDA kernels for 80-real 86-real 89-real 90-real",)),
    ],
)
def test_architectures_that_nvcc_does_not_know_are_left_out(tmp_path, wanted, sentences):
    """Under `auto` the build goes on with the others, or without CUDA; under `on` it stops (test_install.py)."""
    pytest.importorskip("pybind11", reason="pybind11, which the Python module is built with, is not installed")
    status, said, ninja = configure(tmp_path, "-DPPL_FAST_CUDA=auto", TORCH_CUDA_ARCH_LIST=wanted)
    assert status == 0, said
    for sentence in sentences:
        assert sentence in said
    assert ("ppl_fast_cuda.dir" in ninja.read_text()) == (wanted != "Hopper")
