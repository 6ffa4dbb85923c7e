"""`ppl-fast doctor`: what is installed, which backend runs where and why, and whether each one computes correctly."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from typing import cast

import torch

import ppl_fast
import ppl_fast.ops  # registers the operators
from ppl_fast import _backend, _devices, _library, _selftest, _waiting
from ppl_fast._library import OPERATORS


def main() -> int:
    """Print the report; return 1 where an available backend disagrees with the float64 reference, else 0."""
    _print_versions()
    failed = False
    for device in _devices.available():
        print(f"\nBackends on {_devices.describe(device)}")
        for op in OPERATORS:
            failed |= _print_operator(op, device)
    if _devices.accelerator() is None:
        print(f"\nNo GPU is used: {_no_gpu_reason()}")
    print("\nA backend disagrees with the reference; do not use it." if failed else "\nAll available backends agree.")
    return int(failed)


def _print_versions() -> None:
    print(f"ppl_fast {ppl_fast.__version__}, Python {platform.python_version()}, torch {torch.__version__}")
    for extra, packages in _packages().items():
        print(f"{extra}: " + ", ".join(f"{name} {_version(name)}" for name in packages))
    for name in ("_C_cpu", "_C_cuda"):
        library = _library.loaded(name)
        if library is None:
            print(f"{name}: {_library.failure(name)}")
        else:
            print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in library.build_info().items()))
    if kernels := _library.loaded("_C_cpu"):
        print(f"CPU instruction set: {kernels.current_isa()} (of {', '.join(kernels.available_isas())})")
    print(f"CPU threads: {torch.get_num_threads()}; {_waiting.described()}")


def _packages() -> dict[str, list[str]]:
    """What the installation's metadata asks for, by extra; triton, which a torch for GPUs brings, besides."""
    try:
        wanted = importlib.metadata.requires("ppl_fast") or []
    except importlib.metadata.PackageNotFoundError:
        return {"not installed as a package; beside it": ["numpy", "triton"]}
    found: dict[str, list[str]] = {"core": ["triton"]}
    for line in wanted:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra == ['\"](\w+)['\"]", line)
        group = f"extra {extra[1]}" if extra else "core"
        if name and name[0] not in ("torch", "ppl_fast", "ppl-fast") and group not in ("extra all", "extra dev"):
            found.setdefault(group, []).append(name[0])
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _no_gpu_reason() -> str:
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return "torch finds no usable CUDA device"


def _print_operator(op: str, device: torch.device) -> bool:
    """Print one operator's backends on one device; return whether any of them disagrees with the reference."""
    overload = cast("torch._ops.OpOverload", _backend.select(op, "auto", device))  # an op, outside of torch.func
    chosen = overload.name().removeprefix(f"ppl_fast::{op}").strip("_") or "cpp"
    print(f"  {op}: auto uses {chosen}")
    failed = False
    for backend in ("cpp", "triton", "reference"):
        reason = _backend.reason_against(op, backend, str(device))
        if reason is not None:
            print(f"    {backend:<9}  not available: {reason}")
            continue
        left_out = _backend.failed_test(op, backend, str(device))
        if left_out is not None:
            print(f"    {backend:<9}  WRONG, so auto leaves it out: {left_out}")
            failed = True
            continue
        error = _selftest.largest_error(op, backend, device)
        wrong = not error <= _selftest.TOLERANCE
        failed |= wrong
        print(f"    {backend:<9}  {'WRONG' if wrong else 'ok'}, largest relative error {error:.1e}")
    return failed
