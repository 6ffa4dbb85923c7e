"""From images and options to a run directory: what `train` checks, begins and resumes, before and after the loop."""

import os
import shlex
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker

from ppl_fast._console import say
from ppl_fast.data.image_set import ImageSet
from ppl_fast.models import MODELS, KeypointModel
from ppl_fast.models.blank import check_trainable
from ppl_fast.options import migration, registry
from ppl_fast.training.checkpoint import complete, load_optimizer
from ppl_fast.training.config import OF_THE_MACHINE, TrainConfig, write_config
from ppl_fast.training.joints import TrainingLabels, teach
from ppl_fast.training.pictures import check_drawing, keep_boxes, keep_subjects
from ppl_fast.training.processes import check_alike, noticing_loss, once_a_machine
from ppl_fast.training.run import blaming, claimed, fingerprint, is_run, restored, starting_point
from ppl_fast.training.setup import new_accelerator, open_images, subject_masks
from ppl_fast.training.trackers import begin_tracker, check_tracker, tracker_takes
from ppl_fast.training.trainer import Trainer
from ppl_fast.training.warm_start import warm_start

FRESH: dict[str, Any] = {"step": 0, "seconds": 0.0, "scaler": None}


def train(
    model_config: dict[str, Any],
    train_config: TrainConfig,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    resume: bool | Literal["auto"] = False,
    architecture: str = "ppl",
    start: str | os.PathLike[str] | None = None,
) -> KeypointModel:
    """Train a model on images and leave everything in a run directory.

    Started by torchrun, several processes train one model together (docs/scaling.md).

    Args:
        model_config: options of the model.
        train_config: options of the loop.
        data: folder of images, searched recursively, or a published data set as `ppl_fast.data.open_set` takes it;
            its labels are not read, but those that `train_config.labels` names, by an extension. With reference
            "video", a folder of clips (see `ppl_fast.data.ClipFolder`).
        out: run directory, new or empty unless `resume`, of one process at a time. It receives config.yaml, model/ (the
            latest), checkpoints/, log.jsonl, prior.jsonl, what a tracker writes, and the pictures training.png,
            poses.png and, of a model with a prior, prior.png; where it sees boxes around an animal, boxes.csv and
            boxes.png; with masks, masks.png.
        resume: continue the run in `out` from its newest checkpoint, on the CPU bit for bit; begin where there is none
            yet. "auto" is the same.
        architecture: a name in `ppl_fast.models.MODELS`, such as "ppl" or "autolink". Options of its extension may be
            given under it as well; the extension is then trained, and recorded.
        start: a run, checkpoint or saved model whose weights to begin with, as far as they fit; what is new is said.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        TypeError, ValueError, OSError: unusable options, images, run directory or checkpoint, before any work starts;
            OSError also where a checkpoint cannot be written.
        ConnectionError: another of several processes ended, or did not answer in time.
        FloatingPointError: the loss is no longer finite.
        TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was saved, the message says how to resume.
    """
    run = Path(out)
    registry.check(architecture, "train")
    architecture, model_config = migration.resolve(architecture, model_config)
    if train_config.labels is not None:
        architecture = migration.extension(architecture)
    model_class = MODELS[architecture]
    if train_config.picture_every:
        check_drawing()
    check_tracker(train_config.tracker)
    begun, resume = is_run(run), bool(resume)
    checkpoint = starting_point(run, resume)
    if train_config.threads:
        torch.set_num_threads(train_config.threads)
    accelerator = new_accelerator(train_config)
    torch.manual_seed(train_config.seed)
    with noticing_loss(train_config.timeout, run):
        if checkpoint is None:
            check_trainable(model_class, model_config, "train")
            state, model = FRESH, model_class(**model_config)
        else:
            state, model = restored(checkpoint, model_config, model_class)
        size = model.config["image_size"]
        dataset = once_a_machine(
            lambda: _images(data, size, train_config, run, resume and not begun), accelerator, train_config.timeout
        )
        check_alike(_facts(state, model, train_config, dataset))
        model.load_perceptual()
        figures, of_masks = subject_masks(train_config, model, dataset)
        labels = teach(train_config, data, model, run, accelerator.device)
        begins = "" if checkpoint is not None else _begun(model, start, labels)
        trainer = Trainer(train_config, model, dataset, run, state, accelerator, figures)
        tell = say if accelerator.is_main_process else lambda text: None
        reports = (dataset.report(), of_masks, labels.report(model) if labels else "", begins)
        tell("\n".join(each for each in reports if each))
        tell(f"training on {_devices_of(accelerator)}, reconstruction loss: {model.loss_name()}")
        if resume and not begun:
            tell(f"no run in {run} yet: it begins")
        if not tracker_takes(train_config.tracker, run):
            tell(f"note: TensorBoard takes no names that are not UTF-8, so {run} gets no events of it")
        if checkpoint:
            tell(_gone_on(trainer, checkpoint, state["images"], data))
        main = accelerator.is_main_process
        if trainer.step >= train_config.steps:
            tell(f"all {train_config.steps} steps are done; a larger number of steps goes on from here")
            return _completed(trainer, run, resume, checkpoint if main else None)
        with claimed(run, resume, checkpoint) if main else nullcontext():
            tracker = _begin(trainer, str(data), labels) if main else None
            again = shlex.join(["ppl-fast", "train", str(data), "--out", str(run), "--resume"])
            trainer.fit(again, tracker)
        tell(f"trained to step {trainer.step}; model, log and pictures are in {run}")
        return trainer.trained()


