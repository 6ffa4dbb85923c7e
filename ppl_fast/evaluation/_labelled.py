"""Labels brought together with the images that they are of; what does not fit is said, or refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from ppl_fast._files import readable
from ppl_fast.data import Labels, from_pixels
from ppl_fast.data.coordinates import to_view

TEST_SHARE = 0.2  # of a single labelled set, taken from its end
SAME = 1e-2  # how far the ratio of the sides may differ where an image was scaled after it was labelled
T = TypeVar("T", covariant=True)
OUTSIDE = 0.5  # share of joints that may lie outside of their images


class Beside(Protocol[T]):
    """What has something for each row of a data set."""

    def __getitem__(self, row: int, /) -> T: ...


@dataclass(frozen=True)
class Split:
    """Labelled images: the images themselves, joints (n, J, 2) in [0, 1] and which are visible (n, J)."""

    images: Subset[Tensor]
    joints: np.ndarray
    visible: np.ndarray

    def __len__(self) -> int:
        return len(self.joints)

    def beside(self, dataset: Beside[T]) -> list[T]:
        """What another data set, or a list, in step with the data set of the images, has for each of them."""
        rows, subset = list(range(len(self))), self.images
        while True:
            rows = [subset.indices[row] for row in rows]
            if not isinstance(subset.dataset, Subset):
                return [dataset[row] for row in rows]
            subset = subset.dataset

    def clips(self, dataset: Any) -> list[str]:
        """Which clip each of them is of, by the folders of the data set's paths."""
        return [str(PurePosixPath(name).parent) for name in self.beside(dataset.paths)]

    def part(self, rows: slice) -> Split:
        """Some of them, in order."""
        return Split(Subset(self.images, range(len(self))[rows]), self.joints[rows], self.visible[rows])


def unit_joints(keypoints: np.ndarray, image_size: int, original_sizes: Any, boxes: Any = None) -> np.ndarray:
    """Labels (n, J, 2) in pixels of the originals of sizes (n, 2) (W, H) as joints, xy in [0, 1].

    0 and 1 are the centres of the first and last pixel of the resized image, like -1 and +1 of detected keypoints;
    where `boxes` (n, 5) says what of the originals the model sees, of that.
    """
    if boxes is not None:
        return (to_view(np.asarray(keypoints, np.float64), image_size, boxes) + 1) / 2
    return (from_pixels(np.asarray(keypoints, np.float64), image_size, original_sizes) + 1) / 2


def both_splits(
    train_dataset: Any, train_labels: Labels, test_dataset: Any, test_labels: Labels | None, max_missing_share: float
) -> tuple[Split, Split, str, list[str]]:
    """The labelled images to fit on and to test on; how they were divided; and what is to be said about them.

    Raises:
        ValueError: images and labels do not fit together.
    """
    if (test_dataset is None) != (test_labels is None):
        raise ValueError("evaluate_model: test_dataset and test_labels must be given together, got one of them")
    train, notes = labelled_split(train_dataset, train_labels, "evaluate_model", max_missing_share, "train")
    if test_dataset is None or test_labels is None:
        train, test = _divide(train)
        split = f"the last {len(test)} of {len(train) + len(test)} labelled images by name are the test images"
    else:
        test, more = labelled_split(test_dataset, test_labels, "evaluate_model", max_missing_share, "test")
        split, notes = "separate training and test sets", notes + more
    return train, test, split, notes


def labelled_split(
    dataset: Any, labels: Labels, owner: str, max_missing_share: float = 0.5, which: str = ""
) -> tuple[Split, list[str]]:
    """The images of a data set that have labels, and what is to be said about images and labels that do not fit.

    Args:
        dataset: `ppl_fast.data.ImageFolder`-like, with `paths`, `original_sizes` and `image_size`.
        labels: in pixels of the original images, or of larger or smaller ones whose sizes they tell.
        owner: who asks, for messages.
        max_missing_share: of the labels that may name no image.
        which: what the two are called beside others, "train" or "test", for messages.

    Raises:
        ValueError: nothing fits, or too little.
    """
    of, prefix = (which and f"{which}{mark}" for mark in " _")
    argument = f"{owner}: {prefix}labels"
    positions, rows = labels.match(dataset.paths)
    if not len(rows):
        raise ValueError(
            f"{argument} must name images of {prefix}dataset, got none in common "
            f"(an image: {dataset.paths[0]}, a label: {labels.files[0] if len(labels) else 'none'})"
        )
    cropped = getattr(dataset, "cropped", False)
    notes = _unmatched(dataset.paths, labels, positions, rows, owner, max_missing_share, of, cropped)
    found, sizes = labels.select(rows), np.asarray(dataset.original_sizes, np.float64)[positions]
    keypoints, scaled = _at_size(found, sizes, argument, of)
    notes += scaled
    _check_inside(found, keypoints, sizes, argument)
    boxes = getattr(dataset, "boxes", None)
    joints = unit_joints(keypoints, dataset.image_size, sizes, None if boxes is None else boxes[positions])
    if boxes is not None:
        side = np.nanmean(boxes[positions][:, 2])
        notes.append(
            f"of the {of}images the model sees parts; errors are fractions of these parts' sides, {side:.0f} pixels in "
            "the mean"
        )
    some = found.visible.any(axis=1)
    if not some.any():
        raise ValueError(f"{argument} must show at least one joint, got none in {len(rows)} images")
    return Split(Subset(dataset, positions[some].tolist()), joints[some], found.visible[some]), notes


