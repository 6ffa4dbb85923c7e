"""`optimize`: a copy of a model that estimates the same, faster, and does nothing else."""

import pytest
import torch
from model_cases import pictures, tiny
from torch import nn

import ppl_fast
from ppl_fast.models import PPL, AutoLink, KeypointModel, optimize, resizing
from ppl_fast.models.resizing import DoublingConv2d, Halve, HalvingConv2d

AUTOLINK = {"num_keypoints": 5, "detector_size": 32, "detector_base": 4, "detector_levels": 3, "translator": "light"}
MODELS = {
    "light": lambda: tiny(),
    "unet": lambda: tiny(translator="unet"),
    "published": lambda: PPL(5, 32, width=0.125, memory_width=16, reconstruction_loss="mse"),
    "autolink": lambda: AutoLink(image_size=64, translator_base=4, translator_levels=2, **AUTOLINK),
}


def trained(name: str) -> KeypointModel:
    """A model whose BatchNorms are no identity."""
    torch.manual_seed(0)
    model = MODELS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2), (module.weight, -1.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):  # fmt: skip
                nn.init.uniform_(tensor, low, high)
    return model


def images_of(model: KeypointModel) -> torch.Tensor:
    return pictures(size=model.settings.image_size)


@pytest.mark.parametrize("name", MODELS)
def test_estimates_are_the_models(name):
    model = trained(name)
    images, rounds = images_of(model), 3 if model.iterative else 1
    visible = torch.ones(2, 1, *images.shape[2:], dtype=torch.bool)
    visible[..., 5:] = False
    fast = ppl_fast.optimize(model)
    assert type(fast) is type(model) and not fast.training and model.training
    for seen in (None, visible):
        expected, found = (m.estimate_rounds(images, rounds, seen) for m in (model, fast))
        assert len(found) == rounds
        for (keypoints, inside), (exact, image) in zip(found, expected, strict=True):
            assert (keypoints - exact).abs().max() <= 1e-5 * exact.abs().max()
            torch.testing.assert_close(inside, image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fast.connectivity(), model.connectivity(), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_what_it_says_is_what_is_there(name):
    model = trained(name)
    fast = optimize(model)
    kinds = [type(module) for module in model.modules()]
    for kind, what in {
        nn.BatchNorm2d: "BatchNorm folded", Halve: "means of 2 x 2 folded",
    }.items():  # fmt: skip
        assert (f"{kinds.count(kind)} {what}" in fast.optimized) == (kind in kinds), what
        assert kind not in map(type, fast.modules())
    halving = sum(kinds.count(kind) for kind in (HalvingConv2d, Halve))
    assert sum(isinstance(module, HalvingConv2d) for module in fast.modules()) == halving
    convolutions = [module for module in fast.modules() if isinstance(module, nn.Conv2d) and module.in_channels > 1]
    assert all(module.weight.is_contiguous(memory_format=torch.channels_last) for module in convolutions)
    assert not any(parameter.requires_grad for parameter in fast.parameters())


@pytest.mark.parametrize("name", ["unet", "published", "autolink"])
def test_doubling_after_the_products_gives_the_same(name, monkeypatch):
    model = trained(name)
    images, rounds = images_of(model), 2 if model.iterative else 1
    expected = model.estimate_rounds(images, rounds)
    monkeypatch.setattr(resizing, "WIDE", 1)
    fast = optimize(model)
    doublings = sum(isinstance(module, DoublingConv2d) for module in model.modules())
    assert doublings and f"{doublings} doublings after the products" in fast.optimized
    assert not any(isinstance(module, DoublingConv2d) for module in fast.modules())
    found = fast.estimate_rounds(images, rounds)
    for (keypoints, inside), (exact, image) in zip(found, expected, strict=True):
        assert (keypoints - exact).abs().max() <= 1e-5 * exact.abs().max()
        torch.testing.assert_close(inside, image, rtol=1e-4, atol=1e-4)


def hooked():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    conv.register_forward_hook(lambda module, given, out: out * 2)
    return [conv, nn.BatchNorm2d(4)]


def shared():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    return [conv, nn.BatchNorm2d(4), conv, nn.BatchNorm2d(4)]


def conv_and(*layers):
    return lambda: [nn.Conv2d(4, 4, 3, padding=1), *layers]


@pytest.mark.parametrize(
    "layers",
    [
        conv_and(nn.AvgPool2d(2, stride=1)),
        conv_and(nn.AvgPool2d(2, padding=1)),
        conv_and(nn.AvgPool2d(2, ceil_mode=True)),
        conv_and(nn.AvgPool2d(2, divisor_override=3)),
        lambda: [nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1)), nn.BatchNorm2d(4)],
        hooked,
        shared,
    ],
)
def test_what_cannot_be_folded_stays(layers):
    class Trunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), *layers())

        def forward(self, images):
            return self.body(images[..., :31])  # an odd side

    torch.manual_seed(0)
    model = tiny(trunk=Trunk())
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    model.eval()
    fast = optimize(model)
    torch.testing.assert_close(fast.estimate(pictures()), model.estimate(pictures()), rtol=1e-5, atol=1e-5)
    plain = optimize(tiny()).optimized.split()[0]
    assert int(fast.optimized.split()[0]) >= 1 and plain.isdigit()  # others are


