"""Named joints beside a model: what turns its keypoints into them, on disk and in use."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppl_fast._documents import read_json
from ppl_fast._files import replacing, write_text
from ppl_fast.models.checkpoint import JOINTS, JOINTS_REPORT, WEIGHTS, digest_of_weights
from ppl_fast.models.link_model import LinkModel
from ppl_fast.models.weights import safetensors
from ppl_fast.naming.forms import Array
from ppl_fast.naming.linear import LinearMap
from ppl_fast.naming.network import JointNetwork, JointNetworks

if TYPE_CHECKING:
    from typing_extensions import Self

    from ppl_fast.models import KeypointModel


@dataclass(frozen=True)
class NamedJoints:
    """From a model's keypoints, and the images they were found in, to named joints.

    Attributes:
        names: J.
        skeleton: bones, pairs of joint numbers.
        map: from keypoints.
        shares: (J,), how much the network weighs in each joint; the rest is the map's.
        network: the mean of those from images; None where the map does without.
        labelled: (n, N, 2) float64, the keypoints of the labelled images.
        report: errors on images left out, by joint; see `name_joints`. Empty where no map was fitted.
    """

    names: list[str]
    skeleton: list[tuple[int, int]]
    map: LinearMap
    shares: Array
    network: JointNetworks | None
    labelled: Array
    report: dict[str, Any]

    @classmethod
    def first(cls, names: Sequence[str], skeleton: Sequence[tuple[int, int]], keypoints: int) -> Self:
        """The first of so many keypoints as they are, for a model that was trained to have the joints there."""
        slope = np.einsum("nj,ab->najb", np.eye(keypoints, len(names)), np.eye(2))
        return cls(
            names=[*names],
            skeleton=[(int(a), int(b)) for a, b in skeleton],
            map=LinearMap(slope, np.zeros((len(names), 2))),
            shares=np.zeros(len(names)),
            network=None,
            labelled=np.zeros((0, keypoints, 2)),
            report={},
        )

    @property
    def are_keypoints(self) -> bool:
        """Whether the joints are the first keypoints as they are, as `first` makes them."""
        own = type(self).first(self.names, self.skeleton, len(self.map.slope)).map
        return self.network is None and all(
            np.array_equal(*pair) for pair in ((self.map.slope, own.slope), (self.map.offset, own.offset))
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, keypoints: NDArray[np.float64]) -> Array:
        """Joints (n, J, 2), (x, y) in [-1, 1], of images (n, 3, S, S) and their keypoints (n, N, 2)."""
        joints = self.map(keypoints)
        if self.network is not None:
            found = self.network.joints(images)
            joints = joints + self.shares[:, None] * (found - joints)
        return joints

    def mixed(self, values: NDArray[np.float64]) -> Array:
        """(n, J) of numbers (n, N) of the keypoints, each joint by how much the map makes of every keypoint."""
        parts = np.abs(self.map.slope).sum(axis=(1, 3)) + 1e-9  # alike, where a joint is the mean pose
        return np.asarray(values @ (parts / parts.sum(axis=0)))

    def judged(self, likelihood: NDArray[np.float64], error: NDArray[np.float64]) -> tuple[Array, Array]:
        """Likelihoods and expected errors (n, J) by those of the keypoints (n, N), as fractions of the image's side.

        Keypoints know nothing of how well joints follow from them, so the likelihood is that of the keypoints times the
        share of images left out that a joint was right in, and errors add up in squares: as if both were independent.
        """
        within, errors = self.left_out
        return self.mixed(likelihood) * within, np.hypot(self.mixed(error), errors)

    @property
    def left_out(self) -> tuple[Array, Array]:
        """By joint (J,): the share of images left out that it was right in, and its error there.

        0 and 1, all of the image, where labels never told; 1 and 0 where no map was fitted, which could err.
        """
        if not self.report:
            return np.ones(len(self.names)), np.zeros(len(self.names))
        of = [self.report["joints"].get(name, {}) for name in self.names]
        within, errors = (np.array([each.get(key) for each in of], dtype=np.float64) for key in ("within", "error"))
        return np.nan_to_num(within), np.nan_to_num(errors, nan=1.0)

    def disagreement(self, images: Tensor, keypoints: NDArray[np.float64]) -> Array:
        """(n,) mean distance of the network's joints to the map's: how unsure both together are; 0 without one."""
        if self.network is None:
            return np.zeros(len(keypoints))
        difference = self.network.joints(images) - self.map(keypoints)
        return np.asarray(np.hypot(difference[..., 0], difference[..., 1]).mean(axis=1))

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write joints.safetensors and joints.json into a model's directory, each whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        directory = Path(directory)
        arrays = {"slope": self.map.slope, "offset": self.map.offset, "shares": self.shares, "labelled": self.labelled}
        tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
        if self.network is not None:
            state = self.network.state_dict()
            tensors |= {f"network.{key}": value.detach().cpu().contiguous() for key, value in state.items()}
        with replacing(directory / JOINTS) as temporary:
            safetensors().torch.save_file(tensors, temporary)
        content = {"names": self.names, "skeleton": self.skeleton, "report": self.report}
        if not self.are_keypoints and (directory / WEIGHTS).is_file():
            content["model"] = digest_of_weights(directory)
        write_text(directory / JOINTS_REPORT, json.dumps(content, indent=2) + "\n")


def has_joints(directory: str | os.PathLike[str]) -> bool:
    """Whether joints were named for the model in a directory."""
    return all(Path(directory, name).is_file() for name in (JOINTS_REPORT, JOINTS))


def load_joints(directory: str | os.PathLike[str], model: KeypointModel) -> NamedJoints | None:
    """What `NamedJoints.save` wrote beside a model; None where nothing was.

    Args:
        directory: the model's.
        model: the one that the joints were named for.

    Raises:
        ValueError: a broken file, or one that was made for another model or other weights; it is named.
    """
    directory = Path(directory)
    if not has_joints(directory):
        return None
    try:
        content = read_json(directory / JOINTS_REPORT)
        names = [str(name) for name in content["names"]]
        skeleton = [(int(a), int(b)) for a, b in content["skeleton"]]
        report, model_digest = dict(content["report"]), content.get("model")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{directory / JOINTS_REPORT}: no named joints ({type(error).__name__}: {error})") from error
    if model_digest and (directory / WEIGHTS).is_file() and model_digest != digest_of_weights(directory):
        raise ValueError(
            f"{directory / JOINTS_REPORT}: joints named for other weights than those beside it; name them anew by "
            "ppl-fast name, or remove it"
        )
    try:
        tensors = safetensors().torch.load_file(directory / JOINTS)
        arrays = {name: tensors.pop(name).double().numpy() for name in ("slope", "offset", "shares", "labelled")}
    except Exception as error:  # what safetensors raises is its own
        raise ValueError(f"{directory / JOINTS}: no named joints ({type(error).__name__}: {error})") from error
    points, joints = model.settings.num_keypoints, len(names)
    shapes = {"slope": (points, 2, joints, 2), "offset": (joints, 2), "shares": (joints,)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"{directory / JOINTS}: {name} must have shape {shape} for this model and its {joints} joints, got "
                f"{arrays[name].shape}"
            )
    network = _network(tensors, model, joints, directory / JOINTS) if tensors else None
    map_ = LinearMap(arrays["slope"], arrays["offset"])
    return NamedJoints(names, skeleton, map_, arrays["shares"], network, arrays["labelled"], report)


def _network(tensors: dict[str, Tensor], model: KeypointModel, joints: int, path: Path) -> JointNetworks:
    if not isinstance(model, LinkModel):
        raise ValueError(f"{path}: its network needs the trunk of a LinkModel, got a {type(model).__name__}")
    if model.optimized:
        raise ValueError(f"{path}: its network needs the model's own trunk; load it with the model that was optimised")
    state = {key.removeprefix("network."): value for key, value in tensors.items()}
    if "weights" not in state or state["weights"].shape[1:] != (joints,):
        raise ValueError(f"{path}: no networks of these {joints} joints in it: name them anew")
    known = torch.ones(len(state["weights"]), joints, dtype=torch.bool)
    network = JointNetworks([JointNetwork.beside(model, joints) for _ in known], known).to(next(model.parameters()))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path}: its networks are not this model's: {str(error).splitlines()[1].strip()}") from error
    return network.eval()
