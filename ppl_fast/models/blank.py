"""Models without memory: built on torch's device `meta`, so that sizes are known before anything is allocated."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from ppl_fast.models.base import KeypointModel

Model = TypeVar("Model", bound="KeypointModel")
COPIES = 4  # of the parameters in training: themselves, their gradients, Adam's two moments


def blank(model_class: type[Model], options: dict[str, Any], where: str) -> Model:
    """A model of these options whose tensors have shapes and no values.

    Raises:
        TypeError, ValueError: what the class says of its options.
        ValueError: sizes that no tensor can have; `where` starts the sentence.
    """
    model_class.Config.from_dict(options)
    try:
        with torch.device("meta"):
            return model_class(**options)
    except (RuntimeError, TypeError, OverflowError, MemoryError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"{where}: its options ask for tensors of impossible sizes ({reason})") from error


def check_trainable(model_class: type[KeypointModel], options: dict[str, Any], where: str) -> None:
    """Raise a ValueError where training such a model would take more memory than this machine has.

    Only what is certain counts: parameters with gradients and moments, and buffers; on the CPU, where models are built.
    """
    model = blank(model_class, options, where)
    needed = sum(COPIES * parameter.nbytes for parameter in model.parameters())
    needed += sum(buffer.nbytes for buffer in model.buffers())
    if needed > (there := machine_memory()):
        raise ValueError(
            f"{where}: a model of these options takes at least {needed / 1e9:.1f} GB to train, "
            f"this machine has {there / 1e9:.1f}"
        )


def machine_memory() -> float:
    """Bytes of memory of this machine; infinity where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not on every system
        return math.inf
