"""From a trained model and a few labelled images to named joints, with their errors on images left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppl_fast import _check
from ppl_fast._digest import digest
from ppl_fast._messages import short
from ppl_fast._side_by_side import side_by_side
from ppl_fast.evaluation import joint_errors, labelled_split, mean_over
from ppl_fast.evaluation.folds import by_clips, fold_numbers
from ppl_fast.inference import predict
from ppl_fast.inference.confidence import WITHIN
from ppl_fast.inference.posing import device_of
from ppl_fast.models.base import KeypointModel
from ppl_fast.models.link_model import LinkModel
from ppl_fast.naming import linear
from ppl_fast.naming.forms import Array
from ppl_fast.naming.linear import LinearMap
from ppl_fast.naming.named import NamedJoints
from ppl_fast.naming.network import JointNetwork, JointNetworks, Schedule, predicted, trained

if TYPE_CHECKING:
    from typing_extensions import Self

    from ppl_fast.data import Labels
    from ppl_fast.data.image_set import ImageSet

DEFAULT = Schedule()
FOLDS = 5  # of the images; a network without each tells how large errors are
NETWORKS = 3  # on all images, whose mean counts
FARTHEST = 2.0  # where half of the joints are farther from the middle, they are in pixels
NORMAL = 1.96  # standard errors to each side of a 95 % interval


@dataclass(frozen=True)
class Labelled:
    """Labelled images.

    Attributes:
        images: (n, 3, S, S) float32 in [-1, 1].
        joints: (n, J, 2) float64, (x, y) in [-1, 1].
        shown: (n, J) bool, which of these are labelled.
        names: J.
        skeleton: bones, pairs of joint numbers.
        clips: n, which video or folder each is of; none if that is not known.
        cropped: whether the images are parts of larger ones.

    Raises:
        TypeError, ValueError: they do not fit together.
    """

    images: Tensor
    joints: Array
    shown: NDArray[np.bool_]
    names: Sequence[str]
    skeleton: Sequence[tuple[int, int]] = ()
    clips: Sequence[str] = ()
    cropped: bool = False

    def __post_init__(self) -> None:
        """Refuse what does not fit together: what is learned from it would be wrong without a word."""
        _check.tensor("Labelled", "images", self.images, ("n", 3, "S", "S"), dtypes=(torch.float32,))
        n, names = len(self.images), list(self.names)
        joints, shown = self.joints, self.shown
        for name, value in (("joints", joints), ("shown", shown)):
            if not isinstance(value, np.ndarray):
                raise TypeError(f"Labelled: {name} must be a NumPy array, got {type(value).__name__}")
        if joints.shape != (n, len(names), 2) or joints.dtype.kind != "f":
            raise ValueError(
                f"Labelled: joints must be floats of shape {(n, len(names), 2)}, of {n} images and {len(names)} names, "
                f"got {joints.dtype} of {joints.shape}"
            )
        if shown.shape != joints.shape[:2] or shown.dtype != bool:
            raise ValueError(
                f"Labelled: shown must be bool of shape {joints.shape[:2]}, got {shown.dtype} of {shown.shape}"
            )
        told = np.abs(joints[shown])
        if not np.isfinite(told).all() or (told.size and np.median(told) > FARTHEST):
            raise ValueError(
                "Labelled: joints must be numbers in [-1, 1] where they are shown, -1 and 1 at the centres of the "
                "first and last pixel"
            )
        if len({*names}) < len(names) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"Labelled: names must be texts that differ, got {short(names)}")
        if not all(len(bone) == 2 and {*bone} <= {*range(len(names))} for bone in self.skeleton):
            raise ValueError(
                f"Labelled: skeleton must be pairs of numbers below {len(names)}, got {short(self.skeleton)}"
            )
        if len(self.clips) not in (0, n):
            raise ValueError(f"Labelled: clips must be one for each of the {n} images or none, got {len(self.clips)}")

    def __len__(self) -> int:
        return len(self.images)

    @classmethod
    def of(
        cls, dataset: ImageSet, labels: Labels, owner: str, max_missing_share: float = 0.5
    ) -> tuple[Self, list[str]]:
        """The images of a data set that have labels, all at once: they are few; and what is to be said about them.

        Raises:
            ValueError: images and labels do not fit together, or more than that share of the labels names no image.
        """
        split, notes = labelled_split(dataset, labels, owner, max_missing_share)
        images = torch.stack([split.images[i] for i in range(len(split))])
        joints, clips = split.joints * 2 - 1, split.clips(dataset)
        return cls(images, joints, split.visible, labels.names, labels.skeleton, clips, dataset.cropped), notes

    @property
    def digest(self) -> str:
        """Of images and labels, which tells those that joints were named by from others."""
        return digest([self.images, self.joints, self.shown, list(self.names)])


def name_joints(
    model: KeypointModel,
    labelled: Labelled,
    schedule: Schedule | None = DEFAULT,
    advanced: Callable[[], object] = lambda: None,
    processes: int = 1,
) -> NamedJoints:
    """Fit a map from a model's keypoints, and networks on its trunk, to named joints; blend them by their errors.

    Map and networks are fitted on all labelled images, and for comparison without each fold of them. Folds are of whole
    clips where there are enough of these. What is predicted for images left out decides how much map and networks weigh
    for each joint, and gives the errors that are reported: for the networks, of which the mean of several is kept, that
    of a single one which has seen fewer images.

    Args:
        model: trained; it is left as it is.
        labelled: the images and labels.
        schedule: of each network; None goes without, by the map from keypoints alone.
        advanced: called after each step of a network, `steps_of` in all.
        processes: that networks learn in, side by side, with a share of torch's threads each: one network cannot keep
            several busy. A program that asks for more than one is guarded by `if __name__ == "__main__":`.

    Raises:
        ValueError: fewer than 2 images, no joint labelled in at least 2 of them, a copy of a model by `optimize`, or
            one without a trunk to learn networks on.
    """
    if model.optimized:
        raise ValueError("name_joints: model must be the trained one, got its copy by optimize, whose trunk is another")
    if len(labelled) < 2 or not (labelled.shown.sum(axis=0) > 1).any():
        raise ValueError(
            f"name_joints: labelled must show a joint in at least 2 images, got {len(labelled)} images that show "
            f"{int(labelled.shown.sum())} joints"
        )
    keypoints = predict(model, labelled.images, progress=False)
    fitted = linear.fit(keypoints, labelled.joints, labelled.shown, labelled.clips)
    blended, shares, network = fitted.left_out, np.zeros(labelled.joints.shape[1]), None
    if schedule is not None:
        if not isinstance(model, LinkModel):
            raise ValueError(f"name_joints: networks need the trunk of a LinkModel, got a {type(model).__name__}")
        network, left_out = _networks(model, labelled, schedule, advanced, processes)
        shares = linear.weights(np.stack([_by_joint(each, labelled) for each in (fitted.left_out, left_out)]))[1]
        shares[~labelled.shown.any(axis=0)] = 0  # of these a network knows nothing either
        blended = np.where(shares[:, None] > 0, blended + shares[:, None] * (left_out - blended), blended)
    return NamedJoints(
        names=list(labelled.names),
        skeleton=[(int(a), int(b)) for a, b in labelled.skeleton],
        # A joint that no label shows is at the image's centre in what is written, and not NaN.
        map=LinearMap(np.nan_to_num(fitted.map.slope), np.nan_to_num(fitted.map.offset)),
        shares=shares,
        network=network,
        labelled=keypoints,
        report=_report(labelled, blended, fitted, shares),
    )


def steps_of(images: int, schedule: Schedule | None) -> int:
    """How many steps of networks `name_joints` takes on so many images."""
    return 0 if schedule is None else schedule.steps * (min(images, FOLDS) + NETWORKS)


def _networks(
    model: LinkModel, labelled: Labelled, schedule: Schedule, advanced: Callable[[], object], processes: int
) -> tuple[JointNetworks, Array]:
    """Networks, and (1, n, J, 2): each image's joints by one that has not seen it, NaN where that never saw one."""
    device, every = device_of(model), np.arange(len(labelled))
    joints, shown = torch.from_numpy(np.nan_to_num(labelled.joints)), torch.from_numpy(labelled.shown)
    images, joints, shown = (each.to(device) for each in (labelled.images, joints, shown))
    fold = fold_numbers(len(labelled), 0, FOLDS, labelled.clips)
    rows = [np.flatnonzero(fold != number) for number in np.unique(fold)] + [every] * NETWORKS
    calls = [(torch.from_numpy(r), replace(schedule, seed=schedule.seed + i)) for i, r in enumerate(rows, 1)]
    networks = side_by_side(_network, (model, images, joints, shown), calls, processes, advanced)
    found = np.full((1, *labelled.joints.shape), np.nan)
    for seen, network in zip(rows[:-NETWORKS], networks, strict=False):
        held = np.setdiff1d(every, seen)
        points = predicted(network, images[torch.from_numpy(held)])
        known = np.any(labelled.shown[seen], axis=0, keepdims=True).T
        found[0, held] = np.where(known, points.cpu().double().numpy(), np.nan)
    known_to_all = shown.any(dim=0).expand(NETWORKS, -1)
    return JointNetworks(networks[-NETWORKS:], known_to_all).eval(), found


