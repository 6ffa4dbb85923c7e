"""The command line: options, outputs, and one sentence with exit code 2 for whatever is wrong."""

import sys
from dataclasses import fields
from pathlib import Path

import pytest

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

import yaml
from tiny import MODEL, fails, run_steps

from ppl_fast import cli
from ppl_fast.cli import COMMANDS, main
from ppl_fast.models import MODELS, ExtendedPPLConfig
from ppl_fast.training import TrainConfig, load_model

ROOT = Path(__file__).parents[1]


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(command in shown for command in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert "ppl_fast 0." in capsys.readouterr().out


def test_every_option_is_listed_with_both_names(capsys):
    for name, model in MODELS.items():
        assert main(["train", "--help-all", "--model", name]) == 0
        shown = capsys.readouterr().out
        for section, options in (("model", model.Config), ("train", TrainConfig)):
            for field in fields(options):
                assert f"--{section}.{field.name}" in shown
                assert f"--{field.name.replace('_', '-')}" in shown


def test_option_names_of_model_and_training_do_not_clash():
    for model in MODELS.values():
        assert not {field.name for field in fields(model.Config)} & {field.name for field in fields(TrainConfig)}


def test_train_by_config_with_options_first(images, config, tmp_path):
    arguments = ["train", images, "--num-keypoints", 5, "--out", tmp_path / "run", "--config", config]
    arguments += ["--train.lr=2e-3", "--betas", "[0.8, 0.9]"]
    assert main([str(argument) for argument in arguments]) == 0
    written = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert written["data"] == str(images)
    assert written["model"] == ExtendedPPLConfig(**MODEL | {"num_keypoints": 5}).to_dict()
    assert written["train"]["lr"] == 2e-3
    assert written["train"]["betas"] == [0.8, 0.9]
    assert load_model(tmp_path / "run").config["num_keypoints"] == 5


def test_resume_takes_the_runs_own_options(images, config, tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", str(images), "--out", out, "--config", str(config)]) == 0
    assert main(["train", "--out", out, "--resume", "--steps", "5"]) == 0
    assert "resuming at step 3" in capsys.readouterr().out
    run_steps(images, tmp_path / "straight", 5)
    resumed, straight = ((tmp_path / name / "model/model.safetensors").read_bytes() for name in ("run", "straight"))
    assert resumed == straight
    sentence = fails(capsys, "train", "--out", out, "--resume", "--num-keypoints", 5)
    assert "model.num_keypoints is 5, but" in sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: {num_keypoint: 3}", "section model: unknown key 'num_keypoint'; did you mean 'num_keypoints'?"),
        ("train: {learning: 3}", "section train: unknown key 'learning'; "),
        ("modle: {}", "unknown key 'modle'; did you mean 'model'?"),
        ("model: {num_keypoints: many}", "option model.num_keypoints must be of type int, got many"),
        ("model: {head: affin}", "option model.head must be one of 'affine', 'residual', 'position', got affin"),
        ("model: {num_keypoints: 1}", "num_keypoints must be at least 2, got 1"),
        ("train: {lr: -1}", "lr must be a positive number, got -1"),
        ("architecture: gan", "architecture must be one of ppl, autolink, extended-ppl, extended-autolink, got 'gan'"),
        ("train: 3", "train must be a mapping of options, got 3"),
        ("- 3", "must hold the mappings model and train, got list"),
        ("model: {", "is not valid YAML"),
    ],
)
def test_wrong_config_is_named(images, tmp_path, capsys, text, sentence):
    (tmp_path / "bad.yaml").write_text(text)
    assert sentence in fails(capsys, "train", images, "--out", tmp_path / "run", "--config", tmp_path / "bad.yaml")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tran"], "unknown command 'tran'; expected one of train, estimate"),
        (["train", "x"], "required: out"),
        (["estimate", "x", "y"], "required: out; usage: ppl-fast estimate RUN IMAGES --out poses.csv [options]"),
        (["estimate", "x", "y", "--out", "p.csv", "--smooth", "true"], "nothing takes 'true'; see --help"),
        (
            ["estimate", "x", "y", "--out", "p.csv", "--confidence", "no way"],
            "confidence must be true or false, got no",
        ),
        (["name", "x", "y", "--network", "maybe"], "option network must be true or false, got maybe"),
        (["train", "x", "--out", "y", "--tracker"], "option --tracker needs a value"),
        (["train", "--out", "y"], "no images given"),
        (["train", "x", "--out"], "--out"),
        (["train", "--out", "y", "--resume"], "cannot resume y: it is no run directory"),
        (
            ["train", "x", "--out", "y", "--model", "gan"],
            "architecture must be one of 'ppl', 'autolink', 'extended-ppl', 'extended-autolink', got gan",
        ),
        (["train", "x", "--out", "y", "--config"], "--config"),
        (["train", "x", "--out", "y", "--num-keypoint", "3"], "option --num-keypoint; did you mean --num-keypoints?"),
        (["train", "x", "--out", "y", "--config", "none.yaml"], "config file none.yaml does not exist"),
        (["train", "x", "--out", "y", "--steps", "3.5"], "option train.steps must be of type int, got 3.5"),
        (["train", "missing", "--out", "y", "--reconstruction-loss", "mse"], "missing is missing"),
        (["train", "x", "--out", "y", "--resume"], "cannot resume y: it is no run directory"),
        (["estimate", "missing", "x", "--out", "p.csv"], "missing is no run directory"),
        (["estimate", "missing", "x", "--out", "p.csv", "--iterations", "0"], "--iterations must be at least 1, got 0"),
        (["estimate", "missing", "x", "--out", "p.csv", "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["evaluate", "missing", "x"], "missing is no run directory"),
        (["evaluate", "missing", "x", "--threshold", "0"], "--threshold must be positive, got 0"),
        (["make-figures", "d", "--count", "0"], "count must be an integer of at least 1, got 0"),
        (["make-figures", "d", "--count", "1", "--size", "8"], "size must be an integer of at least 32, got 8"),
        (["make-figures", "d", "--count", "1", "--kind", "plant"], "kind must be one of 'person', 'animal', got plant"),
    ],
)
def test_wrong_arguments_are_named(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sentence in fails(capsys, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("missing", "importing"),
    [
        ("jsonargparse", ["ppl_fast.commands.train", "ppl_fast.commands.options"]),
        ("accelerate", ["ppl_fast.training.entry"]),
    ],
)
def test_missing_extra_is_named(images, config, tmp_path, monkeypatch, capsys, missing, importing):
    monkeypatch.setitem(sys.modules, missing, None)
    for module in importing:
        monkeypatch.delitem(sys.modules, module, raising=False)
    sentence = fails(capsys, "train", images, "--out", tmp_path / "run", "--config", config)
    assert f"needs {missing}, which is not installed: pip install 'ppl_fast[train]'" in sentence


def test_an_error_of_the_system_names_its_file():
    assert (
        cli._sentence(FileNotFoundError(2, "No such file or directory", "x.pth")) == "x.pth: No such file or directory"
    )


def test_traceback_only_with_debug(tmp_path, capsys):
    arguments = ["estimate", str(tmp_path), "x", "--out", str(tmp_path / "p.csv")]
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["--debug", *arguments]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_unexpected_errors_are_told_apart(monkeypatch, capsys):
    def broken(_):
        raise KeyError("lost")

    monkeypatch.setattr("ppl_fast.cli._command", lambda name: broken)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "ppl-fast: error: KeyError: 'lost' (--debug shows where)\n"


def toy(dataset):
    """With what a published data set has besides images."""
    dataset.protocol, dataset.read_labels = {}, lambda: None
    return dataset


def test_published_options_are_defaults_that_others_override(images, config, tmp_path, monkeypatch, capsys):
    from ppl_fast.data import ImageFolder, sets
    from ppl_fast.training import PRESETS

    monkeypatch.setitem(sets.SETS, "toy", lambda root, size, split, **options: toy(ImageFolder(root, size, **options)))
    monkeypatch.setitem(
        PRESETS["extended-ppl"], "toy", {"model": {"thickness": 0.25}, "train": {"steps": 2, "lr": 0.5}}
    )
    arguments = ["train", f"toy:{images}", "--config", config, "--lr", 1e-3, "--out", tmp_path / "run"]
    assert main([str(argument) for argument in arguments]) == 0
    assert f"published options for toy:{images}: thickness 0.25\n" in capsys.readouterr().out
    written = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert written["model"]["thickness"] == 0.25 and (written["train"]["steps"], written["train"]["lr"]) == (3, 1e-3)