def test_priors_are_computed_once(monkeypatch):
    model = tiny()
    fast, images = optimize(model), pictures()
    torch.testing.assert_close(fast.prior().keypoints, model.prior().keypoints, rtol=1e-6, atol=1e-7)
    calls = []
    monkeypatch.setattr(type(model.memory), "decoded_mean", lambda self: calls.append(self))
    fast.estimate(images)
    assert calls == []


def test_the_model_stays_as_it_is_and_goes_on():
    model, images = trained("unet"), pictures()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fast = optimize(model)
    expected = fast.estimate(images)
    assert model.optimized == "" and all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    model(images).loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(fast.estimate(images), expected)


def test_weights_of_the_losses_are_left_behind():
    model = tiny()
    model._perceptual.append(nn.Linear(1, 1))
    assert optimize(model)._perceptual == [] and len(model._perceptual) == 1


def test_a_copy_is_neither_trained_nor_saved(tmp_path):
    fast = optimize(tiny())
    assert fast.eval() is fast
    for act, what in (
        (lambda: fast.train(), "trained"), (lambda: fast.save_pretrained(tmp_path / "x"), "saved"),
        (fast.to_published, "saved"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^ExtendedPPL: an optimised copy cannot be {what}, expected the model"):
            act()
    with pytest.raises(ValueError, match="^optimize: model is an optimised copy already: 1"):
        optimize(fast)
    assert not list(tmp_path.iterdir())


def test_bfloat16_is_near_and_computed_in_it():
    model, images = trained("unet"), pictures()
    fast = optimize(model, torch.bfloat16)
    dtypes = [m.weight.dtype for layers in fast.regressor.trunk.modules() for m in [layers] if isinstance(m, nn.Conv2d)]
    assert set(dtypes) == {torch.bfloat16} and f"{len(dtypes)} conv" not in optimize(model).optimized
    assert "convolutions in bfloat16" in fast.optimized
    found, exact = fast.estimate(images, 2), model.estimate(images, 2)
    assert found.dtype == exact.dtype and not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.05)


def test_other_arguments_are_named():
    with pytest.raises(TypeError, match="^optimize: model must be a KeypointModel, got Linear"):
        optimize(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="^optimize: dtype must be None, or torch.bfloat16 .*, got torch.float16"):
        optimize(tiny(), torch.float16)
    with pytest.raises(ValueError, match="^optimize: dtype must be None, .* for PPL and AutoLink, got torch.bfloat16"):
        optimize(KeypointModel(num_keypoints=3, image_size=16), torch.bfloat16)
    assert optimize(KeypointModel(num_keypoints=3, image_size=16)).optimized == "channels last"
