"""The CPU kernels in a program of their own, without torch and Python: for another processor, or with sanitizers.

CMakeLists.txt builds the kernels' library against a stand-in for libtorch_cpu (torch's headers serve any processor).
`serving()` makes the running program a backend, `alone`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from ppl_fast import _backend, _library

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TORCH = Path(torch.__file__).parent
TYPES = {torch.int16: 2, torch.int32: 3, torch.int64: 4, torch.float32: 6, torch.float64: 7}  # torch's numbers
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
KERNELS = _library.loaded("_C_cpu")
BEST = KERNELS.available_isas()[0] if KERNELS else "baseline"  # the widest vectors, which would reach farthest


@dataclass(frozen=True)
class Build:
    """One way to build the program.

    Attributes:
        compiler, flags, isa: with which, and for which instruction set.
        options: more of CMake's.
        before: what runs the program, itself aside.
        packages: of Debian, which have what it takes.
    """

    compiler: str
    flags: str
    isa: str
    options: tuple[str, ...]
    before: tuple[str, ...]
    packages: str


BUILDS = {
    "aarch64": Build(
        "aarch64-linux-gnu-g++",
        "-O3",
        "baseline",
        ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
        ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
        "g++-aarch64-linux-gnu and qemu-user",
    ),
    "sanitized": Build("g++", f"-O1 {SANITIZERS}", BEST, (), (), "g++"),
}


def tool(name: str) -> str | None:
    """The path of a tool beside this Python or on the PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def reason_against(kind: str) -> str | None:
    """Why the program cannot be built and run here, or None where it can."""
    build = BUILDS[kind]
    missing = [name for name in ("cmake", "ninja", build.compiler, *build.before[:1]) if tool(name) is None]
    if missing:
        return f"there is no {' and no '.join(missing)} here; Debian has {build.packages}"
    return None if (TORCH / "include/torch/csrc/stable").exists() else "this torch has no headers"


def _command(command: list, **options) -> subprocess.CompletedProcess:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{(done.stdout + done.stderr)[-4000:]}"
    return done


@functools.cache
def build(kind: str) -> Path:
    """Build what has changed, by CMakeLists.txt, and return the folder with `program` in it."""
    chosen, folder = BUILDS[kind], ROOT / "build" / "cpu_alone" / kind
    (folder / "torch" / "lib").mkdir(parents=True, exist_ok=True)
    if not (folder / "torch" / "include").exists():
        (folder / "torch" / "include").symlink_to(TORCH / "include")
    headers = ["-isystem", TORCH / "include", "-I", ROOT / "csrc", "-I", HERE]
    compile_one = [chosen.compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", *headers]
    library = folder / "torch" / "lib" / "libtorch_cpu.so"
    _command([*compile_one, "-shared", "-fPIC", HERE / "torch_stand_in.cpp", "-o", library])
    configure = [tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"]
    configure += [f"-DCMAKE_CXX_COMPILER={chosen.compiler}", "-DCMAKE_BUILD_TYPE=Alone", *chosen.options]
    configure += [f"-DCMAKE_CXX_FLAGS_ALONE={chosen.flags}", f"-DTORCH_DIR={folder / 'torch'}", "-DPPL_FAST_CUDA=off"]
    configure += ["-DPPL_FAST_PYTHON=OFF", f"-DPPL_FAST_SIMD_LEVELS={chosen.isa}"]
    _command(configure)
    _command([tool("cmake"), "--build", folder, "--target", "ppl_fast_cpu", "--parallel", str(os.cpu_count() or 1)])
    link = [
        "-L",
        folder,
        "-lppl_fast_cpu",
        "-L",
        library.parent,
        "-ltorch_cpu",
        f"-Wl,-rpath,{folder}:{library.parent}",
    ]
    sanitizers = SANITIZERS.split() if kind == "sanitized" else []
    _command([*compile_one, *sanitizers, HERE / "program.cpp", *link, "-o", folder / "program"])
    return folder


def _argument(expected, value) -> bytes:
    if isinstance(value, torch.Tensor):
        array = value.detach().contiguous().numpy()
        sizes = struct.pack(f"<{3 + array.ndim}q", ord("t"), TYPES[value.dtype], array.ndim, *array.shape)
        return sizes + array.tobytes()
    kind = "o" if isinstance(expected.type, torch.OptionalType) and value is not None else "i"
    return struct.pack("<qd" if isinstance(value, float) else "<qq", ord(kind), value or 0)


class Program:
    """The program while it runs: a function that hands it a call and returns its results.

    Args:
        kind: the build.
    """

    def __init__(self, kind: str):
        environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}
        command = [*BUILDS[kind].before, str(build(kind) / "program"), BUILDS[kind].isa]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
        self.isa = self.process.stdout.readline().decode().strip()

    def __call__(self, op: str, *arguments) -> torch.Tensor | tuple[torch.Tensor, ...]:
        schema = getattr(torch.ops.ppl_fast, op).default._schema
        name, returns = op.encode(), len(schema.returns)
        said = struct.pack("<q", len(name)) + name + struct.pack("<qq", len(arguments), returns)
        said += b"".join(_argument(*each) for each in zip(schema.arguments, arguments, strict=True))
        self.process.stdin.write(said)
        self.process.stdin.flush()
        returned = tuple(self._tensor() for _ in range(returns))
        return returned if returns > 1 else returned[0]

    def _read(self, size: int) -> bytes:
        data = self.process.stdout.read(size)
        if len(data) < size:
            raise RuntimeError(self.process.communicate()[1].decode()[-4000:])
        return data

    def _tensor(self) -> torch.Tensor:
        number, dimensions = struct.unpack("<qq", self._read(16))
        sizes = struct.unpack(f"<{dimensions}q", self._read(8 * dimensions))
        dtype = next(dtype for dtype, each in TYPES.items() if each == number)
        data = bytearray(self._read(math.prod(sizes) * dtype.itemsize))
        return torch.frombuffer(data, dtype=dtype).reshape(sizes) if data else torch.empty(sizes, dtype=dtype)

    def close(self) -> None:
        """Let the program end, which must go well."""
        complaints = self.process.communicate()[1].decode()
        assert self.process.returncode == 0, complaints[-4000:]


_running: list[Program] = []  # the one that serves, and those around it


@functools.cache
def _register() -> None:
    for operator in _library.OPERATORS.values():
        operator.add_sibling("_alone", lambda op: lambda *arguments: _running[-1](op, *arguments))


@contextlib.contextmanager
def serving(kind: str):
    """Make `alone` a backend, by a build's program; yields the program."""
    _register()
    program, select = Program(kind), _backend.select

    def select_alone(op, backend, *rest):
        return getattr(torch.ops.ppl_fast, f"{op}_alone").default if backend == "alone" else select(op, backend, *rest)

    _running.append(program)
    _backend.select = select_alone
    try:
        yield program
    finally:
        _backend.select = select
        _running.pop()
        program.close()
