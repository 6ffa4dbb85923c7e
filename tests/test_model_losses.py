"""A pass without losses, and loss terms that plug in."""

from dataclasses import dataclass

import pytest
import torch
from model_cases import inputs_of, pictures, tiny
from published_cases import SMALL_AUTOLINK, SMALL_PPL, small_autolink

from ppl_fast import PPL, AutoLink, ExtendedAutoLink, ExtendedPPL
from ppl_fast._options import option
from ppl_fast.options.extended import ExtendedAutoLinkConfig


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """The perceptual loss finds none."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("PPL_FAST_VGG", raising=False)


MODELS = [(PPL, SMALL_PPL), (AutoLink, SMALL_AUTOLINK), (ExtendedPPL, SMALL_PPL), (ExtendedAutoLink, SMALL_AUTOLINK)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cls,options", MODELS)
def test_without_losses_a_pass_gives_the_rest(cls, options, training, no_weights):
    torch.manual_seed(0)
    model, images = cls(**options).train(training), pictures()
    with pytest.raises(FileNotFoundError, match="the perceptual loss needs pretrained vgg16 weights"):
        cls(**options)(images)
    memory = {key: value.clone() for key, value in model.state_dict().items() if key.startswith("memory.")}
    torch.manual_seed(1)
    out = model(images, losses=False)
    assert out.losses == {} and out.loss is None
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in memory.items())
    whole = cls(**options | {"reconstruction_loss": "mse"}).train(training)
    whole.load_state_dict(model.state_dict() | memory)
    torch.manual_seed(1)
    expected = whole(images)
    for name in set(out._fields) - {"losses", "loss", "prior"}:
        torch.testing.assert_close(getattr(out, name), getattr(expected, name))
    assert expected.loss.isfinite() and out.keypoints.requires_grad


def test_a_converted_autolink_gives_its_heatmap_without_vgg(no_weights):
    state = small_autolink().to_published()
    model = AutoLink.from_published(
        state, thickness=1e-3, link_factor=512, mask_blocks=4, mask_ratio=0.8, image_size=32
    )
    assert model.settings.reconstruction_loss == "perceptual"
    out = model.eval()(pictures(), losses=False)
    torch.testing.assert_close(out.link_heatmap, model.draw(out.keypoints, model.link_weights()))
    assert torch.equal(model.estimate(pictures()), out.keypoints)


def test_a_reference_is_taken_without_losses_too():
    model, frame = tiny(), pictures(seed=2)
    seen = inputs_of(model.translator)
    model(pictures(), frame, losses=False)
    torch.testing.assert_close(seen[0][0].detach(), frame * model.alpha.detach())


def test_autolink_takes_the_terms_that_need_what_it_has():
    torch.manual_seed(0)
    options = {"separation_weight": 1.0, "withhold": 0.5, "occlude_input": 0.5, "reconstruction_loss": "mse"}
    weights = {"foreground_weight": 2.0, "coverage_weight": 1.0, "stray_weight": 1.0}
    model = ExtendedAutoLink(**SMALL_AUTOLINK, **options, **weights)
    seen, drawn, images = inputs_of(model.detector), inputs_of(model.translator), pictures(8)
    out = model(images)
    assert list(out.losses) == ["reconstruction", "separation", "foreground", "coverage", "stray"]
    torch.testing.assert_close(sum(out.losses.values()), out.loss)
    assert 0 < (seen[0][0] != images).flatten(1).any(1).sum() < 8
    assert 0 < (drawn[0][1] == 0).all(dim=(1, 2, 3)).sum() < 8
    with pytest.raises(ValueError, match="^ExtendedAutoLink: coverage_weight needs a positive withhold"):
        ExtendedAutoLink(**SMALL_AUTOLINK, coverage_weight=1.0)


@dataclass(frozen=True)
class MirroredConfig(ExtendedAutoLinkConfig):
    mirror_weight: float = option(0.5, "weight of the keypoints' difference from the mirrored image's")


def mirror(model, found):
    other = model.detect(found.images.flip(3))[0] * other_side(found.out.keypoints)
    return {"mirror": (other - found.out.keypoints).square().mean()}


def other_side(like):
    return torch.tensor([-1.0, 1.0]).to(like)


class Mirrored(ExtendedAutoLink):
    Config = MirroredConfig
    terms = (*ExtendedAutoLink.terms, mirror)


def test_a_term_of_ones_own_plugs_in():
    model, images = Mirrored(**SMALL_AUTOLINK, reconstruction_loss="mse").eval(), pictures()
    out = model(images)
    assert list(out.losses) == ["reconstruction", "mirror"]
    difference = model.estimate(images.flip(3)) * other_side(images) - model.estimate(images)
    torch.testing.assert_close(out.losses["mirror"], 0.5 * difference.square().mean())
    out.loss.backward()
