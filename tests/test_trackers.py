"""Trackers of experiments beside log.jsonl: what they are told, and what is said where there is none."""

import time
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="training needs the train extra")

from accelerate import tracking
from tiny import draw_images, fails, run_steps

from ppl_fast.options import migration
from ppl_fast.training import TrainConfig
from ppl_fast.training.logging import read_records
from ppl_fast.training.trackers import flat


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return draw_images(tmp_path_factory.mktemp("trackers") / "images")


class StandIn(tracking.GeneralTracker):
    """A tracker as accelerate has them, which keeps what it is told."""

    name, requires_logging_directory, tracker, main_process_only = "stand-in", False, None, False
    begun: list = []

    def __init__(self, run_name, **further):
        super().__init__()
        self.title, self.told, self.options, self.ended = run_name, [], None, False

    def start(self):
        StandIn.begun.append(self)

    def store_init_configuration(self, values):
        self.options = values

    def log(self, values, step=None, **further):
        self.told.append((step, values))

    def finish(self):
        self.ended = True


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "stand-in", StandIn)
    monkeypatch.setattr(StandIn, "begun", [])
    return StandIn


def test_a_tracker_is_told_what_the_log_holds(images, tmp_path, stand_in):
    run_steps(images, tmp_path / "run", 4, tracker="stand-in")
    (tracker,) = stand_in.begun
    records = read_records(tmp_path / "run/log.jsonl")
    assert tracker.told == [(record["step"], flat(record)) for record in records] and len(records) == 3
    assert {"loss", "losses/reconstruction", "learning_rate", "seconds"} <= set(tracker.told[0][1])
    assert tracker.title == "ppl_fast" and tracker.ended
    assert tracker.options["model.num_keypoints"] == 6 and tracker.options["train.steps"] == 4
    run_steps(images, tmp_path / "run", 5, resume=True, tracker="stand-in")
    assert [step for step, _ in stand_in.begun[1].told] == [5]


def test_a_tracker_that_cannot_begin_leaves_the_run_to_begin_again(images, tmp_path, stand_in, monkeypatch):
    def refuse(self):
        raise RuntimeError("No API key\nconfigured.")

    monkeypatch.setattr(stand_in, "start", refuse)
    sentence = r"^the tracker stand-in cannot begin: No API key configured\.; or set tracker to none$"
    with pytest.raises(OSError, match=sentence):
        run_steps(images, tmp_path / "run", 1, tracker="stand-in")
    run_steps(images, tmp_path / "run", 1)


def test_unknown_and_missing_trackers_are_refused_before_anything_is_written(images, tmp_path, capsys, monkeypatch):
    given = ["train", images, "--out", tmp_path / "run", "--preset", "small", "--tracker"]
    assert "TrainConfig: tracker must be none or one of " in (said := fails(capsys, *given, "wandbb"))
    assert said.endswith(", got 'wandbb'") and "tensorboard" in said
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [])
    remedy = "which is not installed: pip install mlflow, or set tracker to none"
    assert fails(capsys, *given, "mlflow") == f"the tracker mlflow needs mlflow, {remedy}"
    monkeypatch.setattr("ppl_fast.training.trackers.find_spec", lambda name: None)
    remedy = "which is not installed: pip install 'ppl_fast[train]', or set tracker to none"
    assert fails(capsys, *given, "tensorboard") == f"the tracker tensorboard needs tensorboard, {remedy}"
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_weights_and_biases_offline(images, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="W&B is tried where wandb is installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run_steps(images, tmp_path / "run", 4, tracker="wandb")
    (events,) = (tmp_path / "run/wandb").glob("offline-run-*/run-*.wandb")
    until = time.monotonic() + 60  # its own process writes on for a moment
    while b"losses/reconstruction" not in (kept := events.read_bytes()) and time.monotonic() < until:
        time.sleep(0.1)
    assert b"losses/reconstruction" in kept and b"model.num_keypoints" in kept


def test_options_of_when_tensorboard_was_the_only_one():
    assert migration.loop({"tensorboard": False, "lr": 1}) == {"tracker": "none", "lr": 1}
    assert migration.loop({"tensorboard": "no"}) == {"tracker": "none"}
    assert migration.loop({"tensorboard": True}) == {"tracker": "tensorboard"} == {"tracker": TrainConfig().tracker}
    assert migration.loop({"tracker": "wandb"}) == {"tracker": "wandb"}


def test_words_and_arguments_of_before():
    assert TrainConfig(tensorboard=False).tracker == "none" and TrainConfig(tensorboard=True).tracker == "tensorboard"
    assert TrainConfig(cache=True).cache == "memory" and TrainConfig(cache=False).cache == "no"
    assert migration.words(["a", "--tensorboard", "false", "--lr=1"]) == ["a", "--tracker=none", "--lr=1"]
    assert migration.words(["--train.tensorboard=yes"]) == ["--tracker=tensorboard"]
