"""What a function launches on a GPU, recorded once and launched again by one call."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from ppl_fast._console import say

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

    def attempt(self, function: Callable[[], Result], otherwise: str) -> Callable[[], Result] | None:
        """`record`, or None after a note that says what happens otherwise, and why: what no graph can hold can be run.

        An error of the function itself comes again when it is run.
        """
        try:
            return self.record(function)
        except Exception as error:
            self.recover()
            reason = str(error.__context__ or error).strip().partition("\n")[0]  # the end of a capture fails after that
            say(f"note: {otherwise} ({reason})")
            return None

    def wait(self) -> None:
        """Wait until the stream has done what it was given."""
        self.stream.synchronize()

    def recover(self) -> None:
        """After a recording that failed: torch's generator may still count for it, and draw nothing else."""
        generator = torch.cuda.default_generators[self.stream.device_index]
        generator.graphsafe_set_state(generator.clone_state())
