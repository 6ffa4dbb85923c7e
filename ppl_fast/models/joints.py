"""Joints that few labels name: views of the labelled images, and how far joints are from where the labels have them.

Few labels go far only where every step sees other images: each is turned, scaled, shifted and recoloured anew, and the
joints go with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ppl_fast.models import views
from ppl_fast.options.extended import ExtensionConfig

if TYPE_CHECKING:
    from ppl_fast.models.extended import Extension
    from ppl_fast.models.terms import Pass

EPSILON = 1e-4  # under the root of the distance, which has no gradient at 0


class JointLabels(NamedTuple):
    """Labelled images, on one device."""

    images: Tensor  # (n, 3, S, S) in [-1, 1]
    joints: Tensor  # (n, J, 2), (x, y) in [-1, 1]; finite where they are not labelled, too
    shown: Tensor  # (n, J) bool, which of these are labelled


def labelled_views(labels: JointLabels, count: int, amounts: ExtensionConfig) -> JointLabels:
    """Views of `count` images drawn by chance, turned, scaled, shifted and recoloured as far as `amounts` has it.

    Their joints have moved with them; one that has left its view counts as not labelled.
    """
    images = labels.images
    rows = torch.randint(len(images), (count,), device=images.device)
    maps = views.random_similarities(count, amounts.view_turn, amounts.view_scale, amounts.view_shift, like=images)
    view = views.recoloured(views.warped(images[rows], maps), amounts.view_colour)
    expected = views.moved(labels.joints[rows].to(view.dtype), maps)
    return JointLabels(view, expected, labels.shown[rows] & (expected.abs() <= 1).all(dim=2))


def joint_distance(found: Tensor, labels: JointLabels) -> Tensor:
    """Mean distance of joints (n, J, 2) to the labels, over those that are labelled."""
    difference = torch.where(labels.shown[..., None], found - labels.joints, 0)
    distance = (difference.square().sum(dim=2) + EPSILON).sqrt() * labels.shown
    return distance.sum() / labels.shown.sum().clamp_min(1)


class NamedKeypoints:
    """A term of the loss for one model: its first J keypoints are the J joints that some images have labels of.

    Each step has views of other labelled images, partly hidden as the model's images are. Other keypoints stay free.

    Args:
        labels: on the model's device.
        count: images a step.
    """

    def __init__(self, labels: JointLabels, count: int):
        self.labels, self.count = labels, count

    def __call__(self, model: Extension, found: Pass) -> dict[str, Tensor]:
        """The mean distance of the joints found to those labelled; in training alone."""
        settings = model.settings
        if not model.training:
            return {}
        view = labelled_views(self.labels, self.count, settings)
        images = view.images.to(found.images.dtype)
        keypoints = model.find(model.seen(images, model.masks(images, None)))
        distance = joint_distance(keypoints[:, : view.joints.shape[1]], view)
        return {"joints": distance * model.grown(settings.joints_ramp)}
