"""Models on disk: `model.safetensors` and `config.json` in one directory; no pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from ppl_fast._documents import read_json
from ppl_fast._extras import needing
from ppl_fast._files import replacing, write_text

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save(
    directory: str | os.PathLike[str], architecture: str, config: dict[str, Any], state: dict[str, Tensor]
) -> None:
    """Write both files, each under a temporary name first, so that no half-written one is ever found.

    Raises:
        OSError: the directory cannot be written.
    """
    save_file = safetensors().torch.save_file
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    text = json.dumps({"architecture": architecture, "config": config}, indent=2) + "\n"
    with replacing(directory / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    write_text(directory / CONFIG, text)


def safetensors() -> ModuleType:
    """The package of that name, which only reading and writing weights needs."""
    with needing("weight files need", "train"):
        import safetensors.torch
    return safetensors


def read_config(directory: str | os.PathLike[str]) -> tuple[str, dict[str, Any]]:
    """The architecture and the options in config.json.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is no such config.
    """
    path = Path(directory, CONFIG)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a directory written by save_pretrained")
    try:
        content = read_json(path)
        return str(content["architecture"]), dict(content["config"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a model config ({type(error).__name__}: {error})") from error


def load_weights(directory: str | os.PathLike[str], model: nn.Module) -> None:
    """Load model.safetensors into `model`; every key and shape must match.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated file, or a key that does not match; the first one is named.
    """
    path = Path(directory, WEIGHTS)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a directory written by save_pretrained")
    try:
        state = safetensors().torch.load_file(path)
    except safetensors().SafetensorError as error:
        raise ValueError(f"{path}: truncated or not a safetensors file ({error})") from error
    expected = model.state_dict()
    for key in [*expected, *(key for key in state if key not in expected)]:
        want, got = (_spell(states.get(key)) for states in (expected, state))
        if want != got:
            raise ValueError(f"{path}: {key} does not fit the model: expected {want}, got {got}")
    model.load_state_dict(state)


def _spell(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
