"""What of each image a model sees: the whole, squashed, padded or cropped to a square."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ppl_fast.data.boxes import FITS, Box, whole


@dataclass(frozen=True)
class Framing:
    """How images become a model's squares; part of a run, since a model knows no other kind of them.

    Attributes:
        fit: of whole images: "squash" stretches them, "pad" lays them on grey, "crop" takes the square in the middle.

    Raises:
        ValueError: another word.
    """

    fit: str = "squash"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"Framing: fit must be one of {', '.join(FITS)}, got {self.fit!r}")

    def views(self, root: Path, images: list[str], videos: dict[str, Path]) -> Views | None:
        """The views of footage: names of images below `root`, and videos by name; None where all are just squashed."""
        return None if self.fit == "squash" else Views(self.fit)


@dataclass(frozen=True)
class Views:
    """The box of each image and frame by its name.

    Attributes:
        fit: as `Framing.fit`.
        keep: whether what shows nothing stays, as grey, for a pose that is NaN; else it is left out.
    """

    fit: str
    keep: bool = False

    def box(self, name: str, size: tuple[int, int]) -> Box | None:
        """The box in an image of (W, H); None for the image as it is."""
        return whole(size, self.fit)

    def shows(self, name: str) -> bool:
        """Whether there is anything to see, or what shows nothing is kept."""
        return True

    def keeping(self) -> Views:
        """The same, with what shows nothing."""
        return replace(self, keep=True)
