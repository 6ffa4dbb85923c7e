"""How a training begins: presets, another model's weights, and how long it will take."""

import time

import numpy as np
import pytest
import torch

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")

import yaml
from tiny import MODEL, fails, run_steps

from ppl_fast import PPL, ExtendedPPL
from ppl_fast.cli import main
from ppl_fast.models import ExtendedAutoLink
from ppl_fast.options.footage import Framing
from ppl_fast.training import PRESETS, TrainConfig, load_framing, load_model
from ppl_fast.training.forecast import Forecast, spelled
from ppl_fast.training.presets import NAMES, SMALL
from ppl_fast.training.run import training_of
from ppl_fast.training.warm_start import LEARNING, options_of

QUICK = ["--steps", "1", "--workers", "0", "--picture-every", "0", "--tracker", "none", "--device", "cpu"]


def train(*arguments):
    assert main(["train", *map(str, arguments)]) == 0


@pytest.mark.parametrize(
    ("architecture", "kind"), [([], ExtendedPPL), (["--architecture", "autolink"], ExtendedAutoLink)]
)
def test_the_small_preset_is_the_demos_model(images, tmp_path, capsys, architecture, kind):
    train(images, "--out", tmp_path / "run", "--preset", "small", *architecture, *QUICK, "--num-keypoints", "5")
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("options of the preset small"))
    assert "small: image_size 64, thickness 0.005" in said and "that config.yaml in the run has" in said
    assert "masks auto" in said and "memory_decay" not in said and len(said) < 250
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    expected = SMALL[kind.architecture]
    assert config["architecture"] == kind.architecture and config["model"]["num_keypoints"] == 5
    assert {**config["model"], "num_keypoints": 16}.items() >= expected["model"].items()
    assert config["train"]["betas"] == [0.9, 0.99] and config["train"]["lr"] == 1e-3 and config["train"]["steps"] == 1
    train("--out", tmp_path / "run", "--resume", "--steps", "2")
    assert load_model(tmp_path / "run").config["num_keypoints"] == 5


def test_a_config_file_wins_over_a_preset(images, tmp_path):
    (tmp_path / "a.yaml").write_text("model: {image_size: 32}\ntrain: {batch_size: 2}\n")
    train(images, "--out", tmp_path / "run", "--preset", "small", "--config", tmp_path / "a.yaml", *QUICK)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["model"]["image_size"], config["train"]["batch_size"], config["train"]["lr"]) == (32, 2, 1e-3)


def test_published_options_for_other_images(images, tmp_path, capsys):
    arguments = [
        images,
        "--out",
        tmp_path / "run",
        "--reconstruction-loss",
        "mse",
        "--width",
        "0.1",
        "--batch-size",
        "2",
    ]
    train(*arguments, "--preset", "hands", *QUICK)
    assert "options of the preset hands: thickness 0.0001, mask_blocks 8" in capsys.readouterr().out
    assert load_model(tmp_path / "run").config["mask_ratio"] == PRESETS["ppl"]["hands"]["model"]["mask_ratio"]
    assert set(NAMES) == {"small", "published", *PRESETS["ppl"]}
    sentence = fails(capsys, "train", images, "--out", tmp_path / "no", "--preset", "tiny")
    assert "option preset must be one of 'small', 'published', 'human36m'" in sentence and "got tiny" in sentence


