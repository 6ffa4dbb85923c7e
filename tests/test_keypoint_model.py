"""The contract of the models: what it gives by default, and that a model of one file goes through every room."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from model_cases import pictures, tiny

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")
pytest.importorskip("safetensors", reason="weight files need the train extra")

from tiny import TRAIN

from ppl_fast._options import option
from ppl_fast.cli import main
from ppl_fast.data import make_figures
from ppl_fast.models import MODELS, PPL, AutoLink, KeypointModel, load_pretrained
from ppl_fast.models.blocks import in_eval
from ppl_fast.options import KeypointConfig
from ppl_fast.options.registry import CONFIGS


class Output(NamedTuple):
    keypoints: torch.Tensor
    losses: dict[str, torch.Tensor]
    loss: torch.Tensor | None


@dataclass(frozen=True)
class BrightConfig(KeypointConfig):
    width: int = option(4, "channels", low=1)
    centre_weight: float = option(1.0, "weight of the distance to the centre")


class Bright(KeypointModel):
    """A third model: keypoints at the means of softmaxed maps."""

    Config = BrightConfig
    architecture = "bright"

    def __init__(self, **options):
        super().__init__(**options)
        channels, count = self.settings.width, self.settings.num_keypoints
        self.maps = torch.nn.Sequential(
            torch.nn.Conv2d(3, channels, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(channels, count, 1)
        )

    def forward(self, images, reference=None, losses=True):
        images, _ = self.checked(images, reference)
        shares = self.maps(images).flatten(2).softmax(2).unflatten(2, images.shape[2:])
        places = torch.linspace(-1, 1, images.shape[2])
        keypoints = torch.stack([shares.sum(2) @ places, shares.sum(3) @ places], dim=2)
        if not losses:
            return Output(keypoints, {}, None)
        term = self.settings.centre_weight * keypoints.square().mean()
        return Output(keypoints, {"centre": term}, term)

    @torch.no_grad()
    def estimate(self, images, iterations=1, visible=None):
        self.check_one(iterations)
        return in_eval(self)(self.masked(images, visible), losses=False).keypoints


def test_what_a_model_has_that_adds_nothing():
    model = KeypointModel(num_keypoints=3, image_size=16)
    assert model.links.shape == (0, 2) and model.link_weights().shape == (0,)
    assert model.connectivity().tolist() == [[0.0] * 3] * 3
    assert model.prior() is None and model.memory_report() is None and model.progress() == {}
    assert not model.iterative and model.config == {"num_keypoints": 3, "image_size": 16}
    with pytest.raises(TypeError, match="^Keypoint: unknown option 'num_keypoint'; did you mean 'num_keypoints'"):
        KeypointModel(num_keypoint=3)


def test_one_round_is_the_estimate_and_more_are_refused():
    model, images = Bright(image_size=32), pictures()
    visible = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    visible[..., :8] = False
    ((keypoints, seen),) = model.estimate_rounds(images, 1, visible)
    assert torch.equal(seen, images * visible) and torch.equal(keypoints, model.estimate(images, visible=visible))
    with pytest.raises(ValueError, match=r"^Bright: iterations must be 1 \(it has nothing to iterate with\), got 2$"):
        model.estimate_rounds(images, 2)
    with pytest.raises(ValueError, match=r"Bright: images must have shape \(B, 3, 32, 32\), got"):
        model(pictures(size=16))


def test_those_with_a_memory_report_it():
    model = tiny()
    poses, sizes, perplexity, dead = model.memory_report()
    assert poses.shape == (3, 4, 5, 2) and sizes is model.memory.sizes
    assert torch.equal(perplexity, model.usage()[0]) and torch.equal(dead, model.usage()[1])
    assert AutoLink(5, 32).memory_report() is None and AutoLink(5, 32).prior() is None
    assert (PPL.iterative, AutoLink.iterative) == (True, False)


def test_saved_by_architecture_known_or_not(tmp_path, monkeypatch):
    Bright(image_size=32, width=2).save_pretrained(tmp_path)
    assert Bright.from_pretrained(tmp_path).config["width"] == 2
    with pytest.raises(ValueError, match="config.json: architecture must be one of ppl, .*, got 'bright'"):
        load_pretrained(tmp_path)
    monkeypatch.setitem(MODELS, "bright", Bright)
    assert type(load_pretrained(tmp_path)) is Bright
    with pytest.raises(ValueError, match="config.json: expected a model of the class PPL, got Bright"):
        PPL.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="^Bright: there are published checkpoints of PPL and AutoLink alone"):
        Bright().to_published()


def test_models_join_and_leave_with_their_options():
    models = type(MODELS)()
    try:
        models.update(bright=Bright)
        assert models["bright"] is Bright and CONFIGS["bright"] is Bright.Config
    finally:
        del models["bright"]
    assert "bright" not in CONFIGS and "bright" not in MODELS


@pytest.mark.slow
def test_a_third_model_needs_its_class_and_a_line(images, tmp_path, monkeypatch, capsys):
    for extra in ("PIL", "matplotlib", "scipy", "yaml"):
        pytest.importorskip(extra, reason=f"{extra} is not installed")
    monkeypatch.setitem(MODELS, "bright", Bright)
    run, figures = tmp_path / "run", tmp_path / "figures"
    options = [f"--{name.replace('_', '-')}={value}" for name, value in TRAIN.items()]
    arguments = ["train", images, "--architecture", "bright", "--out", run, *options, "--image-size=32", "--width=3"]
    assert main([str(argument) for argument in [*arguments, "--steps=4", "--picture-every=4"]]) == 0
    assert main(["train", "--out", str(run), "--resume", "--steps=5"]) == 0
    assert "resuming at step 4" in capsys.readouterr().out
    assert "architecture: bright\n" in (run / "config.yaml").read_text()
    assert {path.name for path in run.glob("*.png")} == {"poses.png", "training.png"}
    make_figures(figures, 12, size=32)
    assert main(["estimate", str(run), str(figures), "--out", str(tmp_path / "poses.csv"), "--overlay", str(run)]) == 0
    assert main(["evaluate", str(run), str(figures), "--occlusion-images", "2"]) == 0
    printed = capsys.readouterr().out
    assert "no iterative inference" in printed and "limb_share" not in printed
    assert main(["show", str(run)]) == 0
    assert "Bright: 16 keypoints, 0 links" in capsys.readouterr().out
