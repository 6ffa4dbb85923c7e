"""Steps of training replayed from a CUDA graph: for small models, whose kernels end before Python has named the next.

A graph repeats the kernels of one step, with the numbers that Python gave them then. So what changes from step to step
lies in tensors that stay where they are: the batch and the learning rate. What is drawn by chance follows torch's seed
at a replay as it does otherwise. The rest of what Python decides is the model's `phase`, and a graph serves one phase.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ppl_fast._cuda_graphs import Recorder
from ppl_fast.models.perceptual import SIZE

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ppl_fast.models import KeypointModel
    from ppl_fast.training.config import TrainConfig

# Pixels of a step, where VGG sees the images its own: a GPU works 5 ms on 2^15, which take Python 40 (docs/gpu.md).
FEW = 1 << 18
WARM_UP = 3  # eager steps of a phase before its capture, after which optimizer, libraries and kernels are all set up

Batch = dict[str, Tensor]
Losses = tuple[tuple[str, ...], Tensor]  # names, and a vector with the value of each


def replays(config: TrainConfig, model: KeypointModel, accelerator: Accelerator) -> bool:
    """Whether steps are to be replayed: as the option says, or where that pays and is known to be right."""
    if config.cuda_graph != "auto":
        return config.cuda_graph == "true"
    alone = accelerator.device.type == "cuda" and accelerator.num_processes == 1
    parts = "terms" in vars(model) or getattr(model.settings, "trunk", None)  # of the caller
    ours = type(model).__module__.startswith("ppl_fast.") and not parts
    settings: Any = model.settings
    seen_by_vgg = getattr(settings, "reconstruction_loss", None) == "perceptual"
    side = max(settings.image_size, SIZE if seen_by_vgg else 0)
    small = config.batch_size * side**2 <= FEW
    return alone and ours and small and config.precision != "fp16" and config.accumulate == 1


class CapturedStep:
    """A step that is taken eagerly, or replayed once its phase lasts.

    Args:
        step: trains on a batch, leaves no gradients behind, and gives what is logged. Of what changes it reads nothing
            but the batch, tensors that stay where they are, and what the phase tells.
        optimizer: an AdamW, whose learning rates become tensors, to be filled.
        device: a GPU.
        layout: of the batch's tensors.

    Attributes:
        replays: number of steps that were replayed.
    """

    def __init__(
        self,
        step: Callable[[Batch], Losses],
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        layout: torch.memory_format,
    ):
        self.step, self.optimizer, self.device, self.layout = step, optimizer, device, layout
        self.recorder, self.replays = Recorder(device), 0
        self._key: Hashable = None
        self._batch: Batch = {}
        self._eager = 0  # steps of this key so far
        self._replay: Callable[[], Losses] | None = None
        self._failed = False
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)
            group["capturable"] = True

    def __call__(self, batch: Batch, phase: tuple[float, ...]) -> Losses:
        """Take one step on a batch, wherever it is; `phase` is the model's.

        What it gives is overwritten by the next step.
        """
        with self.recorder.aside():
            self._take_in(batch, phase)
            if self._replay is None and self._eager >= WARM_UP and not self._failed:
                self._capture()
            if self._replay is not None:
                self.replays += 1
                return self._replay()
            self._eager += 1
            return self.step(self._batch)

    def end(self) -> None:
        """Give up the graph that there is, and its memory."""
        if self._replay is not None:
            self.recorder.wait()  # for the last replay
            self._replay = None

    def _take_in(self, batch: Batch, phase: tuple[float, ...]) -> None:
        """Copy the batch to where a graph reads it; another phase or shape ends the graph that there is."""
        kinds = tuple((name, tensor.shape, tensor.dtype) for name, tensor in batch.items())
        if (phase, kinds) != self._key:
            self.end()
            self._key, self._eager = (phase, kinds), 0
            self._batch = {
                name: torch.empty_like(tensor, device=self.device, memory_format=self.layout)
                for name, tensor in batch.items()
            }
        for name, tensor in batch.items():
            self._batch[name].copy_(tensor, non_blocking=True)

    def _capture(self) -> None:
        otherwise = "steps are taken one by one, as no CUDA graph can hold this model's"
        self._replay = self.recorder.attempt(lambda: self.step(self._batch), otherwise)
        if self._replay is None:
            self._failed = True
            self.optimizer.zero_grad()
