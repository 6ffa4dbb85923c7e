"""What a run needs before its first step: images, and a device to train on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from ppl_fast import _devices
from ppl_fast.data import open_set
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.sets import clip_folder, known_name
from ppl_fast.data.shards import find_shards
from ppl_fast.data.subjects import NothingMovesError, SubjectMasks
from ppl_fast.models import KeypointModel
from ppl_fast.options.footage import AUTO, MOVING, Selection
from ppl_fast.training.config import TrainConfig
from ppl_fast.training.processes import meeting

if TYPE_CHECKING:
    from ppl_fast.data.moving_subjects import MovingSubjects

DEVICE_VARIABLE = "ACCELERATE_TORCH_DEVICE"
LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


def open_images(data: str | os.PathLike[str], image_size: int, config: TrainConfig) -> ImageSet:
    """The images to train on: a published data set, a folder, or with reference "video" a folder of clips."""
    options: dict[str, Any] = {
        "cache": config.cache,
        "max_bad_share": config.max_bad_share,
        "max_pixels": config.max_pixels,
        "framing": config.framing,
    }
    choice = Selection(config.every, config.frames, config.frames_by, config.seed)
    if known_name(data):
        options["choice"] = choice if (config.every, config.frames) != (1, 0) else None
    else:
        options["choice"] = choice
        if config.reference == "video":
            if find_shards(data):
                raise ValueError(f"reference video needs frames of clips; the images in the shards {data} are of none")
            return clip_folder(Path(data), image_size, **options)
    images: ImageSet = open_set(data, image_size, **options).dataset
    return images


def subject_masks(
    config: TrainConfig, model: KeypointModel, images: ImageSet
) -> tuple["SubjectMasks | MovingSubjects | None", str]:
    """Where the subject of each image is, if the options say so, and what was found, fit for printing.

    Raises:
        ValueError: the masks do not fit the images, or the model has no use of them.
    """
    if config.masks is None:
        return None, ""
    used = any(getattr(model.settings, f"{name}_weight", 0.0) for name in ("foreground", "coverage", "stray"))
    if config.masks == AUTO:
        if not used:
            return None, ""
        try:
            return _moving(images)
        except (NothingMovesError, ImportError) as error:
            return None, f"links and keypoints are drawn to no masks ({error})"
    if not used:
        raise ValueError(
            "TrainConfig: masks need a model that is drawn to the subject: --preset small, or an extension with "
            "foreground_weight, coverage_weight or stray_weight"
        )
    if config.masks == MOVING:
        return _moving(images)
    masks = SubjectMasks(config.masks, images)
    return masks, masks.report


def _moving(images: ImageSet) -> tuple["MovingSubjects", str]:
    """What moves, which needs scipy."""
    from ppl_fast.data.moving_subjects import MovingSubjects

    masks = MovingSubjects(images)
    return masks, masks.report


def new_accelerator(config: TrainConfig) -> Accelerator:
    """What decides device, precision and processes.

    Raises:
        ValueError: the options do not fit the machine.
    """
    try:
        device = _devices.pick(config.device)
    except ValueError as error:
        raise ValueError(f"TrainConfig: {error}") from error
    # Told so by name, accelerate runs several processes on the CPU; left to find out, it would run each on its own.
    cpu = device.type == "cpu"
    if cpu and config.precision == "fp16":
        raise ValueError("TrainConfig: precision fp16 needs a GPU; on the CPU use bf16 or no")
    processes = _processes()
    if config.cuda_graph == "true" and (device.type != "cuda" or processes > 1):
        found = f"device {device.type}" if device.type != "cuda" else f"{processes} processes"
        raise ValueError(f"TrainConfig: cuda_graph needs one process on a CUDA GPU, got {found}: set it to false there")
    if device.index is not None and processes > 1:
        raise ValueError(
            f"TrainConfig: device must name a kind, as {device.type}, for {processes} processes, which each take one; "
            f"got {config.device}"
        )
    missing = [name for name in LAUNCHER if not os.environ.get(name)]
    if processes > 1 and missing:  # one by itself needs none of them
        raise ValueError(
            f"the environment variable WORLD_SIZE is {processes}, but {missing[0]} is not set; start several processes "
            "by torchrun, or unset WORLD_SIZE for one"
        )
    # The state is one for the whole process, and refuses another precision or device than an earlier run's.
    AcceleratorState._reset_state(reset_partial_state=True)
    alone = dict.fromkeys(LAUNCHER) | {DEVICE_VARIABLE: str(device)}  # accelerate reads no other word about the device
    with _environment(alone) if processes == 1 else nullcontext():
        accelerator = Accelerator(
            mixed_precision=config.precision,
            cpu=cpu,
            gradient_accumulation_steps=config.accumulate,
            kwargs_handlers=[InitProcessGroupKwargs(init_method=meeting(), timeout=timedelta(seconds=config.timeout))],
        )
    if config.batch_size % (accelerator.num_processes * config.accumulate):
        parts = f" times the {config.accumulate} parts of accumulate" if config.accumulate > 1 else ""
        raise ValueError(
            f"TrainConfig: batch_size must be a multiple of the {accelerator.num_processes} processes{parts}, "
            f"got {config.batch_size}"
        )
    return accelerator


def _processes() -> int:
    """How many processes the launcher says there are."""
    named = os.environ.get("WORLD_SIZE") or "1"
    if not named.isdecimal() or int(named) < 1:
        raise ValueError(f"the environment variable WORLD_SIZE must be the number of processes, got {named!r}")
    return int(named)


@contextmanager
def _environment(changes: dict[str, str | None]) -> Iterator[None]:
    """Environment variables set to these values, None for not at all, within the block."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        _set(changes)
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