def test_missing_weights_name_the_preset(images, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PPL_FAST_VGG", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    sentence = fails(capsys, "train", images, "--out", tmp_path / "run")
    assert "or train without them: ppl-fast train --preset small" in sentence


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "first"
    run_steps(images, out, 3, fit="pad")
    return out


@pytest.mark.parametrize("of", ["", "model", "checkpoints/step_0000003"])
def test_training_begins_with_another_models_weights(images, trained, tmp_path, capsys, of):
    out = tmp_path / "run"
    train(images, "--from", trained / of, "--out", out, *QUICK, "--batch-size", "4", "--lr", "1e-12")
    before, after = load_model(trained), load_model(out)
    assert type(after) is ExtendedPPL and after.config == before.config
    parameters = dict(before.named_parameters())
    for name, value in after.named_parameters():
        assert torch.allclose(value, parameters[name], atol=1e-9), name
    assert load_framing(out) == Framing("pad")
    said = capsys.readouterr().out
    total = len(before.state_dict())
    assert f"from {trained / of}: {total} of {total} tensors are taken over\n" in said


def test_it_learns_on_as_the_run_learned(images, tmp_path, capsys):
    first, run = tmp_path / "first", tmp_path / "run"
    learning = ["--batch-size", "3", "--lr", "2e-3", "--clip-norm", "2"]
    train(images, "--preset", "small", "--out", first, *learning, *QUICK)
    capsys.readouterr()
    train(images, "--from", first, "--out", run, "--lr", "1e-3", *QUICK[2:])
    told = capsys.readouterr().out.splitlines()[0]
    assert told.startswith(f"options of {first}: steps 1, batch_size 3, ") and "lr" not in told
    assert "betas (0.9, 0.99), schedule cosine" in told
    before, after = (training_of(each) for each in (first, run))
    assert (before["lr"], after["lr"], after["masks"]) == (2e-3, 1e-3, "auto")
    assert all(before[name] == after[name] for name in LEARNING if name != "lr")
    file = first / "config.yaml"
    file.write_text(file.read_text().replace("masks: auto", "masks: masks/"))
    assert "masks" not in options_of(first)[2] and options_of(first / "model")[2]["clip_norm"] == 2


@pytest.mark.parametrize("keypoints", [4, 8])
def test_also_with_another_number_of_keypoints(images, trained, tmp_path, capsys, keypoints):
    out = tmp_path / "run"
    options = [*QUICK, "--batch-size", "4", "--lr", "1e-12", "--num-keypoints", keypoints, "--fit", "squash"]
    train(images, "--from", trained, "--out", out, *options)
    said = capsys.readouterr().out
    assert (
        f"6 keypoints become {keypoints}, the first {min(6, keypoints)} of which keep link_parameters, memory." in said
    )
    before, after = load_model(trained), load_model(out)
    common = min(6, keypoints)
    mine, theirs = after.connectivity()[:common, :common], before.connectivity()[:common, :common]
    assert torch.allclose(mine, theirs, atol=1e-6)
    assert torch.allclose(after.regressor.maps.weight[:common], before.regressor.maps.weight[:common], atol=1e-6)
    assert load_framing(out) == Framing("squash")


def test_what_is_new_is_said_and_what_does_not_fit_is_refused(images, trained, tmp_path, capsys):
    train(images, "--from", trained, "--out", tmp_path / "run", *QUICK, "--batch-size", "4", "--memory-width", "8")
    assert "; new are memory." in capsys.readouterr().out
    sentence = fails(capsys, "train", images, "--from", tmp_path / "none", "--out", tmp_path / "a")
    assert f"{tmp_path / 'none'} is no run directory" in sentence
    sentence = fails(capsys, "train", images, "--from", trained, "--preset", "small", "--out", tmp_path / "a")
    assert sentence == f"--from brings the options of {trained}; leave out --preset small"
    assert not (tmp_path / "a").exists()


def test_a_plain_model_begins_an_extended_one(images, tmp_path, capsys):
    PPL(**{name: value for name, value in MODEL.items() if name in PPL.Config.__dataclass_fields__}).save_pretrained(
        tmp_path / "plain"
    )
    train(images, "--from", tmp_path / "plain", "--out", tmp_path / "run", *QUICK, "--batch-size", "4")
    assert type(load_model(tmp_path / "run")) is PPL
    train(images, "--from", tmp_path / "plain", "--out", tmp_path / "wide", *QUICK, "--separation-weight", "0.1")
    assert type(load_model(tmp_path / "wide")) is ExtendedPPL


def test_a_cpu_says_how_long_it_takes(images, tmp_path, capsys):
    run_steps(images, tmp_path / "run", 13)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("on this CPU a step takes")]
    assert len(said) == 1 and said[0].endswith("for the 2 steps left")


@pytest.mark.parametrize(("seconds", "steps"), [(120.0, 2), (1.0, 11)])
def test_when_the_duration_is_said(monkeypatch, seconds, steps):
    """The published model took two minutes a step: after the second it is said, and not after ten."""
    now = iter(np.arange(1, 99) * seconds)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    forecast, left = Forecast(), 20_000
    said = [forecast.after_step(left - step) for step in range(1, 15)]
    assert [i + 1 for i, sentence in enumerate(said) if sentence] == [steps]
    each = "2.0 minutes" if seconds > 100 else "1.0 seconds"
    assert (
        f"a step takes {each}: about {spelled(seconds * (left - steps))} for the {left - steps} steps"
        in said[steps - 1]
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12 ms"),
        (1.5, "1.5 seconds"),
        (90, "90.0 seconds"),
        (180, "3.0 minutes"),
        (9000, "2.5 hours"),
        (1e6, "11.6 days"),
    ],
)
def test_durations(seconds, text):
    assert spelled(seconds) == text


def test_presets_are_options_that_exist():
    for architecture, preset in SMALL.items():
        kind = {"extended-ppl": ExtendedPPL, "extended-autolink": ExtendedAutoLink}[architecture]
        kind.Config.from_dict(preset["model"])
        TrainConfig(**preset["train"])
