"""Formats of export, and what goes together: the command line asks before torch is there."""

from collections.abc import Mapping
from typing import Any

SUFFIXES = {"onnx": ".onnx", "torchexport": ".pt2", "aoti": ".pt2"}


def check_int8(format: str, given: Mapping[str, Any], *, command: bool = False) -> None:
    """Raise a ValueError where int8 makes no sense.

    Args:
        format: to export to.
        given: what int8 goes without, by name; what is true was asked for.
        command: whether to speak of the options of `ppl-fast export`, not of the arguments of `export`.
    """
    int8, kind, dashes = ("--int8", "--format", "--") if command else ("export: int8", "the format", "")
    if format != "onnx":
        raise ValueError(f"{int8} is for {kind} onnx alone, got {format}")
    for name in (name for name, asked in given.items() if asked):
        raise ValueError(f"{int8} is for one pass from images to keypoints; leave out {dashes}{name}")
