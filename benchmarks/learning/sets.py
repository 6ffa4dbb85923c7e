"""Data to learn from and to measure on: images without labels, labels to fit a regression, and a part to judge by."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast._files import new_folder
from ppl_fast.data import ImageFolder, load_labels, make_figures
from ppl_fast.data import open_set as open_labelled
from ppl_fast.data.clips import find_media

FIGURES = ("lab", "studio")
IMAGES, JUDGED = 3500, 500
HELD_OUT, VALIDATION = 0.31, 0.25  # shares: of a project's labelled images, and of those that are left


@dataclass(frozen=True)
class LearningSet:
    """A set by name and seed.

    Attributes:
        train: what a model is trained on, its labels unread.
        fit: labelled images (data set, labels) that the regression is fitted on.
        judged: labelled images that nothing was fitted on, nor trained; but of a project, its videos, which are trained
            on without labels, may show the same moments.
        masks: folders of masks of the images to train on and of those to judge by; None where there are none.
    """

    train: Path
    fit: tuple[Any, Any]
    judged: tuple[Any, Any]
    masks: tuple[Path, Path] | None = None


def open_set(name: str, seed: int, judged: str, size: int, cache: Path) -> LearningSet:
    """Figures drawn before one background ("lab") or several ("studio"), drawn once into the cache; or a project.

    Args:
        name: of `FIGURES`, or the folder of a project with labels, as `ppl-fast train` takes it.
        seed: of rooms, outfits and poses; of a project, of which labelled images are held out.
        judged: "validation", for choosing options, or "test".
        size: pixels a side.
        cache: folder of the drawn figures, and of links to a project's images and videos.
    """
    if name not in FIGURES:
        return _project(Path(name), seed, judged, size, cache)
    folders = {}
    for split, count in (("train", IMAGES), (judged, JUDGED)):
        folders[split] = cache / f"{name}-{seed}-{split}-{size}"
        if not folders[split].exists():
            make_figures(
                folders[split], count, size=size, seed=seed, difficulty=name, split=split, masks=beside(folders[split])
            )
    fit, part = ((ImageFolder(folders[s], size), load_labels(folders[s])) for s in ("train", judged))
    masks = beside(folders["train"]), beside(folders[judged])
    return LearningSet(folders["train"], fit, part, masks if all(each.exists() for each in masks) else None)


def beside(folder: Path) -> Path:
    """The folder of the figures' masks."""
    return folder.with_name(f"{folder.name}-masks")


def _project(root: Path, seed: int, judged: str, size: int, cache: Path) -> LearningSet:
    """A project's videos and images, without those that are held out, of the test part in any case."""
    labelled = open_labelled(root, size, split="fit")
    labels, names = labelled.labels, labelled.dataset.paths
    positions, rows = labels.match(names)
    order = np.random.default_rng(seed).permutation(len(rows))
    test, rest = np.split(order, [round(HELD_OUT * len(order))])
    validation = rest[: round(VALIDATION * len(rest))]
    parts = {"test": (rest, test), "validation": (rest[len(validation) :], validation)}[judged]
    held = {names[positions[i]] for part in (test, *([validation] if judged == "validation" else [])) for i in part}
    images, videos, _ = find_media(root)
    folder = cache / f"{root.name}-{seed}-{judged}"
    if not folder.exists():
        _links(root, folder, [*(name for name in images if name not in held), *videos])
    pairs = []
    for which, part in zip(("fit", "judged"), parts, strict=True):
        if not (beside := folder.with_name(f"{folder.name}-{which}")).exists():
            _links(root, beside, [names[positions[i]] for i in part])
        pairs.append((ImageFolder(beside, size), labels.select(rows[np.sort(part)])))
    return LearningSet(folder, pairs[0], pairs[1])


def _links(root: Path, folder: Path, names: list[str]) -> None:
    """A folder of links to some of another's files."""
    with new_folder(folder) as made:
        for name in names:
            link = Path(made, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink((root / name).resolve(), link)
