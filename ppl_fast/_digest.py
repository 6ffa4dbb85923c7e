"""A digest that tells values apart: options, arrays, models."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch


def digest(value: Any) -> str:
    """Of plain values, arrays, tensors, modules and dataclasses, and of lists and dictionaries of them."""
    found = hashlib.sha256()
    _digest(value, found)
    return found.hexdigest()[:32]


def _digest(value: Any, found: Any) -> None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous()
        value = value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
    if isinstance(value, np.ndarray):
        found.update(f"{value.dtype}{value.shape}".encode())
        found.update(np.ascontiguousarray(value).tobytes())
        return
    if isinstance(value, torch.nn.Module):
        value = [type(value).__name__, value.state_dict()]
    elif is_dataclass(value) and not isinstance(value, type):
        value = [type(value).__name__, {each.name: getattr(value, each.name) for each in fields(value)}]
    if isinstance(value, dict):
        value = [each for pair in value.items() for each in pair]
    if isinstance(value, list | tuple):
        found.update(f"[{len(value)}".encode())
        for each in value:
            _digest(each, found)
        return
    found.update(f"{type(value).__name__}:{value!r};".encode("utf-8", "surrogateescape"))