def _unmatched(
    paths: list[str],
    labels: Labels,
    positions: np.ndarray,
    rows: np.ndarray,
    owner: str,
    max_missing_share: float,
    of: str,
    cropped: bool,
) -> list[str]:
    """How many labels found no image, and how many images no label; too many of the former are an error."""
    matched, named = set(rows.tolist()), set(positions.tolist())
    lost = [file for row, file in enumerate(labels.files) if row not in matched]
    bare = [path for position, path in enumerate(paths) if position not in named]
    notes = []
    if lost:
        unseen = ", or one that shows no animal" * cropped
        text = f"{len(lost)} of {len(labels)} {of}labels name no image{unseen}, such as {readable(lost[0])}"
        if len(lost) > max_missing_share * len(labels):
            raise ValueError(f"{owner}: {text}; at most a share of {max_missing_share:g} may")
        notes.append(text)
    if bare:
        notes.append(f"{len(bare)} of {len(paths)} {of}images have no label, such as {readable(bare[0])}")
    return notes


def _at_size(labels: Labels, sizes: np.ndarray, argument: str, of: str) -> tuple[np.ndarray, list[str]]:
    """Keypoints in pixels of the images as they are, (n, 2) (W, H), where the labelled ones were larger or smaller."""
    if labels.sizes is None:
        return labels.keypoints, []
    other = (labels.sizes > 0).all(axis=1) & (labels.sizes != sizes).any(axis=1)
    if not other.any():
        return labels.keypoints, []
    ratio = sizes[other] / labels.sizes[other]
    skewed = np.abs(ratio[:, 0] / ratio[:, 1] - 1) > SAME
    first = np.flatnonzero(other)[np.argmax(skewed)]
    (before, after), name = (tuple(map(int, each[first])) for each in (labels.sizes, sizes)), labels.files[first]
    if skewed.any():
        raise ValueError(
            f"{argument} are of images of other sides: {readable(name)} was labelled at {before} "
            f"pixels (W, H), the file has {after}"
        )
    keypoints = labels.keypoints.copy()
    keypoints[other] = (keypoints[other] + 0.5) * ratio[:, None] - 0.5
    text = f"{int(other.sum())} {of}labels are scaled to their images: {readable(name)} from {before} to {after}"
    return keypoints, [text]


def _check_inside(labels: Labels, keypoints: np.ndarray, sizes: np.ndarray, argument: str) -> None:
    """Refuse coordinates that cannot be pixels of these images: most of them outside, or all of them fractions."""
    seen, limits = keypoints[labels.visible], np.repeat(sizes, labels.visible.sum(axis=1), axis=0)
    if not len(seen):
        return
    outside = ((seen < -1) | (seen > limits)).any(axis=1)
    if outside.mean() > OUTSIDE:
        worst = int(np.argmax(outside))
        at, size = tuple(seen[worst].round(1).tolist()), tuple(limits[worst].astype(int).tolist())
        raise ValueError(
            f"{argument} must be in pixels of the images, got {outside.mean():.0%} of the joints "
            f"outside, such as {at} in {size} pixels"
        )
    if len(seen) > 1 and seen.min() >= 0 and seen.max() <= 1:
        raise ValueError(f"{argument} must be in pixels of the images, got fractions of 0 to 1 alone")


def _divide(labelled: Split) -> tuple[Split, Split]:
    # The end of the sorted names rather than a random draw: neighbouring frames of a video stay on one side.
    if len(labelled) < 2:
        raise ValueError(f"evaluate_model: a split needs at least 2 labelled images, got {len(labelled)}")
    first_test = len(labelled) - max(1, round(TEST_SHARE * len(labelled)))
    return labelled.part(slice(first_test)), labelled.part(slice(first_test, None))
