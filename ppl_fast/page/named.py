"""The joints that `ppl-fast name` has made of a run's keypoints, and how sure both are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ppl_fast._files import readable
from ppl_fast.inference import Calibration, load_calibration
from ppl_fast.inference.poses import Naming
from ppl_fast.inference.posing import device_of
from ppl_fast.models import KeypointModel
from ppl_fast.naming import NamedJoints, has_joints, load_joints
from ppl_fast.training import load_model
from ppl_fast.training.run import find_model
from ppl_fast.visualization import palette

CONFIDENCE = {"key": "confidence", "label": "Confidence", "unit": "of 1", "better": "high"}
CALIBRATED = (
    "The likelihood that a point is off by less than 5 % of the image's side, as calibrated on labelled images."
)
UNCALIBRATED = "Not calibrated (ppl-fast calibrate): it tells pictures apart, but hardly one point from another."


@dataclass
class Noting:
    """A naming that keeps what it was given last: keypoints, and their confidence."""

    naming: Naming
    keypoints: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0, 2)))
    confidence: NDArray[np.float64] | None = None

    @property
    def names(self) -> list[str]:
        """See `Naming`."""
        return self.naming.names

    @property
    def skeleton(self) -> list[tuple[int, int]]:
        """See `Naming`."""
        return self.naming.skeleton

    def __call__(self, images: Tensor, keypoints: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Naming`."""
        self.keypoints, self.confidence = keypoints, None
        return self.naming(images, keypoints)

    def mixed(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `Naming`; what is mixed of a batch is its confidence."""
        self.confidence = values
        return self.naming.mixed(values)

    def judged(
        self, likelihood: NDArray[np.float64], error: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See `Naming`."""
        self.confidence = likelihood
        return self.naming.judged(likelihood, error)


@dataclass(frozen=True)
class Sureness:
    """What a run has beside its model.

    Attributes:
        joints: the named ones; None where none were named.
        confidence: as `ppl_fast.inference.estimate` takes it: False for a run with neither joints nor calibration.
    """

    joints: Noting | None = None
    confidence: bool | Calibration = False

    def measures(self) -> list[dict[str, Any]]:
        """What the page is told of confidence."""
        about = CALIBRATED if isinstance(self.confidence, Calibration) else UNCALIBRATED
        return [] if self.confidence is False else [CONFIDENCE | {"about": about}]

    def described(self) -> dict[str, Any] | None:
        """Names, bones and colours of the joints."""
        if self.joints is None:
            return None
        names = [readable(name) for name in self.joints.names]
        colours = ["#{:02x}{:02x}{:02x}".format(*colour) for colour in palette(len(names))]
        return {"names": names, "links": [list(bone) for bone in self.joints.skeleton], "colours": colours}

    def keypoint_names(self) -> list[str] | None:
        """Names of the first keypoints, where the run was trained to have the joints there."""
        naming = None if self.joints is None else self.joints.naming
        if not (isinstance(naming, NamedJoints) and naming.are_keypoints):
            return None
        return [readable(name) for name in naming.names]


def beside(run: Path, model: KeypointModel, joints: NamedJoints | None = None) -> Sureness:
    """What lies beside the model of a run.

    Args:
        run: a run's directory, a checkpoint, or a saved model.
        model: its model; for named joints a copy by `optimize` does not do, and another one is read.
        joints: the named ones, where they were read already.

    Raises:
        ValueError: it is damaged, or was made for another model.
    """
    folder = find_model(run)
    if joints is None and has_joints(folder):
        joints = load_joints(folder, load_model(run).to(device_of(model)).eval() if model.optimized else model)
    calibration = load_calibration(folder, model.settings.num_keypoints)
    return Sureness(None if joints is None else Noting(joints), calibration or joints is not None)
