"""Training batches whose order is a pure function of the seed and the step."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from itertools import count
from multiprocessing import resource_tracker
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ppl_fast import _devices
from ppl_fast._options import plain


class Pictures(Protocol):
    """Images by number: a tensor (n, 3, S, S), or a map-style data set of (3, S, S)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> torch.Tensor: ...


class Pairs(NamedTuple):
    """Images and, for each, the image that the reconstruction takes its appearance from; tensors of one shape."""

    images: torch.Tensor
    references: torch.Tensor


class _Shuffle:
    """Endless batches of (index, flip, index of the reference), the `rank`-th part of each, from `start_step` on.

    The images form one endless sequence: all of them shuffled, then shuffled anew. Step t takes the entries
    t * B to (t + 1) * B - 1, so no image is dropped and folders smaller than a batch work.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        start_step: int,
        flip: bool,
        rank: int,
        world_size: int,
        clips: Sequence[int] | None,
    ):
        self.length, self.batch_size, self.seed, self.start_step = length, batch_size, seed, start_step
        self.flip, self.rank, self.world_size = flip, rank, world_size
        self.partners = None if clips is None else _Partners(clips)

    def __iter__(self) -> Iterator[list[tuple[int, bool, int | None]]]:
        epoch = -1
        for step in count(self.start_step):
            batch = []
            for position in range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world_size):
                if position // self.length != epoch:
                    epoch = position // self.length
                    order, flips, references = self._epoch(epoch)
                index = int(order[position % self.length])
                reference = None if references is None else int(references[index])
                batch.append((index, bool(self.flip and flips[index]), reference))
            yield batch

    def _epoch(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The order of the images in one epoch; which of them are flipped; and where there are clips, references."""
        rng = np.random.default_rng([self.seed, number])
        order, flips = rng.permutation(self.length), rng.random(self.length) < 0.5
        return order, flips, None if self.partners is None else self.partners.draw(rng)


class _Partners:
    """Draws for every frame another one of its clip; a frame that is a clip of its own stays alone."""

    def __init__(self, clips: Sequence[int]):
        _, clip, sizes = np.unique(clips, return_inverse=True, return_counts=True)
        self.by_clip = np.argsort(clip, kind="stable")  # frames, clip after clip
        self.first, self.size = (np.cumsum(sizes) - sizes)[clip], sizes[clip]  # of each frame's clip
        self.place = np.empty_like(clip)  # of each frame in its clip
        self.place[self.by_clip] = np.arange(len(clip)) - self.first[self.by_clip]

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(n,) index of each frame's partner, uniform over the other frames of the clip."""
        steps = 1 + np.floor(rng.random(len(self.size)) * (self.size - 1)).astype(np.int64)
        return self.by_clip[self.first + (self.place + steps) % self.size]


def together(dataset: Any, rows: Sequence[int]) -> None:
    """Let a data set that can ask for some images at once, as `ShardedImages.fetch`, before they are loaded."""
    if hasattr(dataset, "fetch"):
        dataset.fetch(rows)


class _Flipped(Dataset[Any]):
    """Answers (index, flip, reference) with the image, and what else there is, mirrored left to right where asked."""

    def __init__(self, dataset: Pictures, figures: Pictures | None):
        self.dataset, self.figures = dataset, figures

    def __getitem__(self, key: tuple[int, bool, int | None]) -> torch.Tensor | Pairs | dict[str, torch.Tensor]:
        index, flip, reference = key
        image = _mirrored(self.dataset[index], flip)
        other = None if reference is None else _mirrored(self.dataset[reference], flip)
        if self.figures is not None:
            found = {"images": image, "figure": _mirrored(self.figures[index], flip)}
            return found if other is None else found | {"reference": other}
        return image if other is None else Pairs(image, other)

    def __getitems__(self, keys: list[tuple[int, bool, int | None]]) -> list[Any]:
        """A batch."""
        together(self.dataset, [row for index, _, other in keys for row in (index, other) if row is not None])
        return [self[key] for key in keys]


def _mirrored(image: torch.Tensor, flip: bool) -> torch.Tensor:
    return image.flip(-1) if flip else image


