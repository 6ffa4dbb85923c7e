"""AutoLink: what it computes, that it trains and estimates, and what it refuses."""

import json

import pytest
import torch
from model_cases import inputs_of, losses_of_steps, pictures

from ppl_fast import AutoLink, ExtendedAutoLink, link_heatmap
from ppl_fast.models import AutoLinkConfig, load_pretrained
from ppl_fast.models.regressor import cells

TINY = {
    "num_keypoints": 5,
    "image_size": 32,
    "thickness": 5e-3,
    "detector_size": 32,
    "detector_base": 4,
    "translator": "light",
    "translator_base": 4,
    "translator_levels": 2,
    "mask_blocks": 4,
    "reconstruction_loss": "mse",
}


def tiny(seed=0, **options) -> AutoLink:
    torch.manual_seed(seed)
    return AutoLink(**(TINY | options))


def test_defaults_are_the_published_ones():
    config = AutoLinkConfig()
    assert (config.mask_blocks, config.mask_ratio, config.reconstruction_loss) == (16, 0.8, "perceptual")
    assert AutoLink.Config.train_defaults["weight_decay"] == 1e-3
    starts = AutoLink(num_keypoints=60, width=0.02).link_parameters.detach() * 512
    assert abs(starts.mean() + 4) < 0.01 and abs(starts.std() - 0.1) < 0.01


def test_forward_gives_what_it_promises():
    model, images = tiny().eval(), pictures()
    translated = inputs_of(model.translator)
    out = model(images)
    expected = out.attention.flatten(2) @ cells(out.attention)
    torch.testing.assert_close(out.keypoints, expected)
    torch.testing.assert_close(out.attention.sum(dim=(2, 3)), torch.ones(2, 5))
    heatmap = link_heatmap(out.keypoints, model.link_weights(), 32, 5e-3)
    torch.testing.assert_close(out.link_heatmap, heatmap)
    torch.testing.assert_close(translated[0][0], images * model.alpha)
    torch.testing.assert_close(out.loss, (out.reconstruction - images).square().mean())
    assert list(out.losses) == ["reconstruction"]


def test_training_drops_blocks_of_the_reference_unless_one_is_given():
    model, images = tiny(mask_ratio=0.5), pictures()
    translated = inputs_of(model.translator)
    model(images)
    share = (translated[0][0] == 0).float().mean()
    assert 0.2 < share < 0.8
    model(images, pictures(seed=2))
    torch.testing.assert_close(translated[1][0], pictures(seed=2) * model.alpha)


def test_images_are_resized_for_the_detector():
    model = tiny(detector_size=16)
    seen = inputs_of(model.detector)
    model(pictures())
    torch.testing.assert_close(seen[0][0], torch.nn.functional.avg_pool2d(pictures(), 2))


def test_a_few_steps_learn():
    model = ExtendedAutoLink(**TINY, separation_weight=1.0)
    losses = losses_of_steps(model, pictures(4))
    assert losses[-1] < 0.5 * losses[0]
    assert model.link_parameters.grad.abs().max() > 0 and model.detector.maps.weight.grad.abs().max() > 0


def test_estimate():
    model, images = tiny(), pictures()
    model(images)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    keypoints = model.estimate(images)
    assert model.training and not keypoints.requires_grad
    torch.testing.assert_close(keypoints, model.eval()(images).keypoints.detach())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    visible = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    visible[:, :, :16] = False
    torch.testing.assert_close(model.estimate(images, visible=visible), model.estimate(images * visible))
    with pytest.raises(ValueError, match=r"AutoLink: iterations must be 1 .*, got 2"):
        model.estimate(images, iterations=2)


def test_bfloat16_autocast_keeps_positions_in_float32():
    model = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(pictures())
    assert out.keypoints.dtype == torch.float32
    out.loss.backward()


def test_saved_and_loaded_as_what_it_is(tmp_path):
    pytest.importorskip("safetensors", reason="weight files need safetensors")
    model = tiny()
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    assert type(loaded) is AutoLink and loaded.config == model.config
    torch.testing.assert_close(loaded.estimate(pictures()), model.estimate(pictures()))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "PPL"}))
    with pytest.raises(ValueError, match="PPL: unknown option 'detector_size'"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"memory_banks": 3}, "AutoLink: unknown option 'memory_banks'"),
        ({"detector_size": 40}, "AutoLink: detector_size must be a multiple of 16, got 40"),
        ({"map_stride": 3}, r"AutoLink: map_stride must be a power of two from 2 to 2\*\*detector_levels = 16, got 3"),
        ({"num_keypoints": 1}, "AutoLink: num_keypoints must be at least 2, got 1"),
    ],
)
def test_wrong_options_are_named(options, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        tiny(**options)


def test_wrong_images_are_named():
    with pytest.raises(ValueError, match=r"AutoLink: images must have shape \(B, 3, 32, 32\), got \(2, 3, 16, 16\)"):
        tiny()(pictures(size=16))
