"""`ppl-fast doctor`: what is installed, which backend runs where and why, and whether each one computes correctly."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import torch

import ppl_fast
from ppl_fast import _backend, _library

OPERATORS = ("link_heatmap", "memory_attention", "prototype_sums", "affine_warp")
EXTRAS = ("numpy", "triton", "accelerate", "jsonargparse", "safetensors", "pillow", "matplotlib", "scipy", "av")
TOLERANCE = 1e-4  # of an array's largest value, float32 against float64: see tests/cases.py


def main() -> int:
    """Print the report; return 1 where an available backend disagrees with the float64 reference, else 0."""
    _print_versions()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = ["cpu", *(f"cuda:{i}" for i in range(gpus))]
    failed = False
    for device in devices:
        print(f"\nBackends on {_describe(device)}")
        for op in OPERATORS:
            failed |= _print_operator(op, device)
    if not gpus:
        print(f"\nNo GPU is used: {_no_gpu_reason()}")
    print("\nA backend disagrees with the reference; do not use it." if failed else "\nAll available backends agree.")
    return int(failed)


def _print_versions() -> None:
    print(f"ppl_fast {ppl_fast.__version__}, Python {platform.python_version()}, torch {torch.__version__}")
    print(", ".join(f"{name} {_version(name)}" for name in EXTRAS))
    for name in ("_C_cpu", "_C_cuda"):
        library = _library.loaded(name)
        if library is None:
            print(f"{name}: {_library.failure(name)}")
        else:
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in library.build_info().items()))
    if kernels := _library.loaded("_C_cpu"):
        print(f"CPU instruction set: {kernels.current_isa()} (of {', '.join(kernels.available_isas())})")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _describe(device: str) -> str:
    if device != "cpu":
        major, minor = torch.cuda.get_device_capability(device)
        name = torch.cuda.get_device_name(device)
        return f"{device} ({name}, compute capability {major}.{minor}, CUDA {torch.version.cuda})"
    return f"{device} ({torch.get_num_threads()} threads of {os.cpu_count()} processors)"


def _no_gpu_reason() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return "torch finds no usable CUDA device"


def _print_operator(op: str, device: str) -> bool:
    """Print one operator's backends on one device type; return whether any of them disagrees with the reference."""
    chosen = _backend.select(op, "auto", torch.device(device)).name()
    chosen = chosen.removeprefix(f"ppl_fast::{op}").strip("_") or "cpp"
    print(f"  {op}: auto uses {chosen}")
    failed = False
    for backend in ("cpp", "triton", "reference"):
        reason = _backend.reason_against(op, backend, device)
        if reason is not None:
            print(f"    {backend:<9}  not available: {reason}")
            continue
        error = _self_test(op, backend, device)
        wrong = not error <= TOLERANCE
        failed |= wrong
        print(f"    {backend:<9}  {'WRONG' if wrong else 'ok'}, largest relative error {error:.1e}")
    return failed


def _example(op: str) -> tuple[list[torch.Tensor], tuple]:
    """Return float64 tensors that want a gradient, and the other arguments, of a small call of `op`."""
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64)

    if op == "link_heatmap":
        return [normal(3, 7, 2).tanh(), normal(21).exp() / 20], ((37, 50), 1e-2)
    if op == "memory_attention":
        return [normal(5, 3, 70), normal(3, 9, 70)], (100.0,)
    if op == "affine_warp":
        return [normal(6, 2), normal(4, 6, 2, 3)], ()
    indices = torch.randint(9, (5, 3), generator=g)
    return [normal(5, 3, 70)], (indices, 9)


def _run(op: str, backend: str, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    tensors, rest = _example(op)
    leaves = [t.to(device, dtype).requires_grad_(op != "prototype_sums") for t in tensors]
    rest = [r.to(device) if isinstance(r, torch.Tensor) else r for r in rest]
    outputs = getattr(ppl_fast, op)(*leaves, *rest, backend=backend)
    outputs = [o for o in (outputs if isinstance(outputs, tuple) else (outputs,)) if o.is_floating_point()]
    if op == "prototype_sums":
        return outputs
    upstream = [torch.linspace(-1, 1, o.numel(), device=device).reshape(o.shape).to(dtype) for o in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, upstream)]


def _self_test(op: str, backend: str, device: str) -> float:
    """Return the largest error of outputs and gradients relative to the largest value of each; NaN counts as wrong."""
    actual = _run(op, backend, device, torch.float32)
    expected = _run(op, "reference", "cpu", torch.float64)
    errors = [
        (a.detach().double().cpu() - e.detach()).abs().max() / e.detach().abs().max()
        for a, e in zip(actual, expected, strict=True)
    ]
    return torch.stack(errors).max().item()
