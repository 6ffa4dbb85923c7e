"""Which implementation runs: `auto` takes cpp, then triton, then reference; one asked for by name runs or raises.

On a GPU cpp comes before triton since it needs no compiling at run time and takes less: on an H200 37 against 66 us for
link_heatmap forward and backward at the published size, 17 against 48 for memory_attention (docs/gpu.md). There `auto`
puts each kernel to a test before it trusts it, unless a result file has all tests passed on a GPU of its kind.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Literal, get_args

import torch

from ppl_fast import _devices, _library, _transforms

Backend = Literal["auto", "cpp", "triton", "reference"]
BACKENDS: tuple[str, ...] = get_args(Backend)
HALF_TO_SINGLE = "float16, bfloat16 and float32"  # what Triton's kernels take
# (backend, "major.minor" of a GPU) that a result file in benchmarks/results covers: correct there on all cases. Never
# Triton, which compiles its kernels where they run.
PROVEN: frozenset[tuple[str, str]] = frozenset({("cpp", "9.0")})

_asked: ContextVar[str] = ContextVar("ppl_fast_backend", default="auto")
_selected: dict[tuple[str, str, torch.device, torch.dtype], torch._ops.OpOverload] = {}  # looked up on every call
_tested: dict[tuple[str, str, str], str | None] = {}  # (op, backend, device) -> what its self-test found wrong
_warned: set[tuple[str, bool]] = set()


class _InForce(ModuleType):
    """torch.compile cannot trace a ContextVar, but it reads a module's attribute anew before each call of a graph."""

    @property
    def backend(self) -> str:
        return _asked.get()


