"""A trunk and a loss of somebody's own: built, trained, saved, and loaded again."""

import copy
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from model_cases import TINY, losses_of_steps, pictures, tiny
from torch import nn

from ppl_fast import PPL, AutoLink
from ppl_fast._options import option
from ppl_fast.models import ExtendedPPL, optimize
from ppl_fast.options.extended import ExtendedPPLConfig

AUTOLINK = {"num_keypoints": 5, "image_size": 32, "detector_size": 32, "translator": "light", "translator_base": 4}
AUTOLINK |= {"translator_levels": 2, "reconstruction_loss": "mse"}


def layers(seed=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 7, 3, 2, 1))


class TestTrunk:
    @pytest.mark.parametrize("head", ["affine", "residual", "position"])
    def test_a_module_is_used_as_it_is_and_trained(self, head):
        module = layers()
        before = copy.deepcopy(module.state_dict())
        model = tiny(trunk=module, head=head)
        assert model.trunk() == (module, 7) and model.config["trunk"] == "own" and module.training
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
        losses_of_steps(model, pictures(), 3)
        assert not torch.equal(module[0].weight, before["0.weight"])

    @pytest.mark.parametrize("make", [lambda trunk: tiny(trunk=trunk), lambda trunk: AutoLink(**AUTOLINK, trunk=trunk)])
    def test_it_is_loaded_into_such_a_module_again(self, make, tmp_path):
        model = make(layers()).eval()
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path, trunk=layers(seed=4))
        assert torch.equal(again.estimate(pictures()), model.estimate(pictures()))
        torch.testing.assert_close(optimize(again).estimate(pictures()), model.estimate(pictures()))
        with pytest.raises(ValueError, match=r"its trunk is a module of somebody's own; .*trunk=module"):
            type(model).from_pretrained(tmp_path)
        with pytest.raises(ValueError, match=r"trunk.3.weight does not fit the model"):
            type(model).from_pretrained(tmp_path, trunk=nn.Sequential(*layers()[:3], nn.Conv2d(6, 8, 3, 2, 1)))

    def test_without_one_nothing_changes(self):
        assert tiny().config["trunk"] is None
        own = {name for name in tiny().state_dict() if "trunk" in name}
        assert own and all(name.startswith("regressor.trunk.") for name in own)

    @pytest.mark.parametrize(
        ("module", "got"), [(nn.Flatten(), r"\(1, 3072\)"), (nn.Sequential(nn.Unflatten(0, (1, 1))), r"\(1, 1, 3")]
    )
    def test_one_that_gives_no_features_is_refused(self, module, got):
        with pytest.raises(ValueError, match=rf"trunk must make features \(B, C, h, w\) of images .*, got {got}"):
            tiny(trunk=module)

    def test_names_are_those_of_timm(self, monkeypatch, tmp_path):
        """By a stand-in for timm with two maps, at strides 4 and 8."""

        class Body(nn.Module):
            feature_info = SimpleNamespace(channels=lambda: [4, 6, 8], reduction=lambda: [2, 4, 8])

            def __init__(self):
                super().__init__()
                self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, 4), (4, 6), (6, 8)))

            def forward(self, x):
                return [x := stage(x) for stage in self.stages]

        def create_model(name, pretrained, features_only):
            assert not pretrained and features_only
            if name != "small":
                raise RuntimeError(f"Unknown model ({name})")
            return Body()

        monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
        model = tiny(trunk="small").eval()
        assert model.trunk()[1] == 6 and model.trunk()[0](pictures()).shape == (2, 6, 8, 8)
        model.save_pretrained(tmp_path)
        assert torch.equal(ExtendedPPL.from_pretrained(tmp_path).estimate(pictures()), model.estimate(pictures()))
        coarse = model.trunk()[0].body.stages[2].weight
        model.find(pictures()).sum().backward()
        assert coarse.grad.abs().sum() > 0  # the coarse map has a say
        with pytest.raises(ValueError, match=r"trunk must be a backbone of timm .*got 'large' \(Unknown model"):
            tiny(trunk="large")
        with pytest.raises(ValueError, match="none of map_stride 16"):
            tiny(trunk="small", map_stride=16)
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(ImportError, match="a trunk by name needs .*timm"):
            tiny(trunk="small")


