"""Options of the training loop, and the YAML file that records a run's options."""

import math
import os
from collections.abc import Iterable
from dataclasses import InitVar, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ppl_fast._documents import MAX_PIXELS, read_yaml
from ppl_fast._files import readable, write_text
from ppl_fast._messages import hint
from ppl_fast._options import as_meant, check, option, plain
from ppl_fast.options import CONFIGS, migration, registry
from ppl_fast.options.footage import CACHES, FITS, MOVING, WAYS, Framing

SECTIONS = ("architecture", "data", "model", "train")
OF_THE_MACHINE = ("device", "threads", "workers", "cache")  # options in which processes may differ


@dataclass
class TrainConfig:
    """How to train; what to train is the model's own configuration.

    The defaults for steps, batch size, optimizer and flips are those of the Pose Prior Learner (Wang, Han, Zhang,
    ICLR 2026, arXiv 2410.03858); `train_defaults` of a model's options holds what its publication does otherwise.

    Raises:
        TypeError: an option of the wrong type.
        ValueError: an option out of bounds; the sentence names it.
    """

    steps: int = option(20_000, "optimizer steps in all", low=1, everyday=True)
    batch_size: int = option(64, "images a step, shared out over the processes", low=1, everyday=True)
    lr: float = option(1e-4, "learning rate of AdamW", positive=True, everyday=True)
    weight_decay: float = option(0.0, "decoupled weight decay of AdamW; at 0 it is Adam")
    betas: tuple[float, float] = option((0.9, 0.999), "decay rates of Adam's two moments")
    warmup_steps: int = option(0, "steps over which the learning rate rises linearly from near zero")
    schedule: str = option(
        "constant",
        "constant, or cosine: the learning rate falls to zero at the last step",
        choices=("constant", "cosine"),
    )
    clip_norm: float = option(0.0, "gradients of a longer norm are scaled down to it; 0 leaves them alone")
    flip: bool = option(True, "mirror half of the images left to right", everyday=True)
    reference: str = option(
        "image",
        "what a reconstruction takes its appearance from: image = the image itself, with blocks dropped; video = "
        "another frame of the same clip",
        choices=("image", "video"),
        everyday=True,
    )
    every: int = option(1, "train on each n-th frame of every clip", low=1, everyday=True)
    frames: int = option(0, "train on at most so many frames of each video; 0 takes all", everyday=True)
    frames_by: str = option(
        "spread",
        "how they are chosen: spread = evenly over time; difference = evenly over what changes, so that still "
        "stretches do not dominate",
        choices=WAYS,
        everyday=True,
    )
    fit: str = option(
        "squash",
        "how whole images become squares: squash = stretched; pad = laid on grey; crop = the square in the middle",
        choices=FITS,
        everyday=True,
    )
    crop: str | None = option(
        None,
        "see a square around the animal alone: moving = around what moves before a static camera; or a file of boxes, "
        "CSV or COCO",
        everyday=True,
    )
    crop_margin: float = option(0.25, "share of a box's side that is added to it", high=10)
    crop_turn: bool = option(False, "turn the boxes of what moves along the body's axis")
    masks: str | None = option(
        None,
        "where the subject is, for links and keypoints to be drawn to (by an extension, as the preset small): moving = "
        "what moves before a background that images agree on; auto = that, where there is any; or a folder of "
        "masks, white there, each of the name of its image",
        everyday=True,
    )
    labels: str | None = option(
        None,
        "a few labelled images: the first keypoints are then their joints, by name (by an extension): a project or "
        "folder with labels, or a label file of images in DATA",
        everyday=True,
    )
    individual: str | None = option(None, "whose joints these are, where labels have several individuals")
    seed: int = option(0, "seed of weights, masks, data order, flips and chosen frames", everyday=True)
    workers: int = option(
        2, "processes that load images; 0 loads in the training process, as where cache auto keeps them"
    )
    cache: str = option(
        "auto",
        "where to keep the resized images: memory, of every process; disk, a file for all processes and runs; auto = "
        "as they come in memory, by the training process itself, where all are at most 512 MB (43,000 of 64 x 64)",
        choices=CACHES,
    )
    max_bad_share: float = option(0.1, "share of unreadable images that are skipped; more stop the run", high=1)
    max_pixels: int = option(MAX_PIXELS, "pixels of an image or frame that may be decoded at once", low=64)
    precision: str = option(
        "no", "mixed precision; no is float32 throughout", choices=("no", "bf16", "fp16"), everyday=True
    )
    device: str = option(
        "auto", "auto, the accelerator that torch finds; cpu; or another device, as cuda:1, mps, xpu", everyday=True
    )
    channels_last: bool = option(False, "keep images and convolution weights in channels-last layout")
    accumulate: int = option(
        1, "parts that a process takes its images of a step in, one after another, where they do not fit at once", low=1
    )
    cuda_graph: str = option(
        "auto",
        "replay steps from a CUDA graph, for small models on one GPU, which wait for Python at each step: auto = where "
        "a step has up to 2^18 pixels (64 images of 64 x 64) and the model is one of this package; true; false",
        choices=("auto", "true", "false"),
    )
    sync_batchnorm: bool = option(False, "BatchNorm over the images of all processes, not of each by itself")
    timeout: int = option(
        1800, "seconds that several processes wait for each other, also while one reads the images or draws", low=1
    )
    threads: int = option(0, "CPU threads of the training process; 0 leaves the choice to torch")
    log_every: int = option(20, "steps between records in log.jsonl and the tracker", low=1)
    checkpoint_every: int = option(1000, "steps between checkpoints", low=1)
    keep_checkpoints: int = option(3, "newest checkpoints that are kept", low=1)
    picture_every: int = option(1000, "steps between refreshed pictures; 0 draws none")
    tracker: str = option(
        "tensorboard",
        "what else is told what is logged: tensorboard, wandb, mlflow or another of accelerate's trackers; or none",
        everyday=True,
    )
    tensorboard: InitVar[bool | None] = None  # of before `tracker`

    def __post_init__(self, tensorboard: bool | None) -> None:
        before = {"cache": self.cache, "cuda_graph": plain(self.cuda_graph)}
        before |= {} if tensorboard is None else {"tensorboard": tensorboard}
        for name, value in migration.loop(before).items():
            setattr(self, name, value)
        check("TrainConfig", self)
        if self.crop_turn and self.crop != MOVING:
            raise ValueError(f"TrainConfig: crop_turn needs crop {MOVING}, got crop {self.crop}")
        if self.individual is not None and self.labels is None:
            raise ValueError(f"TrainConfig: individual needs labels, got individual {self.individual} without")
        if self.cuda_graph == "true" and self.precision == "fp16":
            raise ValueError("TrainConfig: cuda_graph needs precision no or bf16, got fp16")
        if self.cuda_graph == "true" and self.accumulate > 1:
            raise ValueError(f"TrainConfig: cuda_graph takes a step's images at once, got accumulate {self.accumulate}")
        betas: Any = self.betas
        betas = betas.tolist() if hasattr(betas, "tolist") else betas  # an array's
        if isinstance(betas, tuple | list):
            self.betas = tuple(plain(beta) for beta in betas)
        pair = isinstance(self.betas, tuple) and len(self.betas) == 2
        if not pair or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"TrainConfig: betas must be two numbers of at least 0 and below 1, got {self.betas!r}")

    @property
    def framing(self) -> Framing:
        """What the model sees of each image."""
        return Framing(self.fit, self.crop, self.crop_margin, self.crop_turn)

    def learning_rate(self, step: int) -> float:
        """Learning rate of the step that follows `step` finished ones: linear warm-up, then constant or cosine."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / (self.warmup_steps + 1)
        if self.schedule == "constant":
            return self.lr
        share = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def check_keys(given: Iterable[str], valid: Iterable[str], where: str) -> None:
    """Raise a ValueError that names the first unknown key and the valid key nearest to it."""
    valid = list(valid)
    for key in given:
        if key not in valid:
            known = f"; valid keys are {', '.join(valid)}"
            raise ValueError(f"{where}: unknown key {key!r}{hint(key, valid, otherwise=known)}")


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file with the optional keys architecture, data (text), model and train (mappings of options).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no such YAML mapping, or holds an unknown key; the sentence names file and key.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"config file {path} does not exist")
    try:
        config = read_yaml(Path(path)) or {}
    except ValueError as error:
        raise ValueError(f"config file {path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"config file {path} must hold the mappings model and train, got {type(config).__name__}")
    check_keys(config, SECTIONS, f"config file {path}")
    for key in ("architecture", "data"):
        if not isinstance(config.get(key), str | None):
            raise ValueError(f"config file {path}: {key} must be text, got {type(config[key]).__name__}")
    return config


def check_options(path: str | os.PathLike[str], config: dict[str, Any], architecture: str) -> dict[str, Any]:
    """Check what `read_config` gave for a model of this architecture, a key of `CONFIGS`, or of its extension.

    Returns:
        The same with its options as they are meant, see `as_meant`.

    Raises:
        ValueError: another architecture, no mapping where there should be one, or unknown options; the sentence names
            file and key.
    """
    named = config.get("architecture", architecture)
    registry.check(named, f"config file {path}")
    if migration.extension(named) != migration.extension(architecture):
        raise ValueError(f"config file {path} is for the architecture {named}, but {architecture} is asked for")
    valid = {"model": CONFIGS[migration.extension(architecture)], "train": TrainConfig}
    for section, options in valid.items():
        given = {} if config.get(section) is None else config[section]  # as where all its lines are comments
        if not isinstance(given, dict):
            raise ValueError(f"config file {path}: {section} must be a mapping of options, got {given!r}")
        given = (migration.loop if section == "train" else migration.renamed)(given)
        check_keys(given, [field.name for field in fields(options)], f"config file {path}, section {section}")
        config = {name: value for name, value in config.items() if name != section}
        config |= {section: as_meant(options, given)} if given else {}
    return config


def write_config(
    path: Path, architecture: str, data: str, model_config: dict[str, Any], train_config: TrainConfig
) -> None:
    """Write a run's options so that `--config` and `--resume` can read them again."""
    import yaml

    options = asdict(train_config) | {"betas": list(train_config.betas)}
    sections = {"architecture": architecture, "data": readable(data), "model": model_config, "train": options}
    write_text(path, yaml.safe_dump(sections, sort_keys=False))
