"""What poses are estimated of, each read batch by batch and in order: tensors, data sets and folders of images here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from ppl_fast.inference.poses import Origins

if TYPE_CHECKING:
    from PIL.Image import Image

    from ppl_fast.data.loading import Pictures


@dataclass
class Losses:
    """Files that do not decode, of one kind; up to a share of them are skipped.

    Attributes:
        kind: "images" or "videos".
        count: how many there are in all.
        max_bad_share: how many of these may be skipped.
        skipped: (name, reason) of those that were.
    """

    kind: str
    count: int
    max_bad_share: float
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, reason: str) -> None:
        """Skip one more.

        Raises:
            ValueError: that is too many of them.
        """
        self.skipped.append((name, reason))
        self.check()

    def check(self) -> None:
        """Raise a ValueError where too many are skipped."""
        from ppl_fast.data.image_set import check_share

        check_share(self.skipped, self.count, self.max_bad_share, self.kind)


def restore(losses: Losses | None, skipped: list[tuple[str, str]]) -> None:
    """Add what is not noted yet."""
    for entry in skipped:
        if losses is not None and entry not in losses.skipped:
            losses.add(*entry)


class Source(ABC):
    """Images of one kind in order: those of a folder or a tensor, or the frames of one video.

    Attributes:
        name: for the progress bar.
        unit: what one of them is called.
        length: how many there are, as far as that is known before they are read; else None.
        losses: takes note of what does not decode, which is then skipped; None where that is an error.
    """

    name: str
    unit: str
    length: int | None

    losses: Losses | None = None

    @abstractmethod
    def read(self, batch_size: int, start: int = 0) -> Iterator[tuple[Origins, Tensor]]:
        """Batches in order, no sooner than they are asked for.

        Args:
            batch_size: images that are taken together, those that do not decode counted.
            start: images that are left out at the beginning.

        Returns:
            Pairs: where the images come from, and float32 (n, 3, S, S) in [-1, 1] on the CPU.

        Raises:
            ValueError: an image or frame does not decode, or more of them than may be skipped; it is named.
        """

    @abstractmethod
    def originals(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """Names and (W, H) of the images; of a video, its own."""

    @abstractmethod
    def stamps(self) -> Iterator[tuple[Any, ...]]:
        """Names of the files that are read, each with what tells its state from another.

        Raises:
            TypeError: they are no files.
        """

    @abstractmethod
    def resume(self, start: int, done: bool, skipped: list[tuple[str, str]]) -> None:
        """Take note that the images up to `start`, or all, have been read before, and what was left out until then."""


class Images(Source):
    """A tensor (n, 3, S, S), or a map-style data set of (3, S, S), in [-1, 1].

    A data set may tell `paths`, `original_sizes` and `original(i)`, as `ppl_fast.data.ImageFolder` does; without
    them, images go by their number and are their own originals.

    Args:
        images: the tensor or data set.
        workers: processes that load images; 0 loads in the calling one.
        name: for the progress bar.
        losses: see `Source`.
    """

    unit = "image"

    def __init__(self, images: Pictures, workers: int = 0, name: str = "poses", losses: Losses | None = None):
        self.images, self.workers, self.name, self.length = images, workers, name, len(images)
        self.losses, self._some, self._first = losses, False, ""

    def read(self, batch_size: int, start: int = 0) -> Iterator[tuple[Origins, Tensor]]:
        """See `Source.read`."""
        tries = cast("Dataset[Try]", _Tries(self.images, strict=self.losses is None))
        left = range(start, len(self.images))
        own = Generator()  # else starting the loader draws from the global one, which a training may go on with
        for batch in DataLoader(
            tries, batch_size=batch_size, sampler=left, num_workers=self.workers, collate_fn=list, generator=own
        ):
            start += len(batch)
            good = [each for each in batch if each.failure is None]
            self._some |= bool(good)
            for each in batch:
                if each.failure is not None:
                    self._lose(each)
            if good:
                pixels: Tensor = default_collate([each.pixels for each in good])
                yield self._origins([each.number for each in good], pixels, start), pixels

    def originals(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """See `Source.originals`; images without sizes of their own have that of the first."""
        sizes = getattr(self.images, "original_sizes", None)
        height, width = self.images[0].shape[-2:] if sizes is None else (0, 0)
        for row, name in enumerate(self._names([*range(len(self.images))])):
            yield name, (width, height) if sizes is None else sizes[row]

    def stamps(self) -> Iterator[tuple[Any, ...]]:
        """See `Source.stamps`."""
        stamps: Callable[[], Iterator[tuple[Any, ...]]] | None = getattr(self.images, "stamps", None)
        if stamps is None:
            raise TypeError("poses can be kept of files alone, got images that are none")
        return stamps()

    def resume(self, start: int, done: bool, skipped: list[tuple[str, str]]) -> None:
        """See `Source.resume`."""
        self._some |= start > 0
        left = set() if done or not skipped else {*self._names([*range(start, len(self.images))])}
        restore(self.losses, [entry for entry in skipped if entry[0] not in left])

    def _lose(self, failed: Try) -> None:
        name, self._first = self._names([failed.number])[0], self._first or failed.failure or ""
        assert self.losses is not None
        try:
            self.losses.add(name, failed.reason)
        except ValueError:
            if self._some:
                raise
            raise ValueError(self._first) from None  # nothing decodes: the first says why

    def _names(self, rows: list[int]) -> list[str]:
        names = getattr(self.images, "paths", None)
        return [f"{i:06d}" if names is None else names[i] for i in rows]

    def _origins(self, rows: list[int], pixels: Tensor, end: int) -> Origins:
        known = ("original_sizes", "original", "boxes")
        sizes, original, boxes = (getattr(self.images, name, None) for name in known)

        def picture(index: int) -> Image:
            if original is not None:
                found: Image = original(rows[index])
                return found
            from ppl_fast.visualization._draw import to_image

            return to_image(pixels[index], 1, "Origins.image")

        own = [(pixels.shape[3], pixels.shape[2])] * len(pixels)
        return Origins(
            names=self._names(rows),
            sizes=np.asarray(own if sizes is None else [sizes[i] for i in rows], dtype=np.int64),
            frames=[None] * len(pixels),
            times=[None] * len(pixels),
            boxes=None if boxes is None else boxes[rows],
            picture=picture,
            end=end,
        )


class Try(NamedTuple):
    """An image by its number, or what became of it instead: a sentence, and its reason in a few words."""

    number: int
    pixels: Tensor | None
    failure: str | None = None
    reason: str = ""


class _Tries:
    """Images, and where not `strict`, failures in the place of those that do not decode."""

    def __init__(self, images: Pictures, strict: bool):
        self.images, self.strict = images, strict

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, rows: list[int]) -> list[Try]:
        from ppl_fast.data.loading import together

        together(self.images, rows)
        return [self[row] for row in rows]

    def __getitem__(self, index: int) -> Try:
        try:
            return Try(index, self.images[index])
        except ValueError as error:  # what an `ImageSet` raises
            if self.strict:
                raise
            return Try(index, None, str(error), str(error.__cause__ or error))
