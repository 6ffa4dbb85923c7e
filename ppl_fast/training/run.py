"""Run directories: where a run starts, restoring it, and finding the model in it."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_fast._files import check_writable, is_taken, locked
from ppl_fast._options import as_meant
from ppl_fast.models import KeypointModel, load_pretrained
from ppl_fast.models.checkpoint import OPTIONS, WEIGHTS
from ppl_fast.options.footage import Framing
from ppl_fast.options.migration import loop
from ppl_fast.training.checkpoint import list_checkpoints, load_state
from ppl_fast.training.config import TrainConfig, read_config

if TYPE_CHECKING:
    from ppl_fast.data.image_set import ImageSet

LOCK = ".lock"  # of a run in progress
LEVELS = 2  # that a checkpoint lies below its run
FRAMING = ("fit", "crop", "crop_margin", "crop_turn")  # options of `TrainConfig` that say what a model sees


def is_run(run: Path) -> bool:
    """Whether a run was begun in this directory."""
    return (run / OPTIONS).is_file()


def starting_point(run: Path, resume: bool) -> Path | None:
    """The checkpoint to continue from, or None for a start at step 0.

    Raises:
        ValueError: `resume`, and `run` holds something, but no run.
        FileExistsError: not `resume`, and `run` holds a run or something else.
        PermissionError: `run` cannot be written, by the first process, which alone writes.
    """
    if os.environ.get("RANK", "0") == "0":
        check_writable(run)
    started = is_run(run)
    taken = is_taken(run) and not (run.is_dir() and os.listdir(run) == [LOCK])
    if resume:
        if not started and taken:
            raise ValueError(f"train: cannot resume {run}: it is no run directory, which would hold a config.yaml")
        checkpoints = list_checkpoints(run)
        return checkpoints[-1] if checkpoints else None
    if started:
        raise FileExistsError(f"train: {run} already holds a run; add --resume to continue it, or name another --out")
    if taken:
        raise FileExistsError(f"train: {run} exists and is not an empty directory; name another --out")
    return None


@contextmanager
def claimed(run: Path, resume: bool, checkpoint: Path | None) -> Iterator[None]:
    """Hold a run's directory, made where it is not there, for this process alone.

    Args:
        run: the directory.
        resume: as `starting_point` was asked.
        checkpoint: as it answered, before the directory was held.

    Raises:
        BlockingIOError: another process is training there, or was meanwhile.
        ValueError, FileExistsError: see `starting_point`.
    """
    run.mkdir(parents=True, exist_ok=True)
    with locked(run / LOCK, f"train: a run is in progress in {run}; wait for its end, or name another --out"):
        if starting_point(run, resume) != checkpoint:
            raise BlockingIOError(f"train: another process went on with {run} meanwhile; start again")
        yield


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
    return load_pretrained(find_model(path))


def find_model(path: str | os.PathLike[str]) -> Path:
    """The directory that holds the model which `load_model` gives; raises its FileNotFoundError."""
    for directory in (Path(path) / "model", Path(path)):
        if (directory / WEIGHTS).is_file():
            return directory
    reason = "it holds no model/model.safetensors" if os.path.exists(path) else "there is nothing at this path"
    raise FileNotFoundError(f"{path} is no run directory: {reason}")


def load_framing(path: str | os.PathLike[str]) -> Framing:
    """What a trained model sees of each image: by the config.yaml of the run that `path` is, or lies in.

    Args:
        path: as for `load_model`. A model that lies in no run sees whole images, stretched to the square.

    Raises:
        ValueError: the config file is damaged; it is named.
    """
    options = training_of(path)
    return TrainConfig(**{name: options[name] for name in FRAMING if name in options}).framing


def run_of(path: str | os.PathLike[str]) -> Path | None:
    """The directory of the run that a path is, or lies in; None where it does in none."""
    folders = (Path(path), *list(Path(path).absolute().parents)[:LEVELS])
    return next((folder for folder in folders if is_run(folder)), None)


def training_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The options of the training in the config.yaml of the run that `path` is, or lies in; none without a run.

    Raises:
        ValueError: the config file is damaged; it is named.
    """
    run = run_of(path)
    if run is None:
        return {}
    file = run / OPTIONS
    named = read_config(file).get("train") or {}
    if not isinstance(named, dict):
        raise ValueError(f"config file {file}: train must be a mapping of options, got {named!r}")
    return as_meant(TrainConfig, loop(named))


def described(dataset: "ImageSet") -> dict[str, Any]:
    """What a checkpoint keeps of its images: the digest of their names, their number, and the range of their sizes."""
    sizes = dataset.original_sizes
    return {
        "images": fingerprint(dataset.paths),
        "count": len(dataset),
        "sizes": [[pick(side) for side in zip(*sizes, strict=True)] for pick in (min, max)],  # (W, H)
    }


def fingerprint(paths: Sequence[str]) -> str:
    """Digest of the images' names in order: the data order repeats only for the same ones."""
    names = "\n".join(paths).encode("utf-8", "surrogatepass")  # names need not be UTF-8
    return hashlib.sha256(names).hexdigest()[:16]
