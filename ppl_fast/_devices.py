"""Devices by name, through torch.accelerator: which there are, and the one that `auto` means; and the CPU's cores."""

from __future__ import annotations

import os

import torch


def accelerator() -> torch.device | None:
    """The kind of accelerator that torch finds here (`cuda`, `mps`, `xpu`, ...), or None."""
    return torch.accelerator.current_accelerator(check_available=True)


def available() -> list[torch.device]:
    """The CPU, then each accelerator with its index."""
    kind = accelerator()
    count = torch.accelerator.device_count() if kind else 0
    return [torch.device("cpu"), *(torch.device(kind.type, i) for i in range(count) if kind)]


def pick(name: str = "auto") -> torch.device:
    """The device of a name: `auto` the accelerator, else the CPU; or as torch writes them, such as `cuda:1`.

    Raises:
        ValueError: no name of a device, or one that is not here.
    """
    if name == "auto":
        return accelerator() or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(
            f"device must be auto, cpu or a device of torch such as cuda:1, mps or xpu, got {name!r}"
        ) from error
    here = available()
    if device not in here and not any(device.index is None and device.type == other.type for other in here):
        raise ValueError(f"device {name} is not here; torch finds {', '.join(map(str, here))}")
    return device


def cpus() -> int:
    """The cores that this process may use, which a scheduler or a container makes fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def capturing(kind: str) -> bool:
    """Whether a CUDA graph is being captured on the current stream: no call may wait for the device then."""
    return kind == "cuda" and torch.cuda.is_current_stream_capturing()


capturing._dynamo_marked_constant = True  # type: ignore[attr-defined]


def loads_from_pinned_memory() -> bool:
    """Whether copies to the accelerator are faster from page-locked memory, and torch can lock it."""
    kind = accelerator()
    return kind is not None and kind.type in ("cuda", "xpu")


def describe(device: torch.device) -> str:
    """The device with what tells it apart, for reports."""
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = torch.cuda.get_device_name(device)
        return f"{device} ({name}, compute capability {major}.{minor}, CUDA {torch.version.cuda})"
    if device.type == "cpu":
        return f"cpu ({torch.get_num_threads()} threads)"
    return str(device)
