"""What is exported: from images to keypoints, how sure the model is of them, and named joints, as one module."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppl_fast.inference.confidence import WITHIN, agreement, measure
from ppl_fast.models import LinkModel, optimize

if TYPE_CHECKING:
    from ppl_fast.inference import Calibration
    from ppl_fast.models import KeypointModel
    from ppl_fast.naming import NamedJoints


class Estimator(nn.Module):
    """Keypoints of images and what goes with them, by torch's operations and this package's operators alone.

    Args:
        model: the model; an optimised copy of it is taken.
        iterations: estimation passes.
        visible: whether the part that is not hidden is given as well.
        confidence: whether to tell how sure each keypoint is, which takes two more passes; by a calibration, also which
            error to expect.
        joints: named joints, to give beside the keypoints.

    Raises:
        TypeError, ValueError: iterations that the model cannot do, or a model of another kind.
    """

    def __init__(
        self,
        model: KeypointModel,
        *,
        iterations: int = 1,
        visible: bool = False,
        confidence: bool | Calibration = True,
        joints: NamedJoints | None = None,
    ):
        super().__init__()
        if not model.iterative:
            model.check_one(iterations)
        fast = isinstance(model, LinkModel) and not model.optimized
        self.model = optimize(model) if fast else model
        self.iterations, self.visible = iterations, visible
        self.judge = Judge(None if isinstance(confidence, bool) else confidence) if confidence else None
        self.joints = None if joints is None else Joints(joints)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, visible: Tensor | None = None) -> dict[str, Tensor]:
        """The outputs by name; `outputs` tells what they are.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            visible: (B, 1, S, S) bool, False where the images are hidden.
        """
        if self.judge is None:
            keypoints, seen = self.model.estimate_rounds(images, self.iterations, visible)[-1]
            found = {"keypoints": keypoints}
        else:
            keypoints, evidence, seen = measure(self.model, images, self.iterations, visible)
            found = {"keypoints": keypoints} | self.judge(evidence)
        if self.joints is not None:
            found |= self.joints(images if visible is None else seen, found)
        return found

    def outputs(self) -> dict[str, str]:
        """What each output is, in its order."""
        names = {"keypoints": "x to the right, y down, -1 and +1 at the centres of the outer pixels"}
        if self.judge is not None:
            calibrated = self.judge.calibrated
            likelihood = f"likelihood of an error below {WITHIN:g} of the image's side"
            names["confidence"] = likelihood if calibrated else "score in [0, 1], not calibrated"
            if calibrated:
                names["expected_error"] = "as a fraction of the image's side"
        if self.joints is not None:
            names["joints"] = f"as the keypoints: {', '.join(self.joints.names)}"
            names |= {f"joint_{name}": f"of the joints: {names[name]}" for name in MIXED if name in names}
        return names


MIXED = ("confidence", "expected_error")  # what joints have from the keypoints that they are made of


class Judge(nn.Module):
    """`Calibration.judge`, or without a calibration `uncalibrated`, as a part of a graph.

    Interpolation is a sum over the pieces between the knots, each of which rises from 0 to its height: runtimes have no
    search in a table.
    """

    usual: Tensor
    factors: Tensor
    shared: Tensor
    offsets: Tensor
    starts: Tensor
    widths: Tensor
    heights: Tensor
    first: Tensor

    def __init__(self, calibration: Calibration | None):
        super().__init__()
        self.calibrated = calibration is not None
        if calibration is None:
            return
        c, kinds = calibration, len(calibration.names)
        self.names = c.names
        values = np.stack([c.likelihoods, c.errors])
        constants = {
            "usual": c.usual,  # (F, N)
            "factors": c.weights[:kinds, None] / c.scale,
            "shared": c.weights[kinds:, None] / c.scale / len(c.offsets),
            "offsets": c.offsets,
            "starts": c.scores[:-1],
            "widths": np.maximum(np.diff(c.scores), np.finfo(np.float32).tiny),
            "heights": np.diff(values),  # (2, M - 1)
            "first": values[:, 0],
        }
        for name, value in constants.items():
            self.register_buffer(name, _single(value))

    def forward(self, evidence: dict[str, Tensor]) -> dict[str, Tensor]:
        """Numbers (B, N) by name, of evidence as `measure` gives it."""
        if not self.calibrated:
            return {"confidence": agreement(evidence)}
        excess = torch.stack([evidence[name] for name in self.names], dim=1) - self.usual
        shared = (excess * self.shared).sum(dim=(1, 2)).unsqueeze(1)
        score = (excess * self.factors).sum(dim=1) + shared + self.offsets
        share = ((score.unsqueeze(2) - self.starts) / self.widths).clamp(0, 1).unsqueeze(2)
        likelihood, error = ((share * self.heights).sum(dim=3) + self.first).unbind(dim=2)
        return {"confidence": likelihood, "expected_error": error}


class Joints(nn.Module):
    """`NamedJoints` as a part of a graph."""

    slope: Tensor
    offset: Tensor
    shares: Tensor
    parts: Tensor
    within: Tensor
    errors: Tensor

    def __init__(self, joints: NamedJoints):
        super().__init__()
        points, _, number, _ = joints.map.slope.shape
        self.names, self.skeleton = joints.names, joints.skeleton
        constants = {
            "slope": joints.map.slope.reshape(2 * points, 2 * number),
            "offset": joints.map.offset,
            "shares": joints.shares[:, None],
            "parts": joints.mixed(np.eye(points)),  # of every keypoint in each joint, (N, J)
            "within": joints.left_out[0],
            "errors": joints.left_out[1],
        }
        for name, value in constants.items():
            self.register_buffer(name, _single(value))
        self.network = copy.deepcopy(joints.network)

    def forward(self, images: Tensor, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """Joints (B, J, 2), and what they have of the keypoints' numbers (B, J)."""
        joints = (found["keypoints"].flatten(1) @ self.slope).unflatten(1, self.offset.shape) + self.offset
        if self.network is not None:
            joints = joints + self.shares * (self.network(images) - joints)
        mixed = {name: found[name] @ self.parts for name in MIXED if name in found}
        if "expected_error" in mixed:  # as `NamedJoints.judged`
            mixed["confidence"] = mixed["confidence"] * self.within
            mixed["expected_error"] = (mixed["expected_error"].square() + self.errors.square()).sqrt()
        return {"joints": joints} | {f"joint_{name}": value for name, value in mixed.items()}


def _single(value: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value, dtype=np.float32))
