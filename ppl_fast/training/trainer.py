"""The training loop: images in, a run directory out.

Everything random in step t (masks, and what else the model draws) comes from a generator seeded by (seed, t, process),
and the data order is a function of (seed, t), so that a resumed run repeats the straight one without saved generators.
"""

import math
import os
import shlex
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from tqdm import tqdm

from ppl_fast._console import no_bar, say
from ppl_fast.data import training_loader
from ppl_fast.data.image_set import ImageSet
from ppl_fast.models import MODELS, KeypointModel
from ppl_fast.models.blank import check_trainable
from ppl_fast.options import migration, registry
from ppl_fast.training.checkpoint import list_checkpoints, load_optimizer, save_checkpoint
from ppl_fast.training.config import TrainConfig, write_config
from ppl_fast.training.logging import RunLog, tensorboard_takes
from ppl_fast.training.pace import Pace
from ppl_fast.training.pictures import check_drawing, draw_pictures, keep_boxes
from ppl_fast.training.run import blaming, claimed, fingerprint, is_run, restored, starting_point
from ppl_fast.training.setup import new_accelerator, open_images
from ppl_fast.training.signals import StopSignals, TrainingInterrupted

POSE_IMAGES = 15
FRESH: dict[str, Any] = {"step": 0, "seconds": 0.0, "scaler": None}


def train(
    model_config: dict[str, Any],
    train_config: TrainConfig,
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    resume: bool | Literal["auto"] = False,
    architecture: str = "ppl",
) -> KeypointModel:
    """Train a model on images and leave everything in a run directory.

    Args:
        model_config: options of the model.
        train_config: options of the loop.
        data: folder of images, searched recursively, or a published data set as `ppl_fast.data.open_set` takes it;
            labels are not read. With reference "video", a folder of clips (see `ppl_fast.data.ClipFolder`).
        out: run directory, new or empty unless `resume`, of one process at a time. It receives config.yaml, model/ (the
            latest), checkpoints/, log.jsonl, prior.jsonl, tensorboard/, and the pictures training.png, poses.png and,
            of a model with a prior, prior.png; where it sees boxes around an animal, boxes.csv and boxes.png.
        resume: continue the run in `out` from its newest checkpoint, on the CPU bit for bit; begin where there is none
            yet. "auto" is the same.
        architecture: a name in `ppl_fast.models.MODELS`, such as "ppl" or "autolink". Options of its extension may be
            given under it as well; the extension is then trained, and recorded.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        TypeError, ValueError, OSError: unusable options, images, run directory or checkpoint, before any work starts;
            OSError also where a checkpoint cannot be written.
        FloatingPointError: the loss is no longer finite.
        TrainingInterrupted: SIGINT or SIGTERM came; a checkpoint was saved, the message says how to resume.
    """
    run = Path(out)
    registry.check(architecture, "train")
    architecture, model_config = migration.resolve(architecture, model_config)
    model_class = MODELS[architecture]
    if train_config.picture_every:
        check_drawing()
    begun, resume = is_run(run), bool(resume)
    checkpoint = starting_point(run, resume)
    if train_config.threads:
        torch.set_num_threads(train_config.threads)
    accelerator = new_accelerator(train_config)
    torch.manual_seed(train_config.seed)
    if checkpoint is None:
        check_trainable(model_class, model_config, "train")
        state, model = FRESH, model_class(**model_config)
    else:
        state, model = restored(checkpoint, model_config, model_class)
    try:
        dataset = open_images(data, model.config["image_size"], train_config)
    except (ValueError, OSError) as error:
        if begun or not resume:
            raise
        raise ValueError(f"train: cannot resume {run}: it is no run directory, and none can begin: {error}") from error
    model.load_perceptual()
    trainer = Trainer(train_config, model, dataset, run, state, accelerator)
    tell = say if accelerator.is_main_process else lambda text: None
    tell(dataset.report())
    tell(f"training on {accelerator.device}, reconstruction loss: {model.loss_name()}")
    if resume and not begun:
        tell(f"no run in {run} yet: it begins")
    if train_config.tensorboard and not tensorboard_takes(run):
        tell(f"note: TensorBoard takes no names that are not UTF-8, so {run} gets no events of it")
    if checkpoint:
        with blaming(checkpoint):
            load_optimizer(checkpoint, model, trainer.optimizer)
        tell(f"resuming at step {trainer.step} from {checkpoint}")
        if state["images"] != fingerprint(dataset.paths):
            tell(f"note: {data} no longer holds the images the run began with, so their order changes")
    if trainer.step >= train_config.steps:
        tell(f"all {train_config.steps} steps are done; a larger number of steps goes on from here")
        return model.eval()
    main = accelerator.is_main_process
    with claimed(run, resume, checkpoint) if main else nullcontext():
        if main:
            write_config(run / "config.yaml", model.architecture, str(data), model.config, train_config)
            keep_boxes(run, dataset, draw=train_config.picture_every > 0)
        trainer.fit(resume_command=shlex.join(["ppl-fast", "train", str(data), "--out", str(run), "--resume"]))
    tell(f"trained to step {trainer.step}; model, log and pictures are in {run}")
    trained: KeypointModel = accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    return trained.eval()


