"""The record that an estimation gives: the poses of one batch, and the images that they were found in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

    from ppl_fast.data.video import Video


@dataclass(frozen=True, eq=False, kw_only=True)
class Origins:
    """Where n images come from, in their order.

    Attributes:
        names: of each image, its path below its folder; of each frame, the name of its video.
        sizes: (n, 2) int64, (W, H) of the originals in pixels.
        frames: the number of each frame in its video, from 0; None for an image.
        times: seconds since the first frame of the video; None for an image.
        durations: seconds that each frame is shown for; empty for images, and where nobody said.
        boxes: (n, 5) float64, what the model saw of each original (`ppl_fast.data.boxes`), NaN for nothing; None for
            all of it.
        video: the video that all n are frames of; None for images.
        picture: gives the i-th original; None where they are no longer at hand.
    """

    names: list[str]
    sizes: NDArray[np.int64]
    frames: list[int | None]
    times: list[float | None]
    durations: list[float] = field(default_factory=list)
    boxes: NDArray[np.float64] | None = None
    video: Video | None = None
    picture: Callable[[int], Image] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def unique_names(self) -> list[str]:
        """One name an image: its own, or for frame 12 of `walk.mp4` `walk.mp4/000012`, as `ClipFolder` has it."""
        return [
            name if frame is None else f"{name}/{frame:06d}"
            for name, frame in zip(self.names, self.frames, strict=True)
        ]

    def image(self, index: int) -> Image:
        """The original of one pose, upright RGB at its own size; an image file is decoded anew.

        Raises:
            ValueError: the originals are not at hand, as after `collect`, or no longer decode.
        """
        if self.picture is None:
            raise ValueError("these poses were collected without their images; take the images batch by batch")
        return self.picture(index)


@dataclass(frozen=True, eq=False, kw_only=True)
class Poses(Origins):
    """The poses of n images, or of n frames of one video, with N keypoints each.

    Attributes:
        keypoints: (n, N, 2) float64, (x, y) in pixels of the originals, integers at pixel centres; NaN where there was
            nothing to see.
        normalised: (n, N, 2) float64, (x, y), -1 and +1 at the centres of the first and last pixel that the model saw.
    """

    keypoints: NDArray[np.float64]
    normalised: NDArray[np.float64]


def collect(batches: Iterable[Poses]) -> Poses:
    """All poses as one record, without the images.

    Args:
        batches: as `estimate` gives them.

    Raises:
        ValueError: there is none.
    """
    parts = [(p.names, p.sizes, p.frames, p.times, p.keypoints, p.normalised, p.boxes) for p in batches]
    if not parts:
        raise ValueError("collect: batches must hold at least one, got none")
    names, sizes, frames, times, keypoints, normalised, boxes = zip(*parts, strict=True)
    return Poses(
        names=[name for part in names for name in part],
        sizes=np.concatenate(sizes),
        frames=[frame for part in frames for frame in part],
        times=[time for part in times for time in part],
        keypoints=np.concatenate(keypoints),
        normalised=np.concatenate(normalised),
        boxes=None if boxes[0] is None else np.concatenate(boxes),
    )
