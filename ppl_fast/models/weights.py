"""Files of safetensors, whose header is read and believed only as far as the file goes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ppl_fast._check import FLOATS
from ppl_fast._documents import check_regular, parse_json
from ppl_fast._extras import needing
from ppl_fast._files import readable
from ppl_fast._messages import short

LONGEST_HEADER = 1 << 24  # bytes; a model's has about 100 a tensor
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Announced(NamedTuple):
    """What a header says of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def safetensors() -> ModuleType:
    """The package of that name, which only reading and writing weights needs."""
    with needing("weight files need", "train"):
        import safetensors.torch
    return safetensors


def read_header(path: Path) -> dict[str, Announced]:
    """The tensors of a safetensors file by name, none of which is read.

    Raises:
        OSError: it cannot be read.
        ValueError: no such file, a truncated one, or a header that announces what the file does not hold; it is named.
    """
    try:
        size = check_regular(path)
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, LONGEST_HEADER):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            content = parse_json(file.read(length))
        if not isinstance(content, dict):
            raise ValueError("its header is no object")
        content.pop("__metadata__", None)
        return {name: _announced(name, entry, size - 8 - length) for name, entry in content.items()}
    except ValueError as error:
        raise ValueError(f"{path}: truncated or not a safetensors file ({error})") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU; raises as `read_header` does."""
    read_header(path)
    package, named = safetensors(), readable(str(path)) == str(path)  # it takes no names that are not UTF-8
    tensors: dict[str, Tensor]
    try:
        tensors = package.torch.load_file(path) if named else package.torch.load(path.read_bytes())
    except package.SafetensorError as error:
        raise ValueError(f"{path}: truncated or not a safetensors file ({error})") from error
    return tensors


def check_kind(where: str, name: str, dtype: torch.dtype, like: torch.dtype) -> None:
    """Raise a ValueError where one of two dtypes is of floating-point numbers, and the other is not."""
    if (dtype in FLOATS) != (like in FLOATS):
        wanted, got = (str(each).removeprefix("torch.") for each in (like, dtype))
        raise ValueError(f"{where}: {name} must hold numbers such as {wanted}, got {got}")


def check_finite(where: str, name: str, values: Tensor) -> None:
    """Raise a ValueError where a tensor holds NaN or infinity."""
    if values.dtype in FLOATS and not bool(values.isfinite().all()):
        raise ValueError(f"{where}: {name} holds NaN or infinity")


def check_fit(where: str, given: Mapping[str, Announced | Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise a ValueError, which names the first, where names, shapes or kinds of numbers differ from a model's."""
    for name in [*expected, *(name for name in given if name not in expected)]:
        want, got = expected.get(name), given.get(name)
        if want is None or got is None or tuple(want.shape) != tuple(got.shape):
            raise ValueError(
                f"{where}: {short(name)} does not fit the model: expected {_spell(want)}, got {_spell(got)}"
            )
        check_kind(where, name, got.dtype, want.dtype)


def _announced(name: str, entry: Any, room: int) -> Announced:
    """An entry of a header, checked against the bytes that follow it."""
    entry = entry if isinstance(entry, dict) else {}
    dtype, shape, place = DTYPES.get(str(entry.get("dtype"))), entry.get("shape"), entry.get("data_offsets")
    if dtype is None or not _are_sizes(shape) or not _are_sizes(place) or len(place) != 2:
        raise ValueError(f"{short(name)} has no dtype, shape and place that are known")
    begin, end = place
    if end > room or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{short(name)} of shape {short(tuple(shape))} does not have as many bytes")
    return Announced(tuple(shape), dtype)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _spell(tensor: Announced | Tensor | None) -> str:
    return "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
