"""Models, runs and config files from when PPL and AutoLink had the options of their extensions themselves.

tests/data/saved_before_extensions holds runs of two steps as they were written then, and what those steps, two further
ones and the models gave.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("safetensors", reason="weight files need safetensors")

from ppl_fast.models import MODELS, PPL, AutoLink, ExtendedAutoLink, ExtendedPPL, load_pretrained
from ppl_fast.options.migration import resolve
from ppl_fast.training.config import check_options

SAVED = Path(__file__).parent / "data" / "saved_before_extensions"
EXPECTED = json.loads((SAVED / "expected.json").read_text())
STEP = "checkpoints/step_0000002"
CLASSES = {"ppl": PPL, "extended-ppl": ExtendedPPL, "autolink": AutoLink, "extended-autolink": ExtendedAutoLink}


@pytest.mark.parametrize("name", CLASSES)
def test_saved_models_load_as_what_they_are(name):
    path = SAVED / name / STEP
    written = json.loads((path / "config.json").read_text())
    plain = MODELS[name.removeprefix("extended-")]
    assert written["architecture"] == plain.__name__ and "separation_weight" in written["config"]
    image = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)
    for model in (load_pretrained(path), plain.from_pretrained(path), CLASSES[name].from_pretrained(path)):
        assert type(model) is CLASSES[name]
        assert model.config.items() <= written["config"].items() | model.Config().to_dict().items()
        torch.testing.assert_close(model.estimate(image)[0], torch.tensor(EXPECTED[name]["keypoints"]))


def test_a_published_model_may_be_loaded_to_go_on_with_the_extension():
    path = SAVED / "ppl" / STEP
    model = ExtendedPPL.from_pretrained(path, occlude_input=0.5)
    assert type(model) is ExtendedPPL and model.config["occlude_input"] == 0.5
    with pytest.raises(TypeError, match="PPL: unknown option 'occlude_input'; it is one of ExtendedPPL"):
        PPL.from_pretrained(path, occlude_input=0.5)
    with pytest.raises(ValueError, match="config.json: expected a model of the class AutoLink, got PPL"):
        AutoLink.from_pretrained(path)
    with pytest.raises(ValueError, match="expected a model of the class ExtendedAutoLink, got ExtendedPPL"):
        ExtendedAutoLink.from_pretrained(SAVED / "extended-ppl" / STEP)


def test_saving_again_names_the_architecture(tmp_path):
    model = load_pretrained(SAVED / "extended-ppl" / STEP)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "extended-ppl"
    assert type(PPL.from_pretrained(tmp_path)) is ExtendedPPL


def test_only_options_off_their_defaults_ask_for_the_extension():
    defaults = {"head": "affine", "withhold": 0.0, "separation_sigma": 0.06}
    assert resolve("ppl", {"num_keypoints": 4, **defaults}) == ("ppl", {"num_keypoints": 4})
    assert resolve("ppl", {"head": "residual", "withhold": 0.0}) == (
        "extended-ppl",
        {"head": "residual", "withhold": 0.0},
    )
    assert resolve("autolink", {"separation_weight": 1.0, "head": "x"})[0] == "extended-autolink"
    assert resolve("extended-ppl", defaults) == ("extended-ppl", defaults)


def test_what_is_recomputed_was_said_of_the_perceptual_loss_alone(tmp_path):
    for before, now in ((True, "layers"), (False, "nothing"), ("yes", "layers")):
        assert resolve("ppl", {"perceptual_recompute": before}) == ("ppl", {"recompute": now})
    assert resolve("ppl", {"perceptual_recompute": True, "recompute": "blocks"})[1] == {"recompute": "blocks"}
    load_pretrained(SAVED / "ppl" / STEP).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["config"].pop("recompute") == "nothing"
    written["config"]["perceptual_recompute"] = True
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert load_pretrained(tmp_path).settings.recompute == "layers"
    options = {"model": {"perceptual_recompute": True, "num_keypoints": 4}}
    assert check_options("x.yaml", options, "ppl")["model"] == {"recompute": "layers", "num_keypoints": 4}


def test_pickles_of_before_become_the_extension(tmp_path):
    from ppl_fast.published import load
    from ppl_fast.published.checkpoints import Checkpoint, build

    model = load_pretrained(SAVED / "extended-ppl" / STEP)
    torch.save(model, tmp_path / "own.pth")
    assert type(load(None, tmp_path / "own.pth")) is type(load(PPL, tmp_path / "own.pth")) is ExtendedPPL
    # As such a pickle named it.
    architecture, options = resolve(
        "ppl", json.loads((SAVED / "extended-ppl" / STEP / "config.json").read_text())["config"]
    )
    assert type(build(PPL, Checkpoint("x", architecture, model.state_dict(), options, own=True))) is ExtendedPPL


class TestRuns:
    """What training makes of them."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch):
        pytest.importorskip("accelerate", reason="training needs the train extra")
        pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
        from tiny import draw_images

        monkeypatch.chdir(tmp_path)
        draw_images(tmp_path / "images", 6)
        return tmp_path

    def losses(self, run):
        from ppl_fast.training.logging import read_records

        return {str(record["step"]): record["losses"] for record in read_records(run / "log.jsonl")}

    def same(self, found, expected, later):
        for step, terms in found.items():
            # The first step's are those of the start. After it other kernels, which round otherwise, show: Adam's first
            # steps divide each gradient by its own size, however tiny. Another order of random numbers is far off.
            closeness = {"rel": 1e-5, "abs": 1e-7} if step == "1" else later
            assert terms == pytest.approx(expected[step], **closeness), step

    @pytest.mark.parametrize("name", CLASSES)
    def test_config_files_train_the_same_run(self, folder, name):
        from ppl_fast.cli import main

        config = str(SAVED / name / "config.yaml")
        assert main(["train", "--config", config, "--steps", "4", "--lr", "1e-5", "--out", "run"]) == 0
        assert f"architecture: {name}\n" in (folder / "run/config.yaml").read_text()
        found = self.losses(folder / "run")
        assert list(found) == ["1", "2", "3", "4"]
        self.same(found, EXPECTED[name]["losses_at_1e-5"], {"rel": 1e-4, "abs": 5e-6})
        assert type(load_pretrained(folder / "run/model")) is CLASSES[name]

    @pytest.mark.parametrize(
        "again", [[], ["--architecture", "ppl"], ["--config", f"{SAVED}/extended-ppl/config.yaml"]]
    )
    def test_runs_resume(self, folder, again):
        from ppl_fast.cli import main

        shutil.copytree(SAVED / "extended-ppl", folder / "run")
        assert main(["train", "--resume", "--steps", "3", "--out", "run"]) == 0
        assert main(["train", "--resume", *again, "--steps", "4", "--out", "run"]) == 0
        found = self.losses(folder / "run")
        assert list(found) == ["3", "4"]
        self.same(found, EXPECTED["extended-ppl"]["losses"], {"rel": 1e-2, "abs": 1e-4})
        assert "architecture: extended-ppl\n" in (folder / "run/config.yaml").read_text()

    def test_a_run_goes_on_with_its_own_options_alone(self, folder, capsys):
        from tiny import fails

        shutil.copytree(SAVED / "extended-ppl", folder / "run")
        sentence = fails(capsys, "train", "--resume", "--head", "affine", "--steps", "3", "--out", "run")
        assert "model.head is 'affine', but" in sentence and "has 'residual'" in sentence

    @pytest.mark.parametrize("name", ["ppl", "extended-ppl"])
    def test_options_on_the_command_line(self, folder, name):
        from ppl_fast.cli import main

        old = ["--config", str(SAVED / "ppl/config.yaml"), "--architecture", "ppl"]
        options = ["--head", "residual"] if name == "extended-ppl" else ["--head", "affine"]
        assert main(["train", "images", *old, *options, "--out", "run"]) == 0
        assert type(load_pretrained(folder / "run/model")) is CLASSES[name]
        assert f"architecture: {name}\n" in (folder / "run/config.yaml").read_text()


@pytest.mark.parametrize("wrong", [torch.zeros(1), torch.zeros(()), torch.zeros(5), "int64", float("nan")])
def test_a_bias_before_batchnorm_is_checked_like_all_that_a_file_holds(tmp_path, wrong):
    from safetensors.torch import load_file, save_file

    shutil.copytree(SAVED / "ppl" / STEP, tmp_path / "model")
    state = load_file(tmp_path / "model" / "model.safetensors")
    name = "regressor.trunk.0.entry.0.bias"
    if isinstance(wrong, float):
        state[name] = torch.full_like(state[name], wrong)
    else:
        state[name] = state[name].to(torch.int64) if isinstance(wrong, str) else wrong
    save_file(state, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match=f"model.safetensors: {name}"):
        load_pretrained(tmp_path / "model")
