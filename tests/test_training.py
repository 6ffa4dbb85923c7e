"""The training loop: what a run directory holds, and that a resumed run repeats the straight one bit for bit."""

import json
import os
import shutil
import signal

import pytest
import torch

pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import MODEL, TRAIN, run_steps

from ppl_fast import ExtendedPPL
from ppl_fast.training import TrainConfig, TrainingInterrupted, load_model, trainer
from ppl_fast.training.checkpoint import list_checkpoints
from ppl_fast.training.logging import RunLog, read_records


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A run of 6 steps with a cosine schedule."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    run_steps(images, run, 6, schedule="cosine", warmup_steps=2)
    return run


def interrupt_after(steps: int, monkeypatch, number=signal.SIGINT):
    """Send this process a signal once so many steps are done."""
    advance = trainer.Trainer._advance

    def advance_and_interrupt(self, batch):
        advance(self, batch)
        if self.step == steps:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(trainer.Trainer, "_advance", advance_and_interrupt)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_and_resumed_run_equals_the_straight_one(images, finished, tmp_path, monkeypatch, number):
    run = tmp_path / "run"
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        interrupt_after(4, patch, number)
        with pytest.raises(
            TrainingInterrupted, match=r"stopped at step 4, saved .*step_0000004; resume with: .*--resume"
        ):
            run_steps(images, run, 6, schedule="cosine", warmup_steps=2)
    assert [path.name for path in list_checkpoints(run)] == ["step_0000003", "step_0000004"]
    run_steps(images, run, 6, resume=True, schedule="cosine", warmup_steps=2)
    for name in ("model.safetensors", "optimizer.safetensors"):
        straight, resumed = ((r / "checkpoints/step_0000006" / name).read_bytes() for r in (finished, run))
        assert straight == resumed, name
    assert (run / "model/model.safetensors").read_bytes() == (finished / "model/model.safetensors").read_bytes()
    assert signal.getsignal(signal.SIGINT) is before


def test_gradients_are_clipped_before_the_step(images, tmp_path, monkeypatch):
    norms, step = [], torch.optim.AdamW.step

    def watched(self, *arguments, **options):
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())
        return step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    run_steps(images, tmp_path / "free", 1)
    run_steps(images, tmp_path / "clipped", 1, clip_norm=0.01)
    free, clipped = norms
    assert free > 0.02 and clipped == pytest.approx(0.01, rel=1e-3)


def test_threads_are_as_many_as_asked_for(images, tmp_path):
    run_steps(images, tmp_path / "run", 1, threads=2)
    assert torch.get_num_threads() == 2


def test_three_steps_and_three_resumed_equal_six(images, tmp_path):
    run_steps(images, tmp_path / "straight", 6, channels_last=True, flip=False)
    run_steps(images, tmp_path / "halved", 3, channels_last=True, flip=False)
    run_steps(images, tmp_path / "halved", 6, resume=True, channels_last=True, flip=False)
    straight, halved = ((tmp_path / n / "model/model.safetensors").read_bytes() for n in ("straight", "halved"))
    assert straight == halved


def test_seed_decides_the_run(images, finished, tmp_path):
    run_steps(images, tmp_path / "other", 6, schedule="cosine", warmup_steps=2, seed=1)
    other, first = (load_model(run).state_dict()["memory.codebook"] for run in (tmp_path / "other", finished))
    assert not torch.equal(other, first)


def test_run_directory(finished, images):
    state = json.loads((finished / "checkpoints/step_0000006/state.json").read_text())
    assert state["step"] == 6
    records = read_records(finished / "log.jsonl")
    assert [record["step"] for record in records] == [2, 3, 4, 6]
    for record in records:
        assert record["loss"] == pytest.approx(sum(record["losses"].values()), rel=1e-5)
        assert record["images_per_second"] > 0
    assert [record["step"] for record in read_records(finished / "prior.jsonl")] == [0, 2, 3, 4, 6]
    assert load_model(finished).config == ExtendedPPL(**MODEL).config
    assert {path.name for path in finished.iterdir()} == {
        "config.yaml",
        "model",
        "checkpoints",
        "log.jsonl",
        "prior.jsonl",
    }
    pickled = [path for path in finished.rglob("*") if path.suffix in (".pt", ".pth", ".pkl", ".bin", ".tmp")]
    assert not pickled


