"""Labels inside the training: what `train` reads of them, tells the model, and keeps beside it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ppl_fast._files import readable
from ppl_fast._messages import listed
from ppl_fast.data import open_set
from ppl_fast.data.sets import known_name
from ppl_fast.evaluation import matching
from ppl_fast.inference import predict
from ppl_fast.models import KeypointModel
from ppl_fast.models.extended import Extension
from ppl_fast.models.joints import JointLabels, NamedKeypoints
from ppl_fast.naming import Labelled, NamedJoints, has_joints, load_joints
from ppl_fast.training.config import TrainConfig
from ppl_fast.training.warm_start import reorder


@dataclass(frozen=True)
class TrainingLabels:
    """Labelled images of a run, whose joints its first keypoints are to be.

    Attributes:
        labelled: the images, and where their joints are.
        notes: what is to be said about images and labels that do not fit together.
        spec: where they are from.
    """

    labelled: Labelled
    notes: list[str]
    spec: str

    def report(self, model: KeypointModel) -> str:
        """What is trained on, in lines for the log."""
        names, number = [*map(readable, self.labelled.names)], model.settings.num_keypoints
        first = f"{len(self.labelled)} labelled images in {readable(self.spec)}"
        return "\n".join([f"{first}: of {number} keypoints the first {len(names)} are {listed(names)}", *self.notes])

    def match(self, model: KeypointModel) -> str:
        """Give to each joint the number of the keypoint that lies nearest to it, for a model that has learned some.

        What links and memory know of these keypoints they then know of the joints. Gives a sentence about it.
        """
        labelled, training = self.labelled, model.training
        found = predict(model.eval(), labelled.images, progress=False)
        paired = matching(found, (labelled.joints + 1) / 2, labelled.shown)
        model.train(training)
        of = {joint: keypoint for keypoint, joint in paired.details["assignment"]}
        free = [i for i in range(found.shape[1]) if i not in of.values()]
        reorder(model, [of[j] if j in of else free.pop(0) for j in range(found.shape[1])])
        away = f"{math.sqrt(paired.value):.2f} of the image away"
        return f"{len(of)} joints begin as the keypoints nearest to them, {away}"

    def keep(self, run: Path, model: KeypointModel) -> None:
        """Write beside a run's model which of its keypoints are which joints, for the commands that write joints."""
        folder = run / "model"
        folder.mkdir(exist_ok=True)
        names, skeleton = self.labelled.names, self.labelled.skeleton
        NamedJoints.first(names, skeleton, model.settings.num_keypoints).save(folder)


def teach(
    config: TrainConfig, data: str | os.PathLike[str], model: KeypointModel, run: Path, device: torch.device
) -> TrainingLabels | None:
    """Extend a model's loss by how far its first keypoints are from the labels that the options name, if they do.

    A folder or project has images of its own; a label file is of images in the data.

    Raises:
        ValueError: labels and images do not fit together; the model has no use of them, or too few keypoints; or the
            run in progress has other joints.
    """
    if config.labels is None:
        return None
    if not isinstance(model, Extension):
        raise ValueError(f"TrainConfig: labels need an extension of PPL or AutoLink, got a {type(model).__name__}")
    whole = known_name(config.labels) or Path(config.labels).is_dir()
    spec, beside = (config.labels, None) if whole else (data, config.labels)
    opened = open_set(
        spec, model.settings.image_size, split="fit", framing=config.framing, labels=beside,
        individual=config.individual, max_bad_share=config.max_bad_share, max_pixels=config.max_pixels,
    )  # fmt: skip
    if opened.labels is None:
        raise ValueError(
            f"TrainConfig: labels must be a folder or project that has labels, or a label file, got {config.labels}"
        )
    labelled, notes = Labelled.of(opened.dataset, opened.labels, "train")
    _check([*labelled.names], model, run)
    joints = torch.from_numpy(np.nan_to_num(labelled.joints)).float()
    labels = (each.to(device) for each in (labelled.images, joints, torch.from_numpy(labelled.shown)))
    model.terms = (*model.terms, NamedKeypoints(JointLabels(*labels), model.settings.joints_batch))
    return TrainingLabels(labelled, notes, config.labels)


def _check(names: list[str], model: KeypointModel, run: Path) -> None:
    number = model.settings.num_keypoints
    if number < len(names):
        raise ValueError(
            f"TrainConfig: labels of {len(names)} joints need as many keypoints, and better some more; "
            f"num_keypoints is {number}"
        )
    kept = load_joints(run / "model", model) if has_joints(run / "model") else None
    if kept is not None and kept.names != names:
        raise ValueError(
            f"train: the labels name other joints than {run} has, or in another order: "
            f"{', '.join(map(readable, names))}, where it has {', '.join(map(readable, kept.names))}"
        )
