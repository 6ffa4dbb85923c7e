"""Trackers of experiments beside a run's own log: TensorBoard, Weights & Biases and whatever else accelerate knows."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_fast._extras import missing
from ppl_fast._files import readable

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

NONE, TENSORBOARD = "none", "tensorboard"
PROJECT = "ppl_fast"  # under which trackers with a server file a run


def check_tracker(name: str) -> None:
    """Raise an error where a tracker is unknown or not installed, before hours of training end in one.

    Raises:
        ValueError: accelerate knows none of this name.
        ImportError: its package is not installed.
    """
    if name == NONE:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    if name not in LOGGER_TYPE_TO_CLASS:
        raise ValueError(
            f"TrainConfig: tracker must be {NONE} or one of {', '.join(sorted(LOGGER_TYPE_TO_CLASS))}, got {name!r}"
        )
    if name == TENSORBOARD and find_spec(name) is None:
        raise missing(name, f"the tracker {name} needs", "train", otherwise=f"set tracker to {NONE}")
    known = LOGGER_TYPE_TO_CLASS[name].__module__ == "accelerate.tracking"  # another is one that its owner registered
    if known and name not in {str(available) for available in get_available_trackers()}:
        package = name.replace("_", "-")
        raise ImportError(
            f"the tracker {name} needs {package}, which is not installed: pip install {package}, "
            f"or set tracker to {NONE}",
            name=name,
        )


def tracker_takes(name: str, run: Path) -> bool:
    """Whether a tracker can write to this directory: TensorBoard wants its name in UTF-8."""
    return name != TENSORBOARD or readable(str(run)) == str(run)


def begin_tracker(name: str, run: Path, step: int, options: dict[str, Any]) -> GeneralTracker | None:
    """A tracker that has begun; None where none is asked for, or where it cannot write to the run.

    TensorBoard's events lie in RUN/tensorboard, Weights & Biases' files in RUN/wandb; others follow their own settings.

    Args:
        name: of a tracker that `check_tracker` takes.
        run: the run's directory.
        step: finished steps; TensorBoard drops what it has of later ones.
        options: by name, for trackers that show what differs between runs.

    Raises:
        OSError: it cannot begin, as where nobody is logged in at its server.
    """
    if name == NONE or not tracker_takes(name, run):
        return None
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    further: dict[str, Any] = {}
    if name == TENSORBOARD:
        further = {"purge_step": step + 1 if step else None}
    elif name == "wandb":
        further = {"dir": os.fspath(run), "name": run.name, "group": run.name}
    title = {TENSORBOARD: TENSORBOARD, "wandb": os.environ.get("WANDB_PROJECT", PROJECT)}.get(name, PROJECT)
    try:
        tracker: GeneralTracker = (
            kind(title, os.fspath(run), **further) if kind.requires_logging_directory else kind(title, **further)
        )
        if hasattr(tracker, "start"):  # older releases of accelerate begin at once
            tracker.start()
        if name != TENSORBOARD:  # which would make a second run of them
            tracker.store_init_configuration(options)
    except Exception as error:  # each tracker has errors of its own
        raise OSError(
            f"the tracker {name} cannot begin: {' '.join(str(error).split())}; or set tracker to {NONE}"
        ) from error
    return tracker


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a record but the step, nested ones as outer/inner."""
    numbers: dict[str, Any] = {}
    for name, value in record.items():
        numbers |= {f"{name}/{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return {name: value for name, value in numbers.items() if name != "step"}


def end_tracker(tracker: GeneralTracker | None) -> None:
    """Have a tracker write what it holds; what it cannot write is no error any more."""
    if tracker is not None:
        with suppress(OSError):
            tracker.finish()
