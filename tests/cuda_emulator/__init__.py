"""The CUDA kernels on a CPU: csrc/*_cuda.cu compiled by g++ against a stand-in for cuda_runtime.h, as a backend.

`register()` makes siblings of the operators; `emulation()` lets `backend="emulated"` choose them, with the threads of
each block taking turns in a given order. Objects are kept under build/ by the hash of what went in. There are four
builds: `plain` rounds after every operation, `contracted` fuses multiplications with additions wherever the
compiler may, which is what nvcc does, `watched` finds races in shared memory and accesses that are not aligned, and
`sanitized` accesses out of bounds.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.machinery
import importlib.util
import itertools
import os
import platform
import re
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from ppl_fast import _backend, _library

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
COVERAGE = ("--coverage",) if os.environ.get("PPL_FAST_COVERAGE") == "ON" else ()  # make coverage
OBJECTS = ROOT / "build" / ("coverage/cuda_emulator" if COVERAGE else "cuda_emulator")
TORCH = Path(torch.__file__).parent
ORDERS = {"forwards": 0, "backwards": 1, "shuffled": 2}  # threads of a block run one after the other, or
INTERLEAVED = ORDERS | {"interleaved": 3}  # change places at accesses to shared memory, in the build ``watched``
EMULATOR = tuple(HERE / f"{name}.cpp" for name in ("emulator", "shared_memory", "watch"))
_chosen: ContextVar[str] = ContextVar("the build in use")
# What a build is named after, and what it is compiled with besides.
BUILDS = {
    "plain": ("-O1", "-ffp-contract=off"),
    "contracted": ("-O2", "-mfma", "-ffp-contract=fast"),
    "watched": (
        "-O1", "-ffp-contract=off", "-fsanitize=thread,alignment", "--param=tsan-instrument-func-entry-exit=0", "-g1",
    ),
    "sanitized": (
        "-O1", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined",
        "-fno-omit-frame-pointer", "-g1",
    ),
}  # fmt: skip
FLAGS = (
    "-std=c++17", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra",
    "-isystem", str(HERE), "-I", str(ROOT / "csrc"), "-isystem", str(TORCH / "include"), "-DUSE_CUDA",
    "-DTORCH_TARGET_VERSION=0x020a000000000000", "-DPPL_FAST_EMULATE_CUDA", "-DPPL_FAST_CUDA_KEY=CPU",
    "-include", str(HERE / "cuda_runtime.h"),  # as nvcc does
    *COVERAGE,
)  # fmt: skip


def reported_kernels() -> int:
    """How many kernels csrc/ tells of."""
    return sum(source.read_text().count("PPL_FAST_KERNEL(") for source in (ROOT / "csrc").glob("*.cu"))


def reason_against(kind: str = "plain") -> str | None:
    """Why the emulator cannot be built here, or None where it can."""
    if not shutil.which("g++"):
        return "there is no g++ to compile the CUDA emulator with"
    if kind == "contracted" and platform.machine() in ("x86_64", "AMD64"):
        information = Path("/proc/cpuinfo")
        if information.exists() and " fma " not in information.read_text():
            return "this processor has no fused multiply-add"
    return None


def flags_of(kind: str) -> list[str]:
    """The compiler's flags for a build; operators register under its name."""
    own = [f for f in BUILDS[kind] if f != "-mfma" or platform.machine() in ("x86_64", "AMD64")]
    return [*FLAGS, *own, f'-DPPL_FAST_CUDA_OP(name)=name "_{kind}"']


def _run(command) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{(done.stdout + done.stderr)[:4000]}")