def _completed(trainer: Trainer, run: Path, resume: bool, checkpoint: Path | None) -> KeypointModel:
    """The model of a run that has no steps left, after its last save, if that was cut short, has been completed."""
    if checkpoint is not None:
        with claimed(run, resume, checkpoint):
            complete(run, checkpoint, trainer.bare_model)
    return trainer.trained()


def _gone_on(trainer: Trainer, checkpoint: Path, images: str, data: str | os.PathLike[str]) -> str:
    """Restore the optimizer, and what is told of it; `images` is the digest of those that the run began with."""
    with blaming(checkpoint):
        load_optimizer(checkpoint, trainer.bare_model, trainer.optimizer)
    told = f"resuming at step {trainer.step} from {checkpoint}"
    if images != fingerprint(trainer.dataset.paths):
        told += f"\nnote: {data} no longer holds the images the run began with, so their order changes"
    return told


def _begun(model: KeypointModel, start: str | os.PathLike[str] | None, labels: TrainingLabels | None) -> str:
    """What `warm_start` tells, or nothing without a model to begin with, which a held prior needs."""
    if start is not None:
        told = warm_start(model, start)
        return told if labels is None else f"{told}\n{labels.match(model)}"
    if getattr(model.settings, "hold_prior", False):
        raise ValueError("train: hold_prior holds what a model has learned, and needs one to begin with: --from")
    return ""


def _images(data: str | os.PathLike[str], image_size: int, config: TrainConfig, run: Path, expected: bool) -> ImageSet:
    """The images to train on; where a run to resume was `expected`, their absence is told together with its."""
    try:
        return open_images(data, image_size, config)
    except (ValueError, OSError) as error:
        if not expected:
            raise
        raise ValueError(f"train: cannot resume {run}: it is no run directory, and none can begin: {error}") from error


def _begin(trainer: Trainer, data: str, labels: TrainingLabels | None) -> GeneralTracker | None:
    """What lies in a run before its first step; gives the tracker, which may refuse before anything is written."""
    config, model, run = trainer.config, trainer.bare_model, trainer.run
    tracker = begin_tracker(config.tracker, run, trainer.step, _options(model, config))
    write_config(run / "config.yaml", model.architecture, data, model.config, config)
    keep_boxes(run, trainer.dataset, draw=config.picture_every > 0)
    if trainer.figures is not None and config.picture_every:
        keep_subjects(run, trainer.dataset, trainer.figures)
    if labels is not None:
        labels.keep(run, model)
    return tracker


def _facts(state: dict[str, Any], model: KeypointModel, config: TrainConfig, dataset: ImageSet) -> dict[str, Any]:
    """What all processes must have in common, by name; options of the machine may differ."""
    machine = {f"model.{name}" for name in model.Config.machine} | {f"train.{name}" for name in OF_THE_MACHINE}
    options = {f"option {name}": value for name, value in _options(model, config).items() if name not in machine}
    images = f"{len(dataset)} of digest {fingerprint(dataset.paths)}"
    return {"step": state["step"], "images": images, "architecture": model.architecture, **options}


def _options(model: KeypointModel, config: TrainConfig) -> dict[str, Any]:
    """All options by name, with the section that a config file has for each."""
    model_options = {f"model.{name}": value for name, value in model.config.items()}
    return model_options | {f"train.{name}": value for name, value in asdict(config).items()}


def _devices_of(accelerator: Accelerator) -> str:
    """On what, and in how many processes, is trained; where a launcher started each by itself, this alone tells."""
    count = accelerator.num_processes
    return f"{accelerator.device} in one process" if count == 1 else f"{accelerator.device.type} in {count} processes"
