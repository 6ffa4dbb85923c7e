"""A model over one batch: poses of images that are there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ppl_fast.inference.confidence import Calibration, arrays, in_pixels, measure, uncalibrated
from ppl_fast.inference.masks import Masks
from ppl_fast.inference.poses import Naming, Origins, Poses
from ppl_fast.inference.sources import Source

if TYPE_CHECKING:
    from ppl_fast.models import KeypointModel


class Batch(NamedTuple):
    """What a model takes: (n, 3, S, S) float32 in [-1, 1], where it comes from, and what of it is visible."""

    origins: Origins
    pixels: Tensor
    visible: Tensor | None  # (n, 1, S, S) bool; None for all


@dataclass(frozen=True, eq=False)
class Posing:
    """What is to be estimated of each batch; arguments are those of `ppl_fast.inference.estimate`."""

    model: KeypointModel
    iterations: int
    masks: Masks | None = None
    confidence: bool | Calibration = False
    joints: Naming | None = None

    def batches(self, source: Source, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """What a source has from its image `start` on: all that a processor does before the model."""
        for origins, pixels in source.read(batch_size, start):
            visible = None if self.masks is None else self.masks.of(origins, pixels.shape[-1])
            yield Batch(origins, pixels, visible)

    def __call__(self, batch: Batch) -> Poses:
        """The poses of a batch."""
        origins, device = batch.origins, device_of(self.model)
        pixels = batch.pixels.to(device)
        hidden = {} if batch.visible is None else {"visible": batch.visible.to(device)}
        likelihood = expected = None
        if self.confidence is False and self.joints is not None and hidden:
            found, seen = self.model.estimate_rounds(pixels, self.iterations, **hidden)[-1]
        elif self.confidence is False:
            found, seen = self.model.estimate(pixels, iterations=self.iterations, **hidden), pixels
        else:
            found, measured, seen = measure(self.model, pixels, self.iterations, **hidden)
            evidence = arrays(measured)
            if self.confidence is True:
                likelihood = uncalibrated(evidence)
            else:
                likelihood, expected = self.confidence.judge(evidence)
        normalised = found.detach().cpu().double().numpy()
        if self.joints is not None:
            # What is hidden, the joints' networks see as the last round filled it in.
            normalised = self.joints(seen if hidden else pixels, normalised)
            if likelihood is not None and expected is not None:
                likelihood, expected = self.joints.judged(likelihood, expected)
            elif likelihood is not None:
                likelihood = self.joints.mixed(likelihood)
        if expected is not None:
            expected = in_pixels(expected, origins.seen_sizes)
        if origins.boxes is not None:
            nothing = np.isnan(origins.boxes).any(axis=1)
            for each in (normalised, likelihood, expected):
                if each is not None:
                    each[nothing] = np.nan
        keypoints = origins.in_pixels(normalised, pixels.shape[-1])
        return Poses(
            **vars(origins), keypoints=keypoints, normalised=normalised, confidence=likelihood, expected_error=expected
        )


def device_of(model: torch.nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has neither."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device