def _network(
    model: LinkModel,
    images: Tensor,
    joints: Tensor,
    shown: Tensor,
    rows: Tensor,
    schedule: Schedule,
    advanced: Callable[[], object],
) -> JointNetwork:
    return trained(model, images[rows], joints[rows], shown[rows], schedule, advanced)


def _by_joint(left_out: Array, labelled: Labelled) -> Array:
    return np.asarray(mean_over(joint_errors(left_out, labelled.joints, labelled.shown), axis=(0, 1)))


def _report(labelled: Labelled, blended: Array, fitted: linear.Fitted, shares: Array) -> dict[str, Any]:
    """Errors on images left out, as fractions of the image size; JSON-able."""
    errors = mean_over(joint_errors(blended, labelled.joints, labelled.shown), axis=(0,)) / 2  # [-1, 1] is 2 wide
    by_keypoints, mean_pose = (_by_joint(fitted.left_out, labelled) / 2, fitted.errors["mean"] / 2)
    joints = {}
    for j, name in enumerate(labelled.names):
        known = errors[:, j][~np.isnan(errors[:, j])]
        joints[name] = {
            "labels": int(labelled.shown[:, j].sum()),
            "error": _number(mean_over(known)),
            "interval": float(NORMAL * known.std(ddof=1) / math.sqrt(len(known))) if len(known) > 1 else None,
            "by_keypoints": _number(by_keypoints[j]),
            "mean_pose": _number(mean_pose[j]),
            "within": float((known < WITHIN).mean()) if len(known) else None,
            "network": round(float(shares[j]), 3),
            "forms": {form: round(float(share[j]), 3) for form, share in fitted.shares.items()},
        }
    everywhere = {
        "error": _number(mean_over(errors)),
        "mean_pose": _number(mean_over(mean_pose)),
        "placed_mean_pose": _number(_placed_mean_pose(labelled)),
    }
    clips = len(set(labelled.clips)) if by_clips(labelled.clips) else None
    folders = len(set(labelled.clips)) or None
    about = {"images": len(labelled), "labels": labelled.digest, "folders": folders, "clips": clips}
    return {**about, **everywhere, "joints": joints}


def _placed_mean_pose(labelled: Labelled) -> float:
    """The error of a pose that is the same everywhere, at the place that each image's labels have; NaN if unknown.

    What knows where the animal is, and nothing of how it stands, errs so. Of images that show three joints or more;
    each is left out of the mean pose that it is measured by.
    """
    enough = labelled.shown.sum(axis=1) >= 3
    if enough.sum() < 2:
        return math.nan
    joints = np.where(labelled.shown[..., None], labelled.joints, np.nan)[enough]
    relative = joints - np.nanmean(joints, axis=1, keepdims=True)
    known = ~np.isnan(relative)
    others = known.sum(axis=0) - known
    left_out = (np.nansum(relative, axis=0) - np.nan_to_num(relative)) / np.maximum(others, 1)
    return float(mean_over(joint_errors(left_out[None], relative, (known & (others > 0))[..., 0])) / 2)


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
