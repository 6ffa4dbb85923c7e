"""What of each image a model sees: the whole, squashed, padded or cropped to a square, or a box around the animal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ppl_fast._options import plain
from ppl_fast.data.box_files import Row, matched, read_boxes
from ppl_fast.data.boxes import FITS, NOTHING, Box, whole

MOVING = "moving"


@dataclass(frozen=True)
class Framing:
    """How images become a model's squares; part of a run, since a model knows no other kind of them.

    Attributes:
        fit: of whole images: "squash" stretches them, "pad" lays them on grey, "crop" takes the square in the middle.
        crop: None for whole images; "moving" for boxes around what moves before a static camera
            (`ppl_fast.data.moving`); or a file of boxes (`ppl_fast.data.box_files`). Boxes become squares of their
            longer side.
        margin: by which boxes are enlarged, as a share of their side.
        turn: whether boxes of what moves are turned along the body's axis.

    Raises:
        ValueError: another word, or a number out of bounds.
    """

    fit: str = "squash"
    crop: str | None = None
    margin: float = 0.25
    turn: bool = False

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"Framing: fit must be one of {', '.join(FITS)}, got {self.fit!r}")
        if self.crop is not None:
            object.__setattr__(self, "crop", os.fspath(self.crop))
        if not 0 <= plain(self.margin) <= 10:
            raise ValueError(f"Framing: margin must lie between 0 and 10, got {self.margin}")
        if self.turn and self.crop != MOVING:
            raise ValueError(f"Framing: turn needs crop {MOVING}, got crop {self.crop}")

    def views(self, root: Path, images: list[str], videos: dict[str, Path]) -> Views | None:
        """The views of footage: names of images below `root`, and videos by name; None where all are just squashed.

        Raises:
            ValueError: boxes cannot be found, or the file of boxes has none of these.
        """
        if self.crop is None:
            return None if self.fit == "squash" else Views(self.fit)
        if self.crop == MOVING:
            from ppl_fast.data.moving_footage import find

            rows, report = find(root, images, videos, self.turn)
        else:
            rows, report = read_boxes(self.crop), []
        of_images, of_videos = matched(rows, images, videos)
        if not of_images and not of_videos:
            raise ValueError(f"{self.crop} has boxes for none of the images and videos in {root}")
        if self.crop != MOVING:
            of = [f"{len(of_images)} of {len(images)} images"] * bool(images)
            of += [f"frames of {len(of_videos)} of {len(videos)} videos"] * bool(videos)
            report = [f"boxes of {self.crop}: for {' and '.join(of)}"]
        return Views(self.fit, rows=rows, of_images=of_images, of_videos=of_videos, margin=self.margin, report=report)


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

    def keeping(self) -> Views:
        """The same, with what shows nothing."""
        return replace(self, keep=True)

    def _found(self, name: str) -> Iterator[Box]:
        if name in self.of_images:
            yield self.of_images[name]
        video, _, number = name.rpartition("/")
        frames = self.of_videos.get(video, {})
        yield from (frames[key] for key in (int(number) if number.isdecimal() else None, None) if key in frames)
