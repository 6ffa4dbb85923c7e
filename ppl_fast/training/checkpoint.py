"""Checkpoints of a run: complete or absent under their name, and without pickles.

A checkpoint is a directory: model.safetensors and config.json (the model, its memory's EMA included),
optimizer.safetensors (AdamW's moments by parameter name) and state.json (the step and what a resumed run must match).
Random numbers need no state: the trainer seeds every step by its number.
"""

import filecmp
import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ppl_fast._documents import read_json
from ppl_fast._files import new_folder, write_text
from ppl_fast._messages import short
from ppl_fast.models import KeypointModel
from ppl_fast.models.blocks import spare_biases
from ppl_fast.models.checkpoint import WEIGHTS
from ppl_fast.models.weights import check_finite, check_kind, read_tensors

_STEP_PREFIX = "step_"
_STEP = re.compile(f"{_STEP_PREFIX}[0-9]+")  # copies by other names are not the run's
SLOTS = ("step", "exp_avg", "exp_avg_sq")  # of the state of torch's AdamW
SCALER = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}  # state of torch's


def list_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    named = [path for path in (run / "checkpoints").glob(f"{_STEP_PREFIX}*") if _STEP.fullmatch(path.name)]
    found = [path for path in named if (path / "state.json").is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(_STEP_PREFIX)))


def newest(run: Path) -> str:
    """Which checkpoint of a run is kept, if any, for the end of a message."""
    kept = list_checkpoints(run)
    return f"{kept[-1]} is kept, --resume continues from it" if kept else "no checkpoint was saved yet"


def checkpoint_path(run: Path, step: int) -> Path:
    """Where the checkpoint of so many finished steps lies."""
    return run / "checkpoints" / f"{_STEP_PREFIX}{step:07d}"


def save_checkpoint(
    run: Path, model: KeypointModel, optimizer: torch.optim.Optimizer, state: dict[str, Any], keep: int
) -> Path:
    """Write the checkpoint of `state["step"]`, refresh RUN/model, and remove all but the `keep` newest checkpoints.

    Args:
        run: the run's directory.
        model: has `save_pretrained(directory)`.
        optimizer: of the model's parameters.
        state: JSON-able, with the number of finished steps as "step".
        keep: number of checkpoints that stay, at least 1.

    Returns:
        Path of the checkpoint.

    Raises:
        OSError, SafetensorError: the disk is full or not writable; nothing half-written is left, nothing removed.
    """
    from safetensors.torch import save_file

    final = checkpoint_path(run, state["step"])
    for left in final.parent.glob(f".{_STEP_PREFIX}*.tmp"):  # by a run that was killed; a run has one writer
        shutil.rmtree(left, ignore_errors=True)
    if final not in list_checkpoints(run):
        if final.is_dir():  # a part of one, as an interrupted copy leaves it
            shutil.rmtree(final)
        with new_folder(final, durable=True) as folder:
            model.save_pretrained(folder)
            save_file(_optimizer_tensors(model, optimizer), folder / "optimizer.safetensors")
            write_text(folder / "state.json", json.dumps(state, indent=2) + "\n")
    model.save_pretrained(run / "model")
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def complete(run: Path, checkpoint: Path, model: KeypointModel) -> None:
    """Write RUN/model where it is not the checkpoint's, as a save that was cut short between both leaves it."""
    kept, own = (folder / WEIGHTS for folder in (run / "model", checkpoint))
    if not kept.is_file() or not filecmp.cmp(kept, own, shallow=False):
        model.save_pretrained(run / "model")


def load_optimizer(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore Adam's moments of every parameter that has some, in the parameter's own memory format.

    Raises:
        ValueError: the file is missing, truncated, or of another model; the sentence names file and tensor.
    """
    path = checkpoint / "optimizer.safetensors"
    try:
        tensors = read_tensors(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"checkpoint file {path} is missing or damaged: {error}") from error
    parameters, spare = dict(model.named_parameters()), spare_biases(model)  # which models once had
    tensors = {key: saved for key, saved in tensors.items() if key.rpartition(".")[0] not in spare}
    for key in sorted(tensors):
        others = [f"{key.rpartition('.')[0]}.{slot}" for slot in SLOTS]
        if missing := [other for other in others if other not in tensors]:
            raise ValueError(f"checkpoint file {path}: {key} is there without {missing[0]}")
    for key, saved in tensors.items():
        name, _, slot = key.rpartition(".")
        parameter = parameters.get(name)
        if parameter is not None and slot != "step" and saved.ndim == 0:
            saved = saved.reshape(1)  # of alpha, which was a scalar once
        if parameter is None or (slot != "step" and saved.shape != parameter.shape):
            expected = "no such parameter" if parameter is None else f"shape {tuple(parameter.shape)}"
            raise ValueError(f"checkpoint file {path}: {key} has shape {tuple(saved.shape)}, the model has {expected}")
        like = saved if slot == "step" else parameter.detach()
        if slot not in SLOTS or (slot == "step" and saved.numel() != 1):
            raise ValueError(f"checkpoint file {path}: {key} is none of Adam's {', '.join(SLOTS)}")
        check_kind(f"checkpoint file {path}", key, saved.dtype, parameter.dtype)
        check_finite(f"checkpoint file {path}", key, saved.to(like.dtype))
        if slot != "exp_avg" and bool((saved < 0).any()):
            raise ValueError(f"checkpoint file {path}: {key} is negative")
        # The fused Adam expects everything on the parameter's device, the moments in its memory layout.
        optimizer.state[parameter][slot] = torch.empty_like(like, device=parameter.device).copy_(saved)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint's state.json; a ValueError names the file where it is damaged."""
    path = checkpoint / "state.json"
    try:
        state = read_json(path)
        _check_state(state)
    except (OSError, ValueError) as error:
        raise ValueError(f"checkpoint file {path} is missing or damaged: {error}") from error
    return {**state}


def _check_state(state: Any) -> None:
    """Raise a ValueError unless this is what `save_checkpoint` is given, as far as a resumed run relies on it."""
    if not isinstance(state, dict):
        raise ValueError(f"it must hold an object, got {type(state).__name__}")
    if type(state.get("step")) is not int or not 0 <= state["step"] < 1 << 53:
        raise ValueError(f"step must be a number of steps, got {short(state.get('step'))}")
    if not _is_number(state.get("seconds")):
        raise ValueError(f"seconds must be a number of at least 0, got {short(state.get('seconds'))}")
    if not isinstance(state.get("images"), str):
        raise ValueError(f"images must be text, got {short(state.get('images'))}")
    scaler = state.get("scaler")
    good = isinstance(scaler, dict) and scaler.keys() == SCALER and all(map(_is_number, scaler.values()))
    if scaler and not good:
        raise ValueError(f"scaler must hold numbers for {', '.join(sorted(SCALER))}, got {short(scaler)}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e300


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{slot}": value.contiguous()
        for name, parameter in model.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
    }