_in_force = _InForce("ppl_fast._backend._in_force")


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Let `backend` stand wherever an operator is called with `backend="auto"`, in models too.

    Holds for the code inside of the `with` in this thread (or asyncio task), and for gradients of what was computed
    there. A compiled function is compiled anew for another backend.

    Args:
        backend: `cpp`, `triton` or `reference`, which run or raise; `auto` undoes an outer `use_backend`.

    Raises:
        ValueError: an unknown name. What a backend cannot run, the operator called says.
    """
    _check_name("use_backend", backend)
    before = _asked.set(backend)
    try:
        yield
    finally:
        _asked.reset(before)


def _check_name(caller: str, backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"{caller}: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")


def reason_against(op: str, backend: str, device: str) -> str | None:
    """Why `backend` cannot run `op` on a device (`cpu`, `cuda`, `cuda:1`, ...), or None where it can."""
    if backend == "reference":
        return None
    kind = device.partition(":")[0]
    return _against_cpp(op, kind, device) if backend == "cpp" else _against_triton(op, kind, device)


def _against_cpp(op: str, kind: str, device: str) -> str | None:
    if kind not in ("cpu", "cuda"):
        return f"there are no C++ kernels for the device type '{kind}'"
    kernels = _library.loaded(f"_C_{kind}")
    if kernels is None:
        return f"{_library.failure(f'_C_{kind}')}; {_rebuild(kind)}"
    for name in _library.OPERATORS[op].ops:
        if not _library.has_kernel(name, kind.upper()):
            return f"ppl_fast._C_{kind} has no kernel of {name}"
    return _against_gpu(kernels, device) if kind == "cuda" else None


def _against_gpu(kernels: ModuleType, device: str) -> str | None:
    capability, built = torch.cuda.get_device_capability(device), kernels.build_info()["architectures"]
    if not any(_serves(architecture, capability) for architecture in built.split()):
        has = ".".join(map(str, capability))
        return f"ppl_fast._C_cuda was built for {built}, not for this GPU's {has}; {_rebuild('cuda', has)}"
    try:
        with torch.cuda.device(device):
            kernels.kernel_info()
    except RuntimeError as error:  # such as a driver older than the CUDA that it was built with
        return f"ppl_fast._C_cuda does not run on this GPU ({error})"
    return None


def _serves(architecture: str, capability: tuple[int, int]) -> bool:
    """Whether code for `90-real`, or PTX as `100-virtual`, runs on a GPU; `90a` runs on 9.0 alone."""
    number, _, kind = architecture.partition("-")
    compiled = divmod(int(number.rstrip("af")), 10)
    if number.endswith("a"):
        return compiled == capability
    return compiled <= capability and (compiled[0] == capability[0] or (kind == "virtual" and number.isdecimal()))


def _rebuild(kind: str, capability: str = "") -> str:
    """What adds the kernels to the package as it is installed here."""
    if kind == "cuda" and torch.version.cuda is None:
        return "a torch for CUDA has to be installed first"
    tools = "a C++ compiler" if kind == "cpu" else "nvcc and a C++ compiler"
    wanted = f"TORCH_CUDA_ARCH_LIST={capability} " * bool(capability) + "PPL_FAST_CUDA=on " * (kind == "cuda")
    command = f"pip install --no-build-isolation --no-deps --force-reinstall {_source()}"
    return f"to build it, with {tools} at hand: {wanted}{command}"


def _source() -> str:
    """Where this package was installed from, as its metadata has it, for pip to do so again."""
    try:
        text = importlib.metadata.distribution("ppl_fast").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        text = None
    origin = json.loads(text) if text else {}
    place = str(origin.get("url", "")).removeprefix("file://") or "the sources of ppl_fast"
    return "-e " * bool(origin.get("dir_info", {}).get("editable")) + place


def _against_triton(op: str, kind: str, device: str) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if kind == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "Triton compiles for GPUs alone (TRITON_INTERPRET=1 interprets its kernels on the CPU, to debug them)"
    if kind not in ("cpu", "cuda"):
        return f"there are no Triton kernels for the device type '{kind}'"
    if kind == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        if major < 7:
            return f"Triton needs a GPU of compute capability 7.0 or later, this one has {major}.{minor}"
    from ppl_fast.kernels import implementation

    for name in _library.OPERATORS[op].ops:
        if implementation(name) is None:
            return f"ppl_fast.kernels has no kernel of {name}"
    return None


def failed_test(op: str, backend: str, device: str) -> str | None:
    """What the self-test found wrong with a backend on a GPU, None where nothing; it runs once a process.

    Not run are kernels that a result file covers, for the CPU, and with PPL_FAST_SELF_TEST=off. While a CUDA graph is
    captured, which a test would break, kernels are taken on trust.
    """
    kind, key = device.partition(":")[0], (op, backend, device)
    if kind == "cpu" or backend == "reference" or os.environ.get("PPL_FAST_SELF_TEST", "on").lower() == "off":
        return None
    if kind == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        if (backend, capability) in PROVEN or (key not in _tested and _devices.capturing(kind)):
            return None
    if key not in _tested:
        _tested[key] = _test(op, backend, device)
    return _tested[key]


def _test(op: str, backend: str, device: str) -> str | None:
    from ppl_fast import _selftest

    try:
        error = _selftest.largest_error(op, backend, device)
    except Exception as problem:  # whatever a compiler or driver says, another backend can still serve
        return f"its self-test on {device} ended in {type(problem).__name__}: {str(problem).strip().splitlines()[0]}"
    if error <= _selftest.TOLERANCE:
        return None
    return f"its self-test on {device} found a relative error of {error:.1e}"


def _usable(op: str, backend: str, device: str) -> bool:
    return reason_against(op, backend, device) is None and failed_test(op, backend, device) is None


# What torch.compiler.assume_constant_result sets; calling it would import torch._dynamo, triton and all, with ppl_fast.
for _function in (reason_against, failed_test, _usable):
    _function._dynamo_marked_constant = True  # type: ignore[union-attr]


def select(op: str, backend: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Callable[..., Any]:
    """The op overload that implements `op` under `backend` on `device`.

    Inside of torch.func's transforms it is a function that they can transform (see `_transforms`).

    Raises:
        ValueError: an unknown name.
        TypeError: a `dtype` that the backend asked for does not take.
        RuntimeError: a backend asked for that cannot run, with the reason and the remedy.
    """
    if backend == "auto":
        backend = _in_force.backend
    transform = _transforms.in_force()
    if transform == "formula":
        return _formula(op, backend)
    compiling = torch.compiler.is_compiling()  # a graph that saw the table without an entry would be compiled twice
    found = None if compiling else _selected.get((op, backend, device, dtype))
    if found is None:
        found = _find(op, backend, device, dtype)
        if not (compiling or _devices.capturing(device.type)):  # what was taken on trust is tested at the next call
            _selected[op, backend, device, dtype] = found
    if transform == "kernels":
        return _transforms.through_kernels(_library.OPERATORS[op], found.name().removeprefix(f"ppl_fast::{op}"))
    return found


def _formula(op: str, backend: str) -> Callable[..., Any]:
    _check_name(op, backend)
    if backend in ("cpp", "triton"):
        raise RuntimeError(
            f"{op}: backend '{backend}' has no forward-mode derivatives and no gradients of gradients; backend='auto' "
            "and 'reference' compute them from torch's own operations"
        )
    return _library.OPERATORS[op].formula


def _find(op: str, backend: str, device: torch.device, dtype: torch.dtype) -> torch._ops.OpOverload:
    _check_name(op, backend)
    if backend == "auto":
        for candidate in ("cpp", "triton") if dtype != torch.float64 else ("cpp",):
            if _usable(op, candidate, str(device)):
                return _overload(op, candidate)
        _say_once(op, device, dtype)
        return _overload(op, "reference")
    if backend == "triton" and dtype == torch.float64:
        raise TypeError(f"{op}: backend 'triton' takes {HALF_TO_SINGLE}, got float64, which 'cpp' and 'reference' take")
    reason = reason_against(op, backend, str(device))
    if reason is not None:
        raise RuntimeError(
            f"{op}: backend '{backend}' cannot run on '{device.type}': {reason}; meanwhile backend='auto' or "
            "'reference' work ('ppl-fast doctor' shows what runs where)"
        )
    return _overload(op, backend)


def _overload(op: str, backend: str) -> torch._ops.OpOverload:
    return _library.OPERATORS[op].overload("" if backend == "cpp" else f"_{backend}")


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=6)  # of the call of the operator


def _say_once(op: str, device: torch.device, dtype: torch.dtype) -> None:
    """Warn of the reference, once a device; where another dtype would do better, of that."""
    if torch.compiler.is_compiling():
        return
    narrower = dtype == torch.float64 and _usable(op, "triton", str(device))
    if (str(device), narrower) in _warned:
        return
    _warned.add((str(device), narrower))
    what = f"for float64 (Triton's take {HALF_TO_SINGLE}) " if narrower else ""
    _warn(
        f"ppl_fast: no compiled kernels {what}on '{device}', so the slow PyTorch reference is used; "
        "'ppl-fast doctor' says why and what to do"
    )
