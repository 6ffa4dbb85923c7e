"""Builds the kernels with CMake and Ninja; everything else about the package is in pyproject.toml."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()

try:
    import torch
except ImportError:
    sys.exit(
        "ppl_fast builds against the installed torch and found none. Run: pip install 'torch>=2.10' numpy ninja cmake "
        "pybind11 setuptools wheel && pip install --no-build-isolation ."
    )


def tool(name: str) -> str | None:
    """The path of `name` beside this Python (pip's scripts) or on the PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def jobs() -> str:
    """How many compilers may run at once: $MAX_JOBS, or as many as processors and 2 GB of memory each allow."""
    if wanted := os.environ.get("MAX_JOBS"):
        if not wanted.isdecimal() or int(wanted) < 1:
            sys.exit(f"ppl_fast: MAX_JOBS must be a number of at least 1, got '{wanted}'")
        return wanted
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return str(max(1, min(len(os.sched_getaffinity(0)), memory // 2**31)))


def reason_against() -> str | None:
    """Why the kernels cannot be built here, or None where they can."""
    if sys.platform != "linux":  # the link's options, such as $ORIGIN, are ELF's
        return f"which is done on Linux alone, not on {platform.system()}"
    missing = [name for name in ("cmake", "ninja") if tool(name) is None]
    if not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")):
        missing.append("a C++ compiler (g++ or clang++)")
    try:
        import pybind11  # noqa: F401
    except ImportError:
        missing.append("pybind11")
    return f"for want of {', '.join(missing)}" if missing else None


def run(command: list[str]) -> None:
    """Run a step of the build; what goes wrong is said by the step itself."""
    if subprocess.run(command).returncode:
        sys.exit(f"ppl_fast: the build stopped; the reason is above, from: {' '.join(command[:3])} ...")


class CMakeBuild(build_ext):
    """Runs CMake; without Linux, a C++ compiler or the build tools, the package installs with its reference only."""

    def run(self):
        if reason := reason_against():
            message = f"ppl_fast: kernels not built, {reason}"
            if os.environ.get("PPL_FAST_CUDA", "auto").lower() == "on":
                sys.exit(f"{message}; PPL_FAST_CUDA=on asks for them.")
            print(f"{message}; the PyTorch reference will serve, slowly.", file=sys.stderr)
            return
        import pybind11

        # What is built in place is built again as the sources change: what has not changed need not be compiled again.
        # Each Python has its own folder, since CMake keeps what it has found of one.
        in_place = self.editable_mode or self.inplace
        editable = ROOT / "build" / "editable" / str(sys.implementation.cache_tag)
        build = editable if in_place else Path(self.build_temp).resolve()
        target = Path(self.get_ext_fullpath("ppl_fast._C_cpu")).resolve().parent
        configure = [
            tool("cmake"), "-S", str(ROOT), "-B", str(build), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-DCMAKE_INSTALL_PREFIX={target}",
            f"-DTORCH_DIR={Path(torch.__file__).parent}",
            f"-DTORCH_VERSION={torch.__version__}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPPL_FAST_CUDA={os.environ.get('PPL_FAST_CUDA', 'auto').lower()}",
            f"-DPPL_FAST_SIMD_LEVELS={os.environ.get('PPL_FAST_SIMD_LEVELS', '')}",
            f"-DPPL_FAST_COVERAGE={os.environ.get('PPL_FAST_COVERAGE', 'OFF')}",
        ]  # fmt: skip
        target.mkdir(parents=True, exist_ok=True)
        parallel = jobs()
        run(configure)
        run([tool("cmake"), "--build", str(build), "--parallel", parallel])
        for stale in [*target.glob("_C_*.so"), *target.glob("libppl_fast_*.so")]:  # of a build with other options
            stale.unlink()
        run([tool("cmake"), "--install", str(build)])

    def get_outputs(self):
        return []

    def copy_extensions_to_source(self):
        """An editable build installs into the source tree already: build_lib is not used by `run`."""


setup(ext_modules=[Extension("ppl_fast._C_cpu", sources=[])], cmdclass={"build_ext": CMakeBuild})
