"""Steps of training replayed from a CUDA graph: for small models, whose kernels end before Python has named the next.

A graph repeats the kernels of one step, with the numbers that Python gave them then. So what changes from step to step
lies in tensors that stay where they are: the batch and the learning rate. What is drawn by chance follows torch's seed
at a replay as it does otherwise. The rest of what Python decides is the model's `phase`, and a graph serves one phase.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor

from ppl_fast._console import say

WARM_UP = 3  # eager steps of a phase before its capture, after which optimizer, libraries and kernels are all set up

Batch = dict[str, Tensor]
Losses = tuple[tuple[str, ...], Tensor]  # names, and a vector with the value of each
Result = TypeVar("Result")


class Recorder:
    """Records what a function launches on a GPU, on a stream of its own.

    What is not recorded runs there as well, since autograd and cuBLAS keep things by stream.
    """

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """A block that works on the stream, in order with what the current one does before and after."""
        current = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            yield
        current.wait_stream(self.stream)

    def record(self, function: Callable[[], Result]) -> Callable[[], Result]:
        """What launches again all that the function would, and gives what it gave, with other values in it."""
        graph = torch.cuda.CUDAGraph()
        # The threads of a loader may ask for memory meanwhile, which "global", the default, forbids them.
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            result = function()

        def replay() -> Result:
            graph.replay()
            return result

        return replay

    def wait(self) -> None:
        """Wait until the stream has done what it was given."""
        self.stream.synchronize()

    def recover(self) -> None:
        """After a recording that failed: torch's generator may still count for it, and draw nothing else."""
        generator = torch.cuda.default_generators[self.stream.device_index]
        generator.graphsafe_set_state(generator.clone_state())


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
        try:
            self._replay = self.recorder.record(lambda: self.step(self._batch))
        except Exception as error:  # what cannot be captured can be run; an error of the step itself comes again there
            self._failed = True
            self.recorder.recover()
            self.optimizer.zero_grad()
            reason = str(error.__context__ or error).strip().partition("\n")[0]  # the end of a capture fails after that
            say(f"note: steps are taken one by one, as no CUDA graph can hold this model's ({reason})")
