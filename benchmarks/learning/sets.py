"""Data to learn from and to measure on: images without labels, labels to fit a regression, and a part to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppl_fast.data import ImageFolder, load_labels, make_figures

IMAGES, JUDGED = 3500, 500


@dataclass(frozen=True)
class LearningSet:
    """A set by name and seed.

    Attributes:
        train: what a model is trained on, its labels unread.
        fit: labelled images (data set, labels) that the regression is fitted on.
        judged: labelled images that nobody has trained or fitted on.
    """

    train: Path
    fit: tuple[Any, Any]
    judged: tuple[Any, Any]


def open_set(name: str, seed: int, judged: str, size: int, cache: Path) -> LearningSet:
    """Figures drawn before one background ("lab") or several ("studio"), drawn once into the cache.

    Args:
        name: a difficulty of `make_figures`.
        seed: of rooms, outfits and poses.
        judged: "validation", for choosing options, or "test".
        size: pixels a side.
        cache: folder of the drawn figures.
    """
    folders = {}
    for split, count in (("train", IMAGES), (judged, JUDGED)):
        folders[split] = cache / f"{name}-{seed}-{split}-{size}"
        if not folders[split].exists():
            make_figures(folders[split], count, size=size, seed=seed, difficulty=name, split=split)
    fit, part = ((ImageFolder(folders[s], size), load_labels(folders[s])) for s in ("train", judged))
    return LearningSet(folders["train"], fit, part)
