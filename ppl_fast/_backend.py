"""Which implementation runs: ``auto`` takes cpp, then triton, then reference; one asked for by name runs or raises."""

import warnings

import torch

from ppl_fast import _library

BACKENDS = ("auto", "cpp", "triton", "reference")
_selected: dict[tuple, object] = {}  # looked up on every call; what can run does not change within a process
_said = False


def reason_against(op: str, backend: str, device: str) -> str | None:
    """Return why `backend` cannot run `op` on a device type (``cpu``, ``cuda``, ...), or None where it can."""
    if backend == "reference":
        return None
    if backend == "cpp":
        if device not in ("cpu", "cuda"):
            return f"there are no C++ kernels for the device type '{device}'"
        return _library.failure(f"_C_{device}")
    if not hasattr(torch.ops.ppl_fast, f"{op}_triton"):
        return f"ppl_fast has no Triton kernel for {op} yet"
    return None


def select(op: str, backend: str, device: torch.device):
    """Return the op overload that implements `op` under `backend` on `device`.

    Raises ValueError for an unknown name and RuntimeError, with the reason and the remedy, for a backend that was
    asked for and cannot run.
    """
    found = _selected.get((op, backend, device))
    if found is None:
        found = _selected[op, backend, device] = _find(op, backend, device)
    return found


def _find(op: str, backend: str, device: torch.device):
    if backend not in BACKENDS:
        raise ValueError(f"{op}: backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    wanted = ("cpp", "triton") if backend == "auto" else (backend,)
    for candidate in wanted:
        if reason_against(op, candidate, device.type) is None:
            suffix = "" if candidate == "cpp" else f"_{candidate}"
            return getattr(torch.ops.ppl_fast, op + suffix).default
    if backend == "auto":
        _say_once(device)
        return getattr(torch.ops.ppl_fast, f"{op}_reference").default
    raise RuntimeError(
        f"{op}: backend '{backend}' cannot run on '{device.type}': {reason_against(op, backend, device.type)}; "
        "reinstall with a C++ compiler (and nvcc for CUDA) present: pip install --no-build-isolation ppl_fast; "
        "meanwhile backend='auto' or 'reference' work ('ppl-fast doctor' shows what runs where)"
    )


@torch.compiler.disable
def _warn(device_type: str) -> None:
    warnings.warn(
        f"ppl_fast: no compiled kernels for '{device_type}', so the slow PyTorch reference is used; "
        "'ppl-fast doctor' says why and what to do",
        RuntimeWarning,
        stacklevel=4,
    )


def _say_once(device: torch.device) -> None:
    global _said
    if not _said and not torch.compiler.is_compiling():
        _said = True
        _warn(device.type)
