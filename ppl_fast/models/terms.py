"""The loss terms of the models. A term is a function of the model and of what a forward pass gave.

It returns its values by name, each a scalar that the option NAME_weight weighs, or nothing where it has no say in this
pass. A model's `terms` lists those that it takes, and is extended by a longer tuple; what they compute is in `losses`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl_fast.models import losses, views

if TYPE_CHECKING:
    from ppl_fast.models.extended import ExtendedPPL, Extension
    from ppl_fast.models.link_model import LinkModel
    from ppl_fast.models.ppl import PPL


class Pass(NamedTuple):
    """What a forward pass had to go by, and what it gave."""

    images: Tensor  # (B, 3, S, S) in [-1, 1]
    out: Any  # the model's output, without losses: keypoints, link_heatmap, reconstruction and what else it has
    weights: Tensor  # (E,) >= 0, of the links, with gradient
    masks: dict[str, Tensor]  # what was hidden, see `LinkModel.masks`


Term = Callable[[Any, Pass], dict[str, Tensor]]

# Of the papers


def reconstruction(model: LinkModel, found: Pass) -> dict[str, Tensor]:
    """How far the reconstruction is from the images."""
    return {"reconstruction": model.reconstruction_loss(found.out.reconstruction, found.images)}


def boundary(model: LinkModel, found: Pass) -> dict[str, Tensor]:
    """How far keypoints lie outside of the image."""
    return {"boundary": losses.boundary(found.out.keypoints)}


def memory(model: PPL, found: Pass) -> dict[str, Tensor]:
    """How far the memory's version is from the keypoints, and its tokens are from the vectors that they chose."""
    recalled = F.mse_loss(found.out.recalled, found.out.keypoints.detach())
    return {"memory": recalled, "commitment": found.out.commitment}


def link_length(model: PPL, found: Pass) -> dict[str, Tensor]:
    """How much links are longer or shorter than in the prior."""
    if not model.settings.link_length_weight:
        return {}
    length = losses.link_length(found.out.keypoints, found.out.prior.keypoints, model.links, found.weights)
    return {"link_length": length}


# Of the extensions


def separation(model: Extension, found: Pass) -> dict[str, Tensor]:
    """The keypoints' repulsion."""
    s = model.settings
    if not s.separation_weight:
        return {}
    return {"separation": losses.separation(found.out.keypoints, model.links, s.separation_sigma)}


def equivariance(model: Extension, found: Pass) -> dict[str, Tensor]:
    """How far the keypoints of a second view are from those of the images, moved as it was; in training alone.

    With `occlude_view` some of the views are partly hidden, and count `occlude_view_weight` times. Their keypoints draw
    none of the whole images' to them.
    """
    s = model.settings
    if not (s.equivariance_weight and model.training):
        return {}
    maps = views.random_similarities(
        found.images.shape[0], s.view_turn, s.view_scale, s.view_shift, like=found.out.keypoints
    )
    view = views.recoloured(views.warped(found.images, maps.to(found.images.dtype)), s.view_colour)
    expected = views.moved(found.out.keypoints, maps)
    counts: Tensor | float = 1.0
    if s.occlude_view and "occluded" in found.masks:
        occluded, view = found.masks["occluded"], model.partly_hidden(view, found.masks)
        expected = torch.where(occluded.view(-1, 1, 1), expected.detach(), expected)
        counts = torch.where(occluded, s.occlude_view_weight, 1.0)
    distance = losses.equivariance(model.find(view), expected, counts)
    return {"equivariance": distance * model.grown(s.equivariance_ramp)}


def figure(model: Extension, found: Pass) -> dict[str, Tensor]:
    """Links and keypoints against where the subject is; else what the reconstructions miss without the link heatmap."""
    out, which = found.out, [found.masks[name] for name in ("withheld", "known") if name in found.masks]
    if not which:
        return {}
    subject, counted = losses.missed(found.images, out.reconstruction), torch.stack(which).any(dim=0)
    if "known" in found.masks:
        subject = found.masks["figure"].where(found.masks["known"].view(-1, 1, 1, 1), subject)
    shares, even = counted / counted.sum().clamp_min(1), model.settings.coverage_even
    distances = (
        losses.foreground(out.link_heatmap, subject),
        *losses.figure_distances(out.keypoints, subject, even=even),
    )
    names = ("foreground", "coverage", "stray")
    return {name: (distance * shares).sum() for name, distance in zip(names, distances, strict=True)}


def plausibility(model: ExtendedPPL, found: Pass) -> dict[str, Tensor]:
    """How far the keypoints are from the memory's version of the pose, which is drawn nowhere itself."""
    if not model.settings.plausibility_weight:
        return {}
    return {"plausibility": losses.plausibility(found.out.keypoints, found.out.recalled.detach())}


def prior(model: ExtendedPPL, found: Pass) -> dict[str, Tensor]:
    """How far the keypoint prior is from the mean pose."""
    if not model.settings.prior_weight:
        return {}
    return {"prior": losses.prior_distance(model.memory.decoded_mean(), found.out.keypoints.detach())}