class Trainer:
    """One run in progress: model, optimizer and step, and the loop that advances them.

    Only the main process has a log, and writes files.

    Args:
        config: options of the loop.
        model: as built or restored, on the CPU.
        dataset: map-style, `dataset[i]` a float32 tensor (3, S, S) in [-1, 1].
        run: existing run directory.
        state: "step", the finished steps, and "seconds" of training behind them.
        accelerator: decides device, precision and processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: KeypointModel,
        dataset: ImageSet,
        run: Path,
        state: dict[str, Any],
        accelerator: Accelerator,
    ):
        self.config, self.dataset, self.run, self.accelerator = config, dataset, run, accelerator
        self.step, self.seconds = state["step"], state["seconds"]
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.bare_model: KeypointModel = model.to(  # type: ignore[call-overload]  # torch's leave the format out
            accelerator.device, memory_format=self.layout
        )
        optimizer = torch.optim.AdamW(
            self.bare_model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.model, self.optimizer = accelerator.prepare(self.bare_model, optimizer)
        if state["scaler"] and accelerator.scaler:
            accelerator.scaler.load_state_dict(state["scaler"])
        self._totals: dict[str, torch.Tensor] = {}  # sums of the losses since the last record
        self._recorded = self.step
        self._pace = Pace()

    def fit(self, resume_command: str) -> None:
        """Run the steps that are left; log, save and draw on the way."""
        config, accelerator = self.config, self.accelerator
        loader = training_loader(
            self.dataset, config.batch_size, config.seed, self.step, config.workers, config.flip,
            rank=accelerator.process_index, world_size=accelerator.num_processes, reference=config.reference,
        )  # fmt: skip
        hide = not accelerator.is_main_process
        self.log = None if hide else RunLog(self.run, self.step, config.tensorboard)
        self._options = (self.run / "config.yaml").read_bytes() if is_run(self.run) else None
        hidden = hide or bool(no_bar())
        with StopSignals() as stop, tqdm(total=config.steps, initial=self.step, unit="step", disable=hidden) as bar:
            try:
                self._loop(loader, bar, stop)
            finally:
                if self.log:
                    self.log.close()
        self.accelerator.wait_for_everyone()
        if self.step < config.steps:
            newest = list_checkpoints(self.run)[-1]
            raise TrainingInterrupted(f"stopped at step {self.step}, saved {newest}; resume with: {resume_command}")

    def _loop(self, loader: DataLoader[Any], bar: tqdm, stop: StopSignals) -> None:
        config = self.config
        self.model.train()  # a restored one is in eval mode
        if self.log and not self.log.priors:
            self._log_prior(self.log)
        batches = iter(loader)
        self._clock = time.perf_counter()
        while self.step < config.steps:
            self._advance(next(batches))
            bar.update()
            last = self._anywhere(bool(stop.received)) or self.step == config.steps
            save = last or self.step % config.checkpoint_every == 0
            draw = config.picture_every > 0 and (last or self.step % config.picture_every == 0)
            if save or draw or self.step % config.log_every == 0:
                record = self._record()
                bar.set_postfix_str(f"loss={record['loss']:.4g}, {record['images_per_second']:.1f} images/s")
                if self.log:
                    self._write(self.log, record, save, draw)
                self._clock = time.perf_counter()
            if last:
                return

    def _advance(self, batch: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> None:
        """One optimizer step on this process's share of a batch: images (B, 3, S, S), alone or with references."""
        config, accelerator = self.config, self.accelerator
        key = [config.seed, self.step, accelerator.process_index]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(self.step)
        self.bare_model.progressed(self.step / config.steps)
        tensors = batch if isinstance(batch, tuple) else (batch,)
        out = self.model(*(t.to(accelerator.device, non_blocking=True, memory_format=self.layout) for t in tensors))
        accelerator.backward(out.loss)
        if config.clip_norm:
            accelerator.clip_grad_norm_(self.bare_model.parameters(), config.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        for name, value in {"loss": out.loss, **out.losses}.items():
            self._totals[name] = self._totals.get(name, 0) + value.detach().float()
        self.step += 1

    def _record(self) -> dict[str, Any]:
        """Means of the losses since the last record, over all processes, and what else is logged."""
        steps = self.step - self._recorded
        totals = self.accelerator.reduce(torch.stack(list(self._totals.values())), "mean")
        means = dict(zip(self._totals, (totals / steps).tolist(), strict=True))
        elapsed = time.perf_counter() - self._clock
        self.seconds += elapsed
        if (note := self._pace.note(steps, elapsed)) and self.log:
            tqdm.write(note)
        self._totals, self._recorded = {}, self.step
        loss = means.pop("loss")
        if not math.isfinite(loss):
            kept = list_checkpoints(self.run)
            newest = f"the newest checkpoint is {kept[-1]}" if kept else "no checkpoint was saved yet"
            raise FloatingPointError(f"training diverged: the loss is {loss} at step {self.step}; {newest}")
        return {
            "step": self.step,
            "loss": loss,
            "losses": means,
            "learning_rate": self.config.learning_rate(self.step - 1),
            "images_per_second": round(steps * self.config.batch_size / elapsed, 2),
            "seconds": round(self.seconds, 3),
            **self.bare_model.progress(),
        }

    def _write(self, log: RunLog, record: dict[str, Any], save: bool, draw: bool) -> None:
        """Log the record, keep the prior where it is due, save a checkpoint, refresh the pictures."""
        try:
            if self._options is not None and not is_run(self.run):  # moved or removed since
                self.run.mkdir(parents=True, exist_ok=True)
                (self.run / "config.yaml").write_bytes(self._options)
                log.restore(self.run)
                say(f"note: {self.run} was moved or removed; it is written anew")
            log.scalars(record)
            if draw or log.prior_due(self.step):
                self._log_prior(log)
            if save:
                self._save()
            if draw:
                draw_pictures(self.run, self.bare_model, self._shown_images(), log)
        except (OSError, SafetensorError) as error:
            kept = list_checkpoints(self.run)
            newest = f"{kept[-1]} is kept, --resume continues from it" if kept else "no checkpoint was saved yet"
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"could not write to {self.run} at step {self.step}: {reason}; {newest}") from error

    def _log_prior(self, log: RunLog) -> None:
        if (prior := self.bare_model.prior()) is not None:
            log.prior(self.step, prior)

    def _save(self) -> None:
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "images": fingerprint(self.dataset.paths),
            "scaler": scaler.state_dict() if scaler else None,
        }
        save_checkpoint(self.run, self.bare_model, self.optimizer, state, self.config.keep_checkpoints)

    def _anywhere(self, flag: bool) -> bool:
        """Whether the flag is set in any process: all must stop after the same step."""
        if self.accelerator.num_processes == 1:
            return flag
        return bool(self.accelerator.reduce(torch.tensor(float(flag), device=self.accelerator.device), "sum"))

    def _shown_images(self) -> torch.Tensor:
        """The same images in every refresh, spread evenly over the folder."""
        chosen = np.linspace(0, len(self.dataset) - 1, min(POSE_IMAGES, len(self.dataset))).astype(int)
        return torch.stack([self.dataset[int(i)] for i in chosen]).to(self.accelerator.device)
