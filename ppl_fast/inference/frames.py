"""The frames of a video as a source of poses."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ppl_fast._files import stamp
from ppl_fast.inference.poses import Origins
from ppl_fast.inference.sources import Losses, Source, restore

if TYPE_CHECKING:
    from PIL.Image import Image

    from ppl_fast.data.boxes import Box
    from ppl_fast.data.framing import Views
    from ppl_fast.data.video import Frame, Video


class Frames(Source):
    """The frames of a video, decoded as they are asked for.

    Args:
        video: the file.
        image_size: S, that frames are resized to.
        name: of the video, such as its path below a folder.
        losses: see `Source`; of a video that does not decode to its end, the frames up to there stay.
        views: what is seen of each frame; None for all of it.
    """

    unit = "frame"

    def __init__(
        self,
        video: Video,
        image_size: int,
        name: str | None = None,
        losses: Losses | None = None,
        views: Views | None = None,
    ):
        self.views = views
        self.video, self.image_size, self.name, self.length = video, image_size, name or video.path.name, video.length
        self.losses = losses

    def read(self, batch_size: int, start: int = 0) -> Iterator[tuple[Origins, Tensor]]:
        """See `Source.read`."""
        from ppl_fast.data.boxes import NOTHING, seen
        from ppl_fast.data.pixels import normalised

        frames = self._frames(start) if self.losses is None else self._as_far_as_possible(start, self.losses)
        while batch := list(islice(frames, batch_size)):
            boxes = [self._box(frame.number) for frame in batch]
            pixels = torch.stack(
                [seen(frame.image, box, self.image_size) for frame, box in zip(batch, boxes, strict=True)]
            )
            origins = Origins(
                names=[self.name] * len(batch),
                sizes=np.asarray([self.video.size] * len(batch), dtype=np.int64),
                frames=[frame.number for frame in batch],
                times=[frame.time for frame in batch],
                durations=[frame.duration for frame in batch],
                boxes=None if self.views is None else np.stack([NOTHING if box is None else box for box in boxes]),
                video=self.video,
                picture=partial(_whole, batch),
                end=batch[-1].number + 1,
            )
            yield origins, normalised(pixels)

    def originals(self) -> Iterator[tuple[str, tuple[int, int]]]:
        """See `Source.originals`."""
        yield self.name, self.video.size

    def stamps(self) -> Iterator[tuple[Any, ...]]:
        """See `Source.stamps`."""
        yield self.name, *stamp(self.video.path)

    def resume(self, start: int, done: bool, skipped: list[tuple[str, str]]) -> None:
        """See `Source.resume`; what is wrong with a video shows at its end, which may be still to come."""
        restore(self.losses, [entry for entry in skipped if done or entry[0] != self.name])

    def _frames(self, start: int) -> Iterator[Frame]:
        """From the `start`-th on; those before are decoded, for frames depend on them, and no more."""
        wanted = (lambda number: number >= start) if start else None
        return self.video.frames(wanted=wanted, size=self.image_size if self.views is None else None)

    def _box(self, number: int) -> Box | None:
        return None if self.views is None else self.views.box(f"{self.name}/{number:06d}", self.video.size)

    def _as_far_as_possible(self, start: int, losses: Losses) -> Iterator[Frame]:
        try:
            yield from self._frames(start)
        except ValueError as error:
            losses.add(self.name, f"{error}; the frames up to there are kept")


def _whole(batch: list[Frame], index: int) -> Image:
    return batch[index].whole()
