"""What of each image a model sees: the whole, squashed, padded or cropped to a square, or a box around the animal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ppl_fast._documents import MAX_PIXELS
from ppl_fast.data.box_files import Row, matched, read_boxes
from ppl_fast.data.boxes import NOTHING, Box, whole
from ppl_fast.options.footage import MOVING, Framing


@dataclass(frozen=True)
class Views:
    """The box of each image and frame by its name.

    Attributes:
        fit: as `Framing.fit`.
        keep: whether what shows nothing stays, as grey, for a pose that is NaN; else it is left out.
        rows: the boxes as they were found or read; None where there are none.
        of_images: by name.
        of_videos: by the name of the video and the number of the frame, None for all.
        margin: as `Framing.margin`.
        report: what was found, a line a clip.
    """

    fit: str
    keep: bool = False
    rows: list[Row] | None = None
    of_images: dict[str, Box] = field(default_factory=dict)
    of_videos: dict[str, dict[int | None, Box]] = field(default_factory=dict)
    margin: float = 0.0
    report: list[str] = field(default_factory=list)

    def box(self, name: str, size: tuple[int, int]) -> Box | None:
        """The box in an image of (W, H); None for the image as it is, NaN where there is nothing to see."""
        if self.rows is None:
            return whole(size, self.fit)
        found = next(self._found(name), None)
        if found is None:
            return NOTHING
        side = max(found[2:4]) * (1 + self.margin)
        return np.array([found[0], found[1], side, side, found[4]])

    def shows(self, name: str) -> bool:
        """Whether there is anything to see, or what shows nothing is kept."""
        return self.keep or self.rows is None or any(True for _ in self._found(name))

    def _found(self, name: str) -> Iterator[Box]:
        if name in self.of_images:
            yield self.of_images[name]
        video, _, number = name.rpartition("/")
        frames = self.of_videos.get(video, {})
        yield from (frames[key] for key in (int(number) if number.isdecimal() else None, None) if key in frames)


def views_of(
    framing: Framing | None,
    root: Path,
    images: Sequence[str],
    videos: dict[str, Path],
    max_pixels: int = MAX_PIXELS,
    *,
    keep: bool = False,
    beside: dict[str, Path] | None = None,
) -> Views | None:
    """The views of footage; None where all of it is just squashed.

    Args:
        framing: how images become squares; None as by default.
        root: what the names of images are relative to.
        images: their names.
        videos: paths by name.
        max_pixels: of an image or frame, that may be decoded in search of what moves.
        keep: keep what shows nothing, as grey, for a pose that is NaN.
        beside: videos of which nothing is seen; their background is that of images in the folders of their names.

    Raises:
        ValueError: boxes cannot be found, or the file of boxes has none of these.
    """
    if framing is None or framing.crop is None:
        return None if framing is None or framing.fit == "squash" else Views(framing.fit, keep)
    if framing.crop == MOVING:
        from ppl_fast.data.moving_footage import find

        rows, report = find(root, images, videos, framing.turn, max_pixels, beside)
    else:
        rows, report = read_boxes(framing.crop), []
    of_images, of_videos = matched(rows, images, videos)
    if not of_images and not of_videos:
        why = "".join(f"; {line}" for line in report)
        raise ValueError(f"{framing.crop} has boxes for none of the images and videos in {root}{why}")
    if framing.crop != MOVING:
        of = [f"{len(of_images)} of {len(images)} images"] * bool(images)
        of += [f"frames of {len(of_videos)} of {len(videos)} videos"] * bool(videos)
        report = [f"boxes of {framing.crop}: for {' and '.join(of)}"]
    return Views(framing.fit, keep, rows, of_images, of_videos, framing.margin, report)
