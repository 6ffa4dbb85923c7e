"""Run directories: where a run starts, restoring it, and finding the model in it."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppl_fast._files import is_taken
from ppl_fast.models import KeypointModel, load_pretrained
from ppl_fast.training.checkpoint import list_checkpoints, load_state


def starting_point(run: Path, resume: bool) -> Path | None:
    """The checkpoint to continue from, or None for a start at step 0.

    Raises:
        ValueError: `resume`, and `run` is no run directory.
        FileExistsError: not `resume`, and `run` holds a run or something else.
    """
    started = (run / "config.yaml").is_file()
    if resume:
        if not started:
            raise ValueError(f"train: cannot resume {run}: it is no run directory, which would hold a config.yaml")
        checkpoints = list_checkpoints(run)
        return checkpoints[-1] if checkpoints else None
    if started:
        raise FileExistsError(f"train: {run} already holds a run; add --resume to continue it, or name another --out")
    if is_taken(run):
        raise FileExistsError(f"train: {run} exists and is not an empty directory; name another --out")
    return None


@contextmanager
def blaming(checkpoint: Path) -> Iterator[None]:
    """Add to an error about a damaged checkpoint how to go on without it."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ValueError(f"{error}; remove {checkpoint} to resume from the checkpoint before it") from error


def restored(
    checkpoint: Path, model_config: dict[str, Any], model_class: type[KeypointModel]
) -> tuple[dict[str, Any], KeypointModel]:
    """State and model of a checkpoint.

    Raises:
        ValueError: the checkpoint is damaged, or an option in `model_config` is not the checkpoint's; those of
            the machine, such as where weights are found, may change.
    """
    requested = model_class.Config.from_dict(model_config).to_dict()
    movable = {key: requested[key] for key in model_class.Config.machine}
    with blaming(checkpoint):
        state, model = load_state(checkpoint), model_class.from_pretrained(checkpoint, **movable)
    requested = type(model).Config.from_dict(requested).to_dict()  # the run may be one of the extension
    for key, value in requested.items():
        if value != model.config[key]:
            raise ValueError(
                f"train: model.{key} is {value!r}, but {checkpoint} has {model.config[key]!r}; "
                "resume with the run's own options, or start a new run"
            )
    return state, model


def load_model(path: str | os.PathLike[str]) -> KeypointModel:
    """The model of a run directory (its latest), of a checkpoint, or of any directory by `save_pretrained`.

    Raises:
        FileNotFoundError: `path` is none of these.
        ValueError: the model's files are damaged, or of another architecture.
    """
    for directory in (Path(path) / "model", Path(path)):
        if (directory / "model.safetensors").is_file():
            return load_pretrained(directory)
    raise FileNotFoundError(f"{path} is no run directory: it holds no model/model.safetensors")


def fingerprint(paths: list[str]) -> str:
    """Digest of the images' names in order: the data order repeats only for the same ones."""
    names = "\n".join(paths).encode("utf-8", "surrogatepass")  # names need not be UTF-8
    return hashlib.sha256(names).hexdigest()[:16]
