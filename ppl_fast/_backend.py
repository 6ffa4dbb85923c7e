"""Which implementation runs: ``auto`` takes cpp, then triton, then reference; one asked for by name runs or raises.

On a GPU cpp comes before triton since it needs no compiling at run time and is predicted to take less, launches
included: 29 against 42 us for link_heatmap forward and backward at the published size on an H200, and as long as triton
for the others (the arithmetic is at the top of the files in csrc/ and kernels/). No GPU has measured it yet.
"""

import importlib.util
import os
import warnings

import torch

from ppl_fast import _library

BACKENDS = ("auto", "cpp", "triton", "reference")
_selected: dict[tuple, object] = {}  # looked up on every call; what can run does not change within a process
_said = False


def reason_against(op: str, backend: str, device: str) -> str | None:
    """Return why `backend` cannot run `op` on a device (``cpu``, ``cuda``, ``cuda:1``, ...), or None where it can."""
    if backend == "reference":
        return None
    kind = device.partition(":")[0]
    return _against_cpp(kind, device) if backend == "cpp" else _against_triton(kind, device)


def _against_cpp(kind: str, device: str) -> str | None:
    if kind not in ("cpu", "cuda"):
        return f"there are no C++ kernels for the device type '{kind}'"
    kernels = _library.loaded(f"_C_{kind}")
    if kernels is None or kind == "cpu":
        return _library.failure(f"_C_{kind}")
    capability, built = torch.cuda.get_device_capability(device), kernels.build_info()["architectures"]
    if not any(_serves(architecture, capability) for architecture in built.split()):
        has = ".".join(map(str, capability))
        return f"ppl_fast._C_cuda was built for {built}, not for this GPU's {has} (TORCH_CUDA_ARCH_LIST={has} adds it)"
    try:
        with torch.cuda.device(device):
            kernels.kernel_info()
    except RuntimeError as error:  # such as a driver older than the CUDA that it was built with
        return f"ppl_fast._C_cuda does not run on this GPU ({error})"
    return None


def _serves(architecture: str, capability: tuple[int, int]) -> bool:
    """Return whether code for ``90-real``, or PTX as ``100-virtual``, runs on a GPU; ``90a`` runs on 9.0 alone."""
    number, _, kind = architecture.partition("-")
    compiled = divmod(int(number.rstrip("af")), 10)
    if number.endswith("a"):
        return compiled == capability
    return compiled <= capability and (compiled[0] == capability[0] or (kind == "virtual" and number.isdecimal()))


def _against_triton(kind: str, device: str) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install triton)"
    if kind == "cpu":
        if os.environ.get("TRITON_INTERPRET") == "1":
            return None
        return "Triton compiles for GPUs alone (TRITON_INTERPRET=1 interprets its kernels on the CPU, to debug them)"
    if kind != "cuda":
        return f"there are no Triton kernels for the device type '{kind}'"
    major, minor = torch.cuda.get_device_capability(device)
    if major < 7:
        return f"Triton needs a GPU of compute capability 7.0 or later, this one has {major}.{minor}"
    return None


# What torch.compiler.assume_constant_result sets; calling it would import torch._dynamo, triton and all, with ppl_fast.
_against_cpp._dynamo_marked_constant = _against_triton._dynamo_marked_constant = True


def select(op: str, backend: str, device: torch.device, dtype: torch.dtype = torch.float32):
    """Return the op overload that implements `op` under `backend` on `device`.

    Raises ValueError for an unknown name, TypeError for a `dtype` that the backend asked for does not take and
    RuntimeError, with the reason and the remedy, for one that cannot run.
    """
    found = _selected.get((op, backend, device, dtype))
    if found is None:
        found = _selected[op, backend, device, dtype] = _find(op, backend, device, dtype)
    return found


def _find(op: str, backend: str, device: torch.device, dtype: torch.dtype):
    if backend not in BACKENDS:
        raise ValueError(f"{op}: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "triton" and dtype == torch.float64:
        raise TypeError(
            f"{op}: backend 'triton' takes float16, bfloat16 and float32, got float64, which 'cpp' and 'reference' take"
        )
    best = ("cpp", "triton") if dtype != torch.float64 else ("cpp",)
    wanted = best if backend == "auto" else (backend,)
    for candidate in wanted:
        if reason_against(op, candidate, str(device)) is None:
            suffix = "" if candidate == "cpp" else f"_{candidate}"
            return getattr(torch.ops.ppl_fast, op + suffix).default
    if backend == "auto":
        _say_once(device)
        return getattr(torch.ops.ppl_fast, f"{op}_reference").default
    remedy = "reinstall with a C++ compiler (and nvcc for CUDA) present: pip install --no-build-isolation ppl_fast; "
    raise RuntimeError(
        f"{op}: backend '{backend}' cannot run on '{device.type}': {reason_against(op, backend, str(device))}; "
        f"{remedy if backend == 'cpp' else ''}meanwhile backend='auto' or 'reference' work "
        "('ppl-fast doctor' shows what runs where)"
    )


def _warn(device_type: str) -> None:
    warnings.warn(
        f"ppl_fast: no compiled kernels for '{device_type}', so the slow PyTorch reference is used; "
        "'ppl-fast doctor' says why and what to do",
        RuntimeWarning,
        stacklevel=6,  # of the call of the operator
    )


def _say_once(device: torch.device) -> None:
    global _said
    if not _said and not torch.compiler.is_compiling():
        _said = True
        _warn(device.type)
