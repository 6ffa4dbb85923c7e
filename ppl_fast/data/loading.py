"""Training batches whose order is a pure function of the seed and the step."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset


class _Shuffle:
    """Endless batches of (index, flip), the ``rank``-th part of each, from ``start_step`` on.

    The images form one endless sequence: all of them shuffled, then shuffled anew. Step t takes the entries
    t * B to (t + 1) * B - 1, so no image is dropped and folders smaller than a batch work.
    """

    def __init__(self, length, batch_size, seed, start_step, flip, rank, world_size):
        self.length, self.batch_size, self.seed, self.start_step = length, batch_size, seed, start_step
        self.flip, self.rank, self.world_size = flip, rank, world_size

    def __iter__(self) -> Iterator[list[tuple[int, bool]]]:
        epoch, order, flips = -1, None, None
        for step in count(self.start_step):
            batch = []
            for position in range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    rng = np.random.default_rng([self.seed, epoch])
                    order, flips = rng.permutation(self.length), rng.random(self.length) < 0.5
                index = int(order[position % self.length])
                batch.append((index, bool(self.flip and flips[index])))
            yield batch


class _Flipped(Dataset):
    """Answers (index, flip) with the image, mirrored left to right where asked."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, bool]) -> torch.Tensor:
        index, flip = key
        image = self.dataset[index]
        return image.flip(-1) if flip else image


def training_loader(
    dataset,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    workers: int = 0,
    flip: bool = True,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Endless shuffled training batches that a resumed run continues bit for bit.

    Args:
        dataset: map-style, ``dataset[i]`` a tensor (3, S, S).
        batch_size: images a step, over all processes together.
        seed: with the step alone decides order and flips, whatever ``workers`` is.
        start_step: number of batches to leave out; none of them is loaded.
        workers: loading processes; 0 loads in the calling one.
        flip: mirror each image left to right with probability one half, anew every epoch.
        rank: this process; it gets every ``world_size``-th image of each batch.
        world_size: number of processes.

    Returns:
        A loader that never ends; batches are float32 (batch_size / world_size, 3, S, S).
    """
    if len(dataset) == 0:
        raise ValueError("training_loader: dataset must hold at least one image, got none")
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"training_loader: batch_size must be a positive multiple of the {world_size} processes, got {batch_size}"
        )
    if seed < 0 or start_step < 0 or workers < 0:
        raise ValueError(
            "training_loader: seed, start_step and workers must not be negative, "
            f"got {seed}, {start_step} and {workers}"
        )
    batches = _Shuffle(len(dataset), batch_size, seed, start_step, flip, rank, world_size)
    return DataLoader(
        _Flipped(dataset),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(seed),  # else starting the loader draws from the global generator
    )
