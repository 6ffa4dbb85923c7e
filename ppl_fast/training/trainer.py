"""The training loop: steps, and what of them is logged, saved and drawn.

Everything random in step t (masks, and what else the model draws) comes from a generator seeded by (seed, t, process),
and the data order is a function of (seed, t), so that a resumed run repeats the straight one without saved generators.
"""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from tqdm import tqdm

from ppl_fast import _allocation, _devices
from ppl_fast._console import between_bars, no_bar, say
from ppl_fast.data import training_loader
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.loading import Pictures
from ppl_fast.models import KeypointModel
from ppl_fast.training.captured import Batch, CapturedStep, Losses, replays
from ppl_fast.training.checkpoint import checkpoint_path, list_checkpoints, newest, save_checkpoint
from ppl_fast.training.config import TrainConfig
from ppl_fast.training.forecast import Forecast
from ppl_fast.training.logging import RunLog
from ppl_fast.training.pace import Pace
from ppl_fast.training.pictures import draw_pictures, shown_images
from ppl_fast.training.processes import anywhere
from ppl_fast.training.run import described, is_run
from ppl_fast.training.signals import StopSignals, TrainingInterrupted
from ppl_fast.training.sync_batchnorm import synchronize

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker


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
        figures: where the subject of each image is.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: KeypointModel,
        dataset: ImageSet,
        run: Path,
        state: dict[str, Any],
        accelerator: Accelerator,
        figures: Pictures | None = None,
    ):
        self.config, self.dataset, self.run, self.accelerator = config, dataset, run, accelerator
        self.figures = figures
        self.step, self.seconds = state["step"], state["seconds"]
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.bare_model: KeypointModel = model.to(  # type: ignore[call-overload]  # torch's leave the format out
            accelerator.device, memory_format=self.layout
        )
        optimizer = torch.optim.AdamW(
            self.bare_model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        if config.sync_batchnorm and accelerator.num_processes > 1:
            synchronize(self.bare_model)
        self.model, self.optimizer = accelerator.prepare(self.bare_model, optimizer)
        if state["scaler"] and accelerator.scaler:
            accelerator.scaler.load_state_dict(state["scaler"])
        self._captured: CapturedStep | None = None
        if replays(config, self.bare_model, accelerator):
            self._captured = CapturedStep(self._train_on, self.optimizer, accelerator.device, self.layout)
            self.bare_model.captured = True
        self._totals: dict[str, torch.Tensor] = {}  # sums of the losses since the last record
        self._recorded = self.step
        self._pace = Pace()

    def trained(self) -> KeypointModel:
        """The model as it is now, without what wraps it in training, in evaluation mode."""
        model: KeypointModel = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        synchronize(model, on=False)
        if self._captured:
            self._captured.end()
            model.captured = False
        return model.eval()

    def fit(self, resume_command: str, tracker: "GeneralTracker | None" = None) -> None:
        """Run the steps that are left; log, save and draw on the way.

        Args:
            resume_command: which goes on after an interruption, for its message.
            tracker: to tell what is logged; only the main process has one.
        """
        config, accelerator = self.config, self.accelerator
        kept = getattr(self.dataset, "kept", None) is not None  # by this process; others would each keep their own
        workers = 0 if kept else min(config.workers, _devices.cpus())
        loader = training_loader(
            self.dataset, config.batch_size, config.seed, self.step, workers, config.flip,
            rank=accelerator.process_index, world_size=accelerator.num_processes, reference=config.reference,
            figures=self.figures,
        )  # fmt: skip
        hide = not accelerator.is_main_process
        self.log = None if hide else RunLog(self.run, self.step, tracker)
        self._options = (self.run / "config.yaml").read_bytes() if is_run(self.run) else None
        hidden = hide or bool(no_bar())
        if accelerator.device.type == "cpu":
            _allocation.keep_freed()
        with (
            StopSignals(accelerator.num_processes > 1) as stop,
            tqdm(total=config.steps, initial=self.step, unit="step", disable=hidden, mininterval=between_bars()) as bar,
        ):
            try:
                self._loop(loader, bar, stop)
            finally:
                if self.log:
                    self.log.close()
        self.accelerator.wait_for_everyone()
        if self.step < config.steps:
            saved = checkpoint_path(self.run, self.step)  # by the main process; others need not see it
            raise TrainingInterrupted(f"stopped at step {self.step}, saved {saved}; resume with: {resume_command}")

    def _loop(self, loader: DataLoader[Any], bar: tqdm, stop: StopSignals) -> None:
        config, accelerator = self.config, self.accelerator
        self.model.train()  # a restored one is in eval mode
        if self.log and not self.log.priors:
            self._log_prior(self.log)
        batches, forecast = iter(loader), Forecast()
        self._clock = time.perf_counter()
        while self.step < config.steps:
            self._advance(next(batches))
            bar.update()
            said = forecast.after_step(config.steps - self.step) if accelerator.device.type == "cpu" else None
            if said and accelerator.is_main_process:
                say(said)
            last = anywhere(bool(stop.received), accelerator) or self.step == config.steps
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

    def _advance(self, batch: Any) -> None:
        """One optimizer step on this process's share of a batch, as `training_loader` gives it."""
        config, accelerator = self.config, self.accelerator
        key = [config.seed, self.step, accelerator.process_index]
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        self._set_rate(config.learning_rate(self.step))
        self.bare_model.progressed(self.step / config.steps)
        if not isinstance(batch, dict):
            batch = dict(zip(("images", "reference"), batch if isinstance(batch, tuple) else (batch,), strict=False))
        if self._captured:
            self._count(self._captured(batch, self.bare_model.phase()))
        else:
            parts = config.accumulate
            for first in range(parts):  # each takes every `parts`-th image, as each of several processes does
                part = {
                    name: t[first::parts].to(accelerator.device, non_blocking=True, memory_format=self.layout)
                    for name, t in batch.items()
                }
                self._count(self._train_on(part), parts)
        self.step += 1

    def _set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):  # which a CUDA graph reads
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _train_on(self, batch: Batch) -> Losses:
        """Forward and backward over a batch on the device, and at the last part of a step the optimizer's."""
        config, accelerator = self.config, self.accelerator
        with accelerator.accumulate(self.model):
            out = self.model(**batch)
            accelerator.backward(out.loss)
            if config.clip_norm and accelerator.sync_gradients:
                accelerator.clip_grad_norm_(self.bare_model.parameters(), config.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        values = {"loss": out.loss, **out.losses}
        return tuple(values), torch.stack([value.detach().float() for value in values.values()])

    def _count(self, losses: Losses, parts: int = 1) -> None:
        """Add the losses of one of so many parts of a step to the sums."""
        names, values = losses
        for name, value in zip(names, (values / parts).unbind(), strict=True):
            self._totals[name] = self._totals.get(name, 0) + value

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
            left = f"the newest checkpoint is {kept[-1]}" if kept else "no checkpoint was saved yet"
            raise FloatingPointError(f"training diverged: the loss is {loss} at step {self.step}; {left}")
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
                draw_pictures(self.run, self.bare_model, shown_images(self.dataset).to(self.accelerator.device), log)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OSError(f"could not write to {self.run} at step {self.step}: {reason}; {newest(self.run)}") from error

    def _log_prior(self, log: RunLog) -> None:
        if (prior := self.bare_model.prior()) is not None:
            log.prior(self.step, prior)

    def _save(self) -> None:
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "seconds": self.seconds,
            **described(self.dataset),
            "scaler": scaler.state_dict() if scaler else None,
        }
        save_checkpoint(self.run, self.bare_model, self.optimizer, state, self.config.keep_checkpoints)
