"""Models on disk: `model.safetensors` and `config.json` in one directory; no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ppl_fast._documents import read_json
from ppl_fast._files import replacing, write_text
from ppl_fast.models.blocks import accepted
from ppl_fast.models.weights import check_finite, check_fit, read_header, read_tensors, safetensors

WEIGHTS, CONFIG = "model.safetensors", "config.json"
CALIBRATION = "confidence.json"  # beside them, where ppl-fast calibrate was run
JOINTS, JOINTS_REPORT = "joints.safetensors", "joints.json"  # where ppl-fast name was
OPTIONS = "config.yaml"  # of its training: beside a model on the hub, above it in a run
FILES = [WEIGHTS, CONFIG, CALIBRATION, JOINTS, JOINTS_REPORT, OPTIONS]  # what a model on the hub consists of


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
    tensors = {key: whole(value.detach()).cpu().contiguous() for key, value in state.items()}
    if "alpha" in tensors:  # one element of a parameter that was shared out; see `LinkModel`
        tensors["alpha"] = tensors["alpha"].reshape(())
    with replacing(directory / WEIGHTS) as temporary:
        save_file(tensors, temporary)
    write_config(directory, architecture, config)


def digest_of_weights(directory: Path) -> str:
    """Of the weights in a model's directory, for what lies beside them and is of them alone."""
    found = hashlib.sha256()
    with open(directory / WEIGHTS, "rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def write_config(directory: Path, architecture: str, config: dict[str, Any]) -> None:
    """Write config.json: JSON types are expected."""
    write_text(directory / CONFIG, json.dumps({"architecture": architecture, "config": config}, indent=2) + "\n")


def whole(value: Tensor) -> Tensor:
    """A tensor that is shared out over processes (FSDP2), gathered, for which every process must ask; or as it is."""
    gathered: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return gathered


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


def weights_of(directory: str | os.PathLike[str]) -> Path:
    """The path of model.safetensors.

    Raises:
        FileNotFoundError: there is no such file.
    """
    path = Path(directory, WEIGHTS)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a directory written by save_pretrained")
    return path


def check_weights(directory: str | os.PathLike[str], model: nn.Module) -> None:
    """Compare the header of model.safetensors with a model, which may be on the device meta; no weight is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated file, or a key that does not match; the first one is named.
    """
    path = weights_of(directory)
    header = read_header(path)
    check_fit(str(path), header, accepted(model, header))


def load_weights(directory: str | os.PathLike[str], model: nn.Module) -> None:
    """Load model.safetensors into `model`; every key, shape and kind of number must match.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a truncated file, a key that does not match, or NaN or infinity; the first one is named.
    """
    path = weights_of(directory)
    state = read_tensors(path)
    expected = accepted(model, state)
    check_fit(str(path), state, expected)
    for name, value in state.items():
        check_finite(str(path), name, value.to(expected[name].dtype))
    model.load_state_dict(state)
