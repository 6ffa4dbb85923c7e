"""The record that an estimation gives: the poses of one batch, and the images that they were found in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ppl_fast.data.coordinates import from_pixels, from_view, to_pixels, to_view

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

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
        end: how many images of its source there are up to the batch's end, those that do not decode counted.
    """

    names: list[str]
    sizes: NDArray[np.int64]
    frames: list[int | None]
    times: list[float | None]
    durations: list[float] = field(default_factory=list)
    boxes: NDArray[np.float64] | None = None
    video: Video | None = None
    picture: Callable[[int], Image] | None = None
    end: int = 0

    def __len__(self) -> int:
        return len(self.names)

    @property
    def unique_names(self) -> list[str]:
        """One name an image: its own, or for frame 12 of `walk.mp4` `walk.mp4/000012`, as `ClipFolder` has it."""
        return [
            name if frame is None else f"{name}/{frame:06d}"
            for name, frame in zip(self.names, self.frames, strict=True)
        ]

    @property
    def seen_sizes(self) -> NDArray[Any]:
        """(n, 2), (W, H) in pixels of the originals of what the model saw; NaN where it saw nothing."""
        return self.sizes if self.boxes is None else self.boxes[:, 2:4]

    def in_pixels(self, points: NDArray[np.float64], image_size: int) -> NDArray[np.float64]:
        """Points (n, N, 2) on S x S pixels that the model saw, (x, y) in [-1, 1], in pixels of the originals."""
        if self.boxes is None:
            return to_pixels(points, image_size, self.sizes)
        return from_view(points, image_size, self.boxes)

    def on_view(self, points: NDArray[np.float64], image_size: int) -> NDArray[np.float64]:
        """The inverse of `in_pixels`."""
        if self.boxes is None:
            return from_pixels(points, image_size, self.sizes)
        return to_view(points, image_size, self.boxes)

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
    """The poses of n images, or of n frames of one video, with N keypoints each, or named joints in their place.

    Attributes:
        keypoints: (n, N, 2) float64, (x, y) in pixels of the originals, integers at pixel centres; NaN where there was
            nothing to see.
        normalised: (n, N, 2) float64, (x, y), -1 and +1 at the centres of the first and last pixel that the model saw.
        confidence: (n, N) float64 in [0, 1], the likelihood of each keypoint; None where it was not asked for, NaN
            where there was nothing to see.
        expected_error: (n, N) float64, in pixels of the originals; None where there is no calibration.
        filled: (n, N) bool, whether a keypoint was taken from the frames around it; None where nothing was smoothed.
    """

    keypoints: NDArray[np.float64]
    normalised: NDArray[np.float64]
    confidence: NDArray[np.float64] | None = None
    expected_error: NDArray[np.float64] | None = None
    filled: NDArray[np.bool_] | None = None


class Naming(Protocol):
    """What turns keypoints into named joints, as `ppl_fast.naming.NamedJoints` does."""

    @property
    def names(self) -> list[str]:
        """J."""

    @property
    def skeleton(self) -> list[tuple[int, int]]:
        """Bones, pairs of joint numbers."""

    def __call__(self, images: Tensor, keypoints: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joints (n, J, 2) of images (n, 3, S, S) and keypoints (n, N, 2), all (x, y) in [-1, 1]."""

    def mixed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(n, J) of numbers (n, N) of the keypoints that joints are made of, such as confidence."""

    def judged(
        self, likelihood: NDArray[np.float64], error: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Likelihoods and expected errors (n, J) by those of the keypoints (n, N), calibrated, errors as fractions."""


COLLECTED = (
    "names", "sizes", "frames", "times", "boxes", "keypoints", "normalised", "confidence", "expected_error", "filled",
)  # fmt: skip


def collect(batches: Iterable[Poses]) -> Poses:
    """All poses as one record, without the images.

    Args:
        batches: as `estimate` gives them.

    Raises:
        ValueError: there is none.
    """
    parts = [*batches]
    if not parts:
        raise ValueError("collect: batches must hold at least one, got none")

    def joined(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        if values[0] is None:
            return None
        return [each for value in values for each in value] if isinstance(values[0], list) else np.concatenate(values)

    return Poses(**{name: joined(name) for name in COLLECTED})
