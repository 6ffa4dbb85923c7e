"""What the readers of published data sets share: the error for a wrong layout, checks of labels."""

from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast.data.labels import Labels

SHOWN = 12  # entries of a folder that an error lists


class LayoutError(ValueError):
    """A root without the published layout: what is missing, the tree expected, and what was found."""

    def __init__(self, name: str, root: Path, tree: str, missing: str):
        expected = ",\n  ".join(f"{root.name or root}/{line}" for line in tree.split("\n"))
        super().__init__(
            f"{name}: {root} does not have the published layout ({missing});\n"
            f"expected\n  {expected};\nfound\n  {', '.join(_found(root))}"
        )


def _found(root: Path) -> list[str]:
    if not root.exists():
        return [f"no {root}"]
    if not root.is_dir():
        return [f"{root.name}, a file"]
    entries = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    more = [f"and {len(entries) - SHOWN} more"] if len(entries) > SHOWN else []
    return entries[:SHOWN] + more or ["nothing in it"]


class Published:
    """What a published data set has besides its images."""

    name = ""
    tree = ""  # expected below the root, a line each
    protocol: dict[str, Any] = {}  # arguments of `ppl_fast.evaluation.regression`; none is AutoLink's protocol

    def read_labels(self) -> Labels | None:
        """The labels of the images, or None where the data set has none."""
        return None


def joints(points: Any, count: int, where: str, what: str) -> np.ndarray:
    """`points` as a float64 array (..., count, 2).

    Raises:
        ValueError: another number of joints, or no numbers; the sentence names the file.
    """
    try:
        found = np.asarray(points, dtype=np.float64)
        got = f"shape {found.shape}"
    except (TypeError, ValueError):
        found, got = np.empty(0), f"something else in a {type(points).__name__}"
    if found.shape[-2:] != (count, 2):
        raise ValueError(f"{where}: {what} must be {count} pairs of numbers, got {got}")
    return found


def from_fractions(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Published labels (..., 2), (row, column) from 0 to 1, as (x, y) in pixels of an image of `size` (W, H).

    0 and 1 become the centres of the first and last pixel, as the published evaluation takes them; a score on images
    of their own size is then exactly the published one.
    """
    return points[..., ::-1] * (np.asarray(size) - 1)
