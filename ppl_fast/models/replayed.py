"""Estimation replayed from CUDA graphs: for small batches, whose kernels end before Python has named the next."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from ppl_fast._cuda_graphs import Recorder
from ppl_fast.models.blocks import is_followed

MOST = 8  # graphs, each with memory of its own; what comes in further shapes is estimated as ever


class Replayed:
    """A method that estimates, replayed for images of every shape that comes a second time.

    The first call of a shape is the method's own, with its checks, and sets up what libraries need; the second records
    a graph, which it and all further ones replay on copies of their arguments. Results belong to the caller. Not for
    several threads at once.

    Args:
        method: of a model in eval mode, whose arguments are images, the number of passes and what is visible.
        device: the model's, a GPU.

    Attributes:
        replays: number of calls that were replayed.
    """

    def __init__(self, method: Callable[..., Any], device: torch.device):
        self.method, self.device, self.recorder, self.replays = method, device, Recorder(device), 0
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, tuple[list[Tensor], Callable[[], Any] | None]] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor, iterations: int = 1, visible: Tensor | None = None) -> Any:
        """What the method gives."""
        given = [images] if visible is None else [images, visible]
        if is_followed() or any(not isinstance(each, Tensor) or each.device != self.device for each in given):
            return self.method(images, iterations, visible)
        key = (iterations, *_autocast(self.device), *((each.shape, each.dtype, each.stride()) for each in given))
        with self.recorder.aside():
            if key not in self._graphs:
                if key not in self._seen or len(self._graphs) == MOST:
                    self._seen.add(key)
                    return self.method(images, iterations, visible)
                self._graphs[key] = self._recorded(given, iterations)
            places, replay = self._graphs[key]
            if replay is None:
                return self.method(images, iterations, visible)
            for place, each in zip(places, given, strict=True):
                place.copy_(each)
            self.replays += 1
            return _copied(replay())

    def _recorded(self, given: list[Tensor], iterations: int) -> tuple[list[Tensor], Callable[[], Any] | None]:
        """Where a graph reads its arguments, and what replays it; None where no graph can hold the method."""
        with torch.inference_mode(False):  # later calls outside of it write to these as well
            places = [torch.empty_like(each) for each in given]
        for place, each in zip(places, given, strict=True):
            place.copy_(each)
        visible = places[1] if len(places) > 1 else None
        otherwise = "images of this shape are estimated without a CUDA graph, as none can hold the model's"
        return places, self.recorder.attempt(lambda: self.method(places[0], iterations, visible), otherwise)


def _autocast(device: torch.device) -> tuple[Hashable, ...]:
    """What a graph that is recorded under autocast computes in."""
    enabled = torch.is_autocast_enabled(device.type)
    return (torch.get_autocast_dtype(device.type),) if enabled else ()


def _copied(result: Any) -> Any:
    """Tensors, or lists and tuples of them, that the next replay leaves as they are."""
    return result.clone() if isinstance(result, Tensor) else type(result)(_copied(each) for each in result)
