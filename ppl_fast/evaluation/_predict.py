"""A model's keypoints for a whole data set, batch by batch, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from ppl_fast._extras import needing


def batches(images: Any, batch_size: int, description: str, progress: bool, workers: int = 0) -> Iterator[torch.Tensor]:
    """Batches in order from a tensor (n, 3, S, S) or a map-style dataset of (3, S, S)."""
    with needing("evaluation needs", "data"):
        from tqdm.auto import tqdm
    loader = DataLoader(images, batch_size=batch_size, num_workers=workers)
    with tqdm(total=len(images), desc=description, unit="image", disable=None if progress else True) as bar:
        for batch in loader:
            yield batch
            bar.update(len(batch))


def device_of(model: torch.nn.Module) -> torch.device:
    """The device of the model's first parameter or buffer; the CPU if it has neither."""
    first = next(chain(model.parameters(), model.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def predict(
    model: torch.nn.Module,
    images: Any,
    *,
    iterations: int = 1,
    batch_size: int = 64,
    workers: int = 0,
    description: str = "poses",
    progress: bool = True,
) -> np.ndarray:
    """Keypoints (n, N, 2) float64, xy in [-1, 1], of all images by ``model.estimate``.

    images: (n, 3, S, S) tensor in [-1, 1] or a map-style dataset of (3, S, S).
    """
    device = device_of(model)
    found = [
        model.estimate(batch.to(device), iterations=iterations).cpu().double()
        for batch in batches(images, batch_size, description, progress, workers)
    ]
    return torch.cat(found).numpy()