@dataclass(frozen=True, eq=False, repr=False)
class CentredConfig(ExtendedPPLConfig):
    centred_weight: float = option(2.0, "weight of the mean keypoint's distance to the middle")


def centred(model, found):
    return {"centred": found.out.keypoints.mean(dim=1).square().sum()}


class Centred(ExtendedPPL):
    Config: ClassVar = CentredConfig
    terms = (*ExtendedPPL.terms, centred)


class TestLoss:
    def test_a_function_for_one_model(self):
        model = tiny()
        model.terms = (*model.terms, centred)
        out, plain = model(pictures()), tiny()(pictures())
        assert set(out.losses) - set(plain.losses) == {"centred"} and "centred" not in tiny()(pictures()).losses
        torch.testing.assert_close(out.losses["centred"], out.keypoints.mean(dim=1).square().sum())
        torch.testing.assert_close(out.loss, sum(out.losses.values()))

    def test_a_reconstruction_loss_of_ones_own(self):
        model = tiny()
        model.reconstruction_loss = lambda reconstruction, images: (reconstruction - images).abs().mean()
        out = model(pictures())
        expected = (out.reconstruction - pictures()).abs().mean() * model.settings.reconstruction_weight
        torch.testing.assert_close(out.losses["reconstruction"], expected)

    def test_a_loss_that_is_a_module(self, tmp_path):
        """It is used, and its parameters are not the model's."""

        class Weighed(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.tensor(2.0))

            def forward(self, reconstruction, images):
                return self.weight * (reconstruction - images).abs().mean()

        model = tiny()
        names = [*model.state_dict()]
        model.reconstruction_loss = Weighed()
        out = model(pictures())
        expected = 2 * (out.reconstruction - pictures()).abs().mean() * model.settings.reconstruction_weight
        torch.testing.assert_close(out.losses["reconstruction"], expected)
        assert [*model.state_dict()] == names
        model.save_pretrained(tmp_path)
        assert type(model).from_pretrained(tmp_path)

    @pytest.mark.parametrize(
        ("value", "sentence"),
        [
            (1.0, "the term wrong must give a dict of scalar tensors by name, got 1.0"),
            ({"wrong": 1.0}, "must give a dict of scalar tensors by name, got {'wrong': 1.0}"),
            ({"wrong": torch.zeros(1)}, r"got {'wrong': torch.Size\(\[1\]\)}"),
            ({"reconstruction": torch.zeros(())}, "the term wrong gives 'reconstruction', which another term gives"),
        ],
    )
    def test_a_term_that_gives_something_else(self, value, sentence):
        def wrong(model, found):
            return value

        model = tiny()
        model.terms = (*model.terms, wrong)
        with pytest.raises((TypeError, ValueError), match=sentence):
            model(pictures())

    def test_an_option_that_is_a_plain_field(self):
        @dataclass(frozen=True)
        class Config(CentredConfig):
            plain: float = 3.0

        class Plain(Centred):
            pass

        Plain.Config = Config
        assert Plain(**TINY, plain=2).settings.plain == 2.0 and "plain = 3.0" in Config.describe()
        with pytest.raises(TypeError, match="plain must be float, got 'x'"):
            Plain(**TINY, plain="x")

    def test_a_subclass_with_an_option_of_its_own_is_loaded_again(self, tmp_path):
        model = Centred(**TINY, centred_weight=3.0).eval()
        out = model(pictures())
        torch.testing.assert_close(out.losses["centred"], 3 * out.keypoints.mean(dim=1).square().sum())
        model.save_pretrained(tmp_path)
        again = Centred.from_pretrained(tmp_path)
        assert type(again) is Centred and again.settings.centred_weight == 3
        assert torch.equal(again.estimate(pictures()), model.estimate(pictures()))
        with pytest.raises(ValueError, match="unknown option 'centred_weight'"):
            PPL.from_pretrained(tmp_path)
