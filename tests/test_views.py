"""Second views: images and keypoints move alike, and the term of the loss says how far a model is from that."""

import math

import pytest
import torch
import torch.nn.functional as F
from model_cases import inputs_of, pictures
from published_cases import SMALL_AUTOLINK, SMALL_PPL

from ppl_fast import ExtendedAutoLink, ExtendedPPL
from ppl_fast.models import losses, views

VIEW = {"equivariance_weight": 2.0, "reconstruction_loss": "mse"}


def spots(points, size=65):
    """Images (B, 1, size, size) with a bright blob at each of the points (B, N, 2)."""
    axis = torch.linspace(-1, 1, size)
    x, y = axis.view(1, 1, 1, -1), axis.view(1, 1, -1, 1)
    at = points[..., None, None]
    return torch.exp(-((x - at[:, :, 0]) ** 2 + (y - at[:, :, 1]) ** 2) / 0.02).sum(1, keepdim=True)


def test_images_move_with_their_points():
    torch.manual_seed(0)
    points = torch.rand(20, 1, 2) - 0.5
    maps = views.random_similarities(20, 40, 0.3, 0.2, like=points)
    at = views.moved(points, maps)
    view = views.warped(spots(points), maps)
    height = F.grid_sample(view, at[:, None], align_corners=True).flatten()
    assert height.min() > 0.93  # of a blob as high as 1, which interpolating twice lowers by up to 0.07
    assert F.grid_sample(view, at[:, None] + 0.3, align_corners=True).max() < 0.05


def test_maps_keep_to_their_bounds_and_reach_them():
    torch.manual_seed(0)
    maps = views.random_similarities(4000, 30, 0.2, 0.1, like=torch.zeros(1))
    factor = maps[:, 0, :2].norm(dim=1)
    angle = torch.atan2(maps[:, 1, 0], maps[:, 0, 0]) * 180 / math.pi
    for value, most in ((angle, 30), (factor - 1, 0.2), (maps[:, :, 2], 0.1)):
        assert 0.98 * most < value.max() <= most * 1.001 and -most * 1.001 <= value.min() < -0.98 * most
    assert torch.allclose(maps[:, 0, :2].norm(dim=1), maps[:, 1, :2].norm(dim=1))


def test_no_amount_is_no_change():
    images, none = pictures(3), views.random_similarities(3, 0, 0, 0, like=pictures(3))
    torch.testing.assert_close(views.warped(images, none), images, atol=1e-5, rtol=0)
    assert torch.equal(views.recoloured(images, 0.0), images)


def test_colours_stay_in_range_and_layout_is_kept():
    torch.manual_seed(0)
    images = pictures(4).contiguous(memory_format=torch.channels_last)
    view = views.warped(images, views.random_similarities(4, 14, 0.2, 0.1, like=images))
    assert view.is_contiguous(memory_format=torch.channels_last)
    view = views.recoloured(view, 0.5)
    assert view.abs().max() <= 1 and (view.mean(dim=(2, 3)).std() > 0.01)


def test_keypoints_that_leave_the_image_do_not_count():
    found = torch.zeros(1, 3, 2)
    expected = torch.tensor([[[0.3, 0.4], [1.2, 0.0], [0.0, -1.1]]])
    assert losses.equivariance(found, expected) == pytest.approx(0.25 / 6)


@pytest.mark.parametrize(("model_class", "options"), [(ExtendedPPL, SMALL_PPL), (ExtendedAutoLink, SMALL_AUTOLINK)])
class TestTerm:
    def test_it_is_the_distance_to_the_moved_keypoints(self, model_class, options, monkeypatch):
        model, images = model_class(**options, **VIEW), pictures(4)
        asked = []
        monkeypatch.setattr(
            model, "find", lambda view: asked.append(view) or torch.zeros(4, model.settings.num_keypoints, 2)
        )
        monkeypatch.setattr(views, "moved", lambda points, maps: points)
        out = model(images)
        assert "equivariance" in out.losses and asked[0].shape == images.shape and not torch.equal(asked[0], images)
        inside = (out.keypoints.abs() <= 1).all(2, keepdim=True)
        torch.testing.assert_close(out.losses["equivariance"], 2 * (out.keypoints.square() * inside).mean())

    def test_find_is_the_estimate(self, model_class, options):
        model, images = model_class(**options, **VIEW).eval(), pictures(2)
        torch.testing.assert_close(model.find(images), model.estimate(images))

    def test_in_training_alone_and_with_gradient(self, model_class, options):
        model, images = model_class(**options, **VIEW), pictures(2)
        model(images).losses["equivariance"].backward()
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())
        assert "equivariance" not in model.eval()(images).losses

    def test_views_are_partly_hidden_in_place_of_the_images(self, model_class, options):
        hidden = {"occlude_view": True, "occlude_input": 1.0, "occlude_ratio": 1.0}
        model, images = model_class(**options, **VIEW, **hidden), pictures(4)
        asked = inputs_of(model.regressor if model_class is ExtendedPPL else model.detector)
        out = model(images)
        assert torch.equal(asked[0][0], images) and not asked[1][0].any()
        (drawn,) = torch.autograd.grad(out.losses["equivariance"], out.keypoints)
        assert not drawn.any()  # what hidden views give draws nothing to it

    def test_hidden_views_count_as_often_as_asked(self, model_class, options, monkeypatch):
        hidden = {"occlude_view": True, "occlude_input": 0.5, "occlude_view_weight": 4.0}
        model, told, images = model_class(**options, **VIEW, **hidden), [], pictures(8)
        masks = model.masks
        monkeypatch.setattr(model, "masks", lambda *given: told.append(masks(*given)) or dict(told[0]))
        monkeypatch.setattr(model, "find", lambda view: torch.zeros(8, model.settings.num_keypoints, 2))
        monkeypatch.setattr(views, "moved", lambda points, maps: points)
        torch.manual_seed(0)
        out, occluded = model(images), told[0]["occluded"]
        assert 0 < occluded.sum() < 8
        inside = (out.keypoints.abs() <= 1).all(2, keepdim=True)
        each = 2 * (out.keypoints.square() * inside).mean(dim=(1, 2)) * torch.where(occluded, 4.0, 1.0)
        torch.testing.assert_close(out.losses["equivariance"], each.mean())


@pytest.mark.parametrize("model_class", [ExtendedPPL, ExtendedAutoLink])
def test_hidden_views_need_views(model_class):
    with pytest.raises(ValueError, match="occlude_view needs a positive equivariance_weight, got 0.0"):
        model_class(occlude_view=True, occlude_input=0.5, reconstruction_loss="mse")
    with pytest.raises(ValueError, match="occlude_view needs a positive occlude_input, got 0.0"):
        model_class(occlude_view=True, equivariance_weight=1.0, reconstruction_loss="mse")
    with pytest.raises(ValueError, match="occlude_view_weight needs occlude_view, got 4.0 without"):
        model_class(occlude_view_weight=4.0, reconstruction_loss="mse")