def training_loader(
    dataset: Pictures,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    workers: int = 0,
    flip: bool = True,
    *,
    rank: int = 0,
    world_size: int = 1,
    reference: str = "image",
    figures: Pictures | None = None,
) -> DataLoader[Any]:
    """Endless shuffled training batches that a resumed run continues bit for bit.

    Args:
        dataset: map-style, `dataset[i]` a tensor (3, S, S).
        batch_size: images a step, over all processes together.
        seed: with the step alone decides order and flips, whatever `workers` is.
        start_step: number of batches to leave out; none of them is loaded.
        workers: loading processes; 0 loads in the calling one.
        flip: mirror each image left to right with probability one half, anew every epoch.
        rank: this process; it gets every `world_size`-th image of each batch.
        world_size: number of processes.
        reference: "video" pairs each image with another frame of its clip, which `dataset.clips` tells, as the
            published model does for Human3.6M and Taichi; a function of seed, epoch and image alone. Flips apply to
            both alike, and the one frame of a clip is its own reference. "image" gives images alone.
        figures: `figures[i]` a tensor (1, S, S) that says where the subject of `dataset[i]` is, such as
            `ppl_fast.data.subjects.SubjectMasks`.

    Returns:
        A loader that never ends; batches are float32 (batch_size / world_size, 3, S, S), or with
        `reference="video"` tuples (images, references) of two such; with `figures`, dicts of the arguments of a
        model's `forward`: "images", "figure" (batch_size / world_size, 1, S, S) and, if there is one, "reference".

    Raises:
        ValueError: no images, a number out of bounds, another reference, or a data set without clips for "video".
    """
    if len(dataset) == 0:
        raise ValueError("training_loader: dataset must hold at least one image, got none")
    batch_size, seed, start_step, workers = map(plain, (batch_size, seed, start_step, workers))
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(
            f"training_loader: batch_size must be a positive multiple of the {world_size} processes, got {batch_size}"
        )
    if seed < 0 or start_step < 0 or workers < 0:
        raise ValueError(
            "training_loader: seed, start_step and workers must not be negative, "
            f"got {seed}, {start_step} and {workers}"
        )
    if reference not in ("image", "video"):
        raise ValueError(f"training_loader: reference must be image or video, got {reference!r}")
    clips = getattr(dataset, "clips", None) if reference == "video" else None
    if reference == "video" and clips is None:
        raise ValueError(
            "training_loader: reference video needs frames of clips (a folder of clips or videos), "
            f"got a {type(dataset).__name__} without clips"
        )
    batches = _Shuffle(len(dataset), batch_size, seed, start_step, flip, rank, world_size, clips)
    return _Loader(
        _Flipped(dataset, figures),
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=_devices.loads_from_pinned_memory(),
        generator=torch.Generator().manual_seed(seed),  # else starting the loader draws from the global generator
        worker_init_fn=_heed_the_parent_alone,
    )


# What a process that loads images leaves to its parent: SIGTERM only where it is told whom one comes from.
_LEFT = {signal.SIGINT} if hasattr(signal, "pthread_sigmask") else set()
_LEFT |= {signal.SIGTERM} if hasattr(signal, "sigwaitinfo") else set()


class _Loader(DataLoader[Any]):
    """One whose processes begin with signals held back, until `_heed_the_parent_alone` knows what to do with them.

    Not those that a server forks, which would keep the mask that it was started with, for all of others too.
    """

    def __iter__(self) -> Any:
        method = multiprocessing.get_start_method()
        if not (self.num_workers and _LEFT) or method == "forkserver":
            return super().__iter__()
        if method == "spawn":
            resource_tracker.ensure_running()  # which lets signals through again when it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT)
        try:
            return super().__iter__()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heed_the_parent_alone(_worker: int) -> None:
    """In a process that loads images: leave to its parent what signals to all of them mean, and end when that says so.

    The parent finishes its step and needs images for it; torch ends a process by SIGTERM, and takes one that ends of
    another's for an accident.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if signal.SIGTERM in _LEFT:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_wait_for_the_parent, daemon=True).start()


def _wait_for_the_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
