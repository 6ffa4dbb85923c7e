"""What of footage a model is shown: which frames, and which part of each."""

from __future__ import annotations

import os
from collections.abc import Container
from dataclasses import dataclass, field

from ppl_fast._options import integer, plain

WAYS = ("spread", "difference")
FITS = ("squash", "pad", "crop")
MOVING = "moving"
AUTO = "auto"  # of masks: `MOVING` where images agree on backgrounds, else none
CACHES = ("auto", "no", "memory", "disk")  # where resized images are kept


@dataclass(frozen=True)
class Selection:
    """Which frames are taken.

    Attributes:
        every: each n-th of a clip.
        frames: of these, at most so many of each video; 0 takes all.
        by: "spread": evenly over the video's time; "difference": evenly over what changes in it, so that still
            stretches do not dominate.
        seed: decides, with the video's name, which frame of each stretch it is.
        only: names of the images and frames to take, `walk.mp4/000012`, and no others; None takes all.

    Raises:
        ValueError: a number out of bounds, or another way.
    """

    every: int = 1
    frames: int = 0
    by: str = "spread"
    seed: int = 0
    only: Container[str] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name, low in (("every", 1), ("frames", 0), ("seed", 0)):
            object.__setattr__(self, name, integer("Selection", name, getattr(self, name), low=low))
        if self.by not in WAYS:
            raise ValueError(f"Selection: by must be one of {', '.join(WAYS)}, got {self.by!r}")

    def takes(self, name: str) -> bool:
        """Whether an image or frame of this name may be taken."""
        return self.only is None or name in self.only


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