def test_learning_rate_falls_to_zero_in_the_log(finished):
    config = TrainConfig(**(TRAIN | {"steps": 6, "schedule": "cosine", "warmup_steps": 2}))
    for record in read_records(finished / "log.jsonl"):
        assert record["learning_rate"] == pytest.approx(config.learning_rate(record["step"] - 1))


def test_training_learns_to_reconstruct(images, tmp_path):
    run_steps(images, tmp_path / "run", 60, lr=3e-3, log_every=10, checkpoint_every=60)
    losses = [record["losses"]["reconstruction"] for record in read_records(tmp_path / "run/log.jsonl")]
    assert losses[-1] < 0.5 * losses[0]


def test_old_checkpoints_are_pruned(images, tmp_path):
    run_steps(images, tmp_path / "run", 5, checkpoint_every=1, keep_checkpoints=2)
    assert sorted(os.listdir(tmp_path / "run/checkpoints")) == ["step_0000004", "step_0000005"]


@pytest.mark.slow
def test_pictures_are_drawn_and_change_nothing(images, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the viz extra")
    pytest.importorskip("tensorboard", reason="TensorBoard is part of the train extra")
    run_steps(images, tmp_path / "drawn", 4, picture_every=2, tracker="tensorboard")
    run_steps(images, tmp_path / "plain", 4)
    for name in ("training.png", "prior.png", "poses.png"):
        assert (tmp_path / "drawn" / name).stat().st_size > 1000, name
    assert list((tmp_path / "drawn/tensorboard").glob("events.*"))
    drawn, plain = ((tmp_path / n / "model/model.safetensors").read_bytes() for n in ("drawn", "plain"))
    assert drawn == plain


def test_finished_run_is_left_alone(images, finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    model = run_steps(images, finished, 6, resume=True, schedule="cosine", warmup_steps=2)
    assert "all 6 steps are done" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert not model.training


def test_run_killed_before_its_first_checkpoint_starts_over(images, tmp_path):
    run_steps(images, tmp_path / "run", 1)
    shutil.rmtree(tmp_path / "run/checkpoints")
    run_steps(images, tmp_path / "run", 2, resume=True)
    assert [record["step"] for record in read_records(tmp_path / "run/log.jsonl")] == [2]


def test_log_drops_what_a_resumed_run_repeats(tmp_path):
    lines = ['{"step": 2, "loss": 1.0}', '{"step": 4, "loss": 0.5}', '{"step": 6, "lo']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    log = RunLog(tmp_path, step=3)
    log.scalars({"step": 5, "loss": 0.4})
    log.close()
    assert [record["step"] for record in read_records(tmp_path / "log.jsonl")] == [2, 5]


def test_bfloat16_training_follows_float32(images, tmp_path):
    for precision in ("no", "bf16"):
        run_steps(images, tmp_path / precision, 4, precision=precision)
    full, half = (read_records(tmp_path / p / "log.jsonl")[-1]["loss"] for p in ("no", "bf16"))
    assert half == pytest.approx(full, rel=0.05)
    assert half != full


def test_learning_rate():
    rate = TrainConfig(lr=1.0, steps=10, warmup_steps=4, schedule="cosine").learning_rate
    assert [rate(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rate(4) == pytest.approx(1.0)
    assert rate(7) == pytest.approx(0.5)
    assert rate(10) == pytest.approx(0.0)
    assert TrainConfig(lr=0.3).learning_rate(19_999) == 0.3


def test_load_model_takes_runs_checkpoints_and_saved_models(finished, tmp_path):
    for path in (finished, finished / "model", finished / "checkpoints/step_0000006"):
        assert torch.equal(load_model(path).link_parameters, load_model(finished).link_parameters)
    with pytest.raises(FileNotFoundError, match="is no run directory"):
        load_model(tmp_path)
