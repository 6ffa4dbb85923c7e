"""`ppl-fast train --model autolink`, and what follows from its run."""

import pytest

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

import yaml
from test_autolink import TINY
from tiny import TRAIN, fails

from ppl_fast import AutoLink
from ppl_fast.cli import main
from ppl_fast.training import load_model


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("autolink")
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump({"model": TINY, "train": TRAIN | {"steps": 4, "picture_every": 4}}))
    arguments = ["train", images, "--model", "autolink", "--config", config, "--out", folder / "run"]
    assert main([str(argument) for argument in arguments]) == 0
    return folder / "run"


def test_run_holds_an_autolink(run):
    model = load_model(run)
    assert type(model) is AutoLink and model.config == model.Config(**TINY).to_dict()
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["architecture"] == "autolink"
    assert written["train"]["weight_decay"] == AutoLink.Config.train_defaults["weight_decay"]
    assert {path.name for path in run.glob("*.png")} == {"poses.png", "training.png"}


def test_run_resumes_as_what_it_is(run, images, tmp_path, capsys):
    assert main(["train", "--out", str(run), "--resume", "--steps", "6"]) == 0
    assert "resuming at step 4" in capsys.readouterr().out
    assert main(["estimate", str(run), str(images), "--out", str(tmp_path / "poses.csv")]) == 0
    assert "is for the architecture autolink, but ppl is asked for" in fails(
        capsys, "train", "--out", run, "--resume", "--model", "ppl"
    )