def _once(path: Path, command) -> Path:
    """Run a command that writes a file, unless the file is there; it appears under its name only when complete. Of
    several processes that want it one runs the command."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.exists():
                unfinished = path.with_suffix(f".unfinished{path.suffix}")
                _run([*command, "-o", str(unfinished)])
                unfinished.replace(path)
    return path


@functools.cache
def included(source: Path) -> frozenset[Path]:
    """The files of csrc/ and of the emulator that a file includes, and those that these include; and itself."""
    found = {source}
    for name in re.findall(r'^#include [<"](.+)[>"]', source.read_text(), re.MULTILINE):
        found.update(*(included(folder / name) for folder in (HERE, ROOT / "csrc") if (folder / name).exists()))
    return frozenset(found)


def build(sources: list[Path], kind: str = "plain") -> Path:
    """Compile the sources with the emulator into one shared library and return its path."""
    flags = flags_of(kind)
    # A copy of the tree finds what was compiled here.
    anywhere = [flag.replace(str(HERE), "").replace(str(ROOT / "csrc"), "") for flag in flags]

    def compile_one(source: Path) -> Path:
        texts = [path.read_text() for path in sorted(included(source) | included(HERE / "cuda_runtime.h"))]
        key = hashlib.sha256("".join([torch.__version__, *anywhere, *texts]).encode()).hexdigest()
        target = OBJECTS / f"{source.stem}-{key[:16]}.o"
        own = ["-fno-sanitize=thread"] if source in EMULATOR else []
        return _once(target, ["g++", *flags, *own, "-x", "c++", "-c", str(source)])

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        objects = list(pool.map(compile_one, [*EMULATOR, *sources]))
    name = hashlib.sha256("".join(o.name for o in objects).encode()).hexdigest()[:16]
    # Without the compiler's library for threads, whose place watch.cpp takes.
    libraries = BUILDS[kind] if kind == "sanitized" else ()
    link = ["g++", "-shared", "-fPIC", *libraries, *COVERAGE, *map(str, objects), "-L", str(TORCH / "lib")]
    link += ["-Wl,--as-needed", "-ltorch_cpu", "-Wl,-Bsymbolic", f"-Wl,-rpath,{TORCH / 'lib'}"]
    return _once(OBJECTS / f"lib{name}.so", link)


def sanitizer_environment() -> dict[str, str]:
    """The environment in which a Python process can load a sanitized library."""
    find = ["g++", "-print-file-name=libasan.so"]
    return {
        "LD_PRELOAD": subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps memory until it ends
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


def operator_sources() -> list[Path]:
    return [HERE / "torch_stand_in.cpp", ROOT / "csrc" / "kernel_info.cpp", *sorted((ROOT / "csrc").glob("*_cuda.cu"))]


def python_module(library: Path):
    """Compile csrc/module_cuda.cpp on top of the operators' library and import it: ppl_fast._C_cuda as it would be."""
    pybind11 = pytest.importorskip(
        "pybind11", reason="pybind11, which the Python module is built with, is not installed"
    )
    source = ROOT / "csrc" / "module_cuda.cpp"
    values = {
        "COMPILER": "g++",
        "FLAGS": "",
        "ARCHITECTURES": "",
        "TORCH_TARGET": "",
        "TORCH_VERSION": torch.__version__,
    }
    # Before torch's own: that of torch 2.10 has a pybind11 that refuses the stable ABI.
    flags = ["-isystem", pybind11.get_include(), *flags_of("plain"), "-isystem", sysconfig.get_path("include")]
    flags += [f'-DPPL_FAST_{name}="{value}"' for name, value in values.items()]
    key = hashlib.sha256("".join([str(library), *flags, source.read_text()]).encode()).hexdigest()[:16]
    command = ["g++", *flags, "-shared", "-x", "c++", str(source), "-x", "none", str(library)]
    built = _once(OBJECTS / f"_C_cuda-{key}.so", command)
    spec = importlib.util.spec_from_loader("_C_cuda", importlib.machinery.ExtensionFileLoader("_C_cuda", str(built)))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(library: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library))
    loaded.cuda_emulator_launches.restype = ctypes.c_int64
    loaded.cuda_emulator_noted.restype = ctypes.c_void_p
    return loaded


def launched(library: ctypes.CDLL, call, run: bool = True) -> set[int]:
    """The kernels that a call launches, as addresses; with `run=False` they do nothing."""
    library.cuda_emulator_only_note(not run)
    try:
        call()
        numbers = itertools.count()
        return set(iter(lambda: library.cuda_emulator_noted(ctypes.c_int64(next(numbers))), None))
    finally:
        library.cuda_emulator_only_note(False)


def kinds() -> list:
    """The builds that every case runs in, as parameters of tests; one that cannot run says why."""
    reasons = {kind: reason_against(kind) for kind in ("plain", "contracted")}
    return [pytest.param(k, marks=pytest.mark.skipif(r is not None, reason=str(r))) for k, r in reasons.items()]


@functools.cache
def register(kind: str) -> ctypes.CDLL:
    """Compile the operators' CUDA sources, load them and define the siblings `<op>_<kind>`; returns the library."""
    library = load(build(operator_sources(), kind))
    for operator in _library.OPERATORS.values():
        operator.add_sibling(f"_{kind}", lambda _: None)  # the library has registered the kernels
    return library


def emulated(op: str):
    """Ppl_fast::`op` of the build that `emulation()` has chosen."""
    return getattr(torch.ops.ppl_fast, f"{op}_{_chosen.get()}").default


@contextlib.contextmanager
def order_of_threads(library: ctypes.CDLL, order: str, seed: int = 0):
    """Let the threads of a block, and the blocks, take turns forwards, backwards or shuffled."""
    library.cuda_emulator_set_order(INTERLEAVED[order], seed)
    try:
        yield
    finally:
        library.cuda_emulator_set_order(ORDERS["forwards"], 0)


@contextlib.contextmanager
def few_blocks(library: ctypes.CDLL):
    """Let one block be enough for a GPU, so that it goes through all prototypes of its bank."""
    library.cuda_emulator_set_enough(ctypes.c_int64(1))
    try:
        yield
    finally:
        library.cuda_emulator_set_enough(ctypes.c_int64(512))


@contextlib.contextmanager
def emulation(order: str = "forwards", kind: str = "plain"):
    """Make `emulated` a backend, by one of the builds; yields the library."""
    library = register(kind)
    select = _backend.select

    def select_emulated(op, backend, *rest):
        return emulated(op) if backend == "emulated" else select(op, backend, *rest)

    _backend.select = select_emulated
    chosen = _chosen.set(kind)
    try:
        with order_of_threads(library, order):
            yield library
    finally:
        _chosen.reset(chosen)
        _backend.select = select
