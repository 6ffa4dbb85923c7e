"""The training loop: what a run directory holds, and that a resumed run repeats the straight one bit for bit."""

import json
import os
import shutil
import signal

import pytest
import torch

pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import MODEL, TRAIN, draw_images, run_steps

from ppl_fast import PPL
from ppl_fast.training import TrainConfig, TrainingInterrupted, load_model, trainer
from ppl_fast.training.checkpoint import list_checkpoints
from ppl_fast.training.logging import RunLog, read_records


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Steps this small only wait for each other on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return draw_images(tmp_path_factory.mktemp("data") / "images")


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
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


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
    assert load_model(finished).config == PPL(**MODEL).config
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


def test_pictures_and_tensorboard(images, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the viz extra")
    pytest.importorskip("tensorboard", reason="TensorBoard is part of the train extra")
    run_steps(images, tmp_path / "run", 4, picture_every=4, tensorboard=True)
    for name in ("training.png", "prior.png", "poses.png"):
        assert (tmp_path / "run" / name).stat().st_size > 1000, name
    assert list((tmp_path / "run/tensorboard").glob("events.*"))


def test_drawing_changes_nothing(images, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the viz extra")
    run_steps(images, tmp_path / "drawn", 4, picture_every=2)
    run_steps(images, tmp_path / "plain", 4)
    drawn, plain = ((tmp_path / n / "model/model.safetensors").read_bytes() for n in ("drawn", "plain"))
    assert drawn == plain


def test_missing_matplotlib_is_named_before_any_work(images, tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_fast.training.pictures.find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(ImportError, match=r"pip install 'ppl_fast\[viz\]'"):
        run_steps(images, tmp_path / "run", 4, picture_every=2)
    assert not (tmp_path / "run").exists()


def test_finished_run_is_left_alone(images, finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    model = run_steps(images, finished, 6, resume=True, schedule="cosine", warmup_steps=2)
    assert "all 6 steps are done" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert not model.training


def test_broken_images_are_reported_by_name(tmp_path, capsys):
    folder = draw_images(tmp_path / "images")
    (folder / "broken.png").write_bytes(b"no image")
    run_steps(folder, tmp_path / "run", 1, max_bad_share=0.2)
    assert "broken.png" in capsys.readouterr().out
    with pytest.raises(ValueError, match="broken.png"):
        run_steps(folder, tmp_path / "other", 1, max_bad_share=0.01)
    assert not (tmp_path / "other").exists()


def test_changed_images_are_noticed_on_resume(tmp_path, capsys):
    folder = draw_images(tmp_path / "images")
    run_steps(folder, tmp_path / "run", 1)
    (folder / "0.png").rename(folder / "new.png")
    run_steps(folder, tmp_path / "run", 2, resume=True)
    assert "no longer holds the images" in capsys.readouterr().out


def test_divergence_stops_before_a_checkpoint(images, tmp_path):
    with pytest.raises(FloatingPointError, match="diverged: the loss is nan at step .*; no checkpoint was saved"):
        run_steps(images, tmp_path / "run", 10, lr=1e30)
    assert not list_checkpoints(tmp_path / "run")


def test_existing_directories_are_not_overwritten(images, finished, tmp_path):
    with pytest.raises(FileExistsError, match="already holds a run; add --resume"):
        run_steps(images, finished, 6)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty directory"):
        run_steps(images, tmp_path, 6)
    with pytest.raises(FileExistsError, match="not an empty directory"):
        run_steps(images, tmp_path / "notes.txt", 6)
    with pytest.raises(ValueError, match="cannot resume .*: it is no run directory"):
        run_steps(images, tmp_path, 6, resume=True)


def test_resume_with_another_model_names_the_option(images, finished):
    with pytest.raises(ValueError, match=r"model.memory_width is 24, but .*step_0000006 has 16"):
        run_steps(images, finished, 9, resume=True, model={"memory_width": 24})


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "config.json"])
def test_truncated_checkpoint_is_named(images, tmp_path, name):
    run_steps(images, tmp_path / "run", 4)
    damaged = tmp_path / "run/checkpoints/step_0000004" / name
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(ValueError, match=rf"{damaged}.*; remove .*step_0000004 to resume"):
        run_steps(images, tmp_path / "run", 6, resume=True)


def test_checkpoint_of_another_architecture_is_named(images, tmp_path):
    run_steps(images, tmp_path / "run", 1)
    path = tmp_path / "run/checkpoints/step_0000001/config.json"
    path.write_text(path.read_text().replace('"PPL"', '"AutoLink"'))
    with pytest.raises(ValueError, match="must hold a PPL, got a AutoLink"):
        run_steps(images, tmp_path / "run", 2, resume=True)


def test_optimizer_of_another_model_is_named(images, tmp_path):
    run_steps(images, tmp_path / "run", 1)
    run_steps(images, tmp_path / "other", 1, model={"memory_width": 24})
    name = "checkpoints/step_0000001/optimizer.safetensors"
    (tmp_path / "run" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(ValueError, match=r"optimizer.safetensors: memory\.\S+ has shape .*, the model has shape"):
        run_steps(images, tmp_path / "run", 2, resume=True)


def test_run_killed_before_its_first_checkpoint_starts_over(images, tmp_path):
    run_steps(images, tmp_path / "run", 1)
    shutil.rmtree(tmp_path / "run/checkpoints")
    run_steps(images, tmp_path / "run", 2, resume=True)
    assert [record["step"] for record in read_records(tmp_path / "run/log.jsonl")] == [2]


def test_log_drops_what_a_resumed_run_repeats(tmp_path):
    lines = ['{"step": 2, "loss": 1.0}', '{"step": 4, "loss": 0.5}', '{"step": 6, "lo']
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    log = RunLog(tmp_path, step=3, tensorboard=False)
    log.scalars({"step": 5, "loss": 0.4})
    log.close()
    assert [record["step"] for record in read_records(tmp_path / "log.jsonl")] == [2, 5]


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, TypeError, "steps must be of type int, got 2.5"),
        ({"batch_size": True}, TypeError, "batch_size must be of type int, got True"),
        ({"lr": 0}, ValueError, "lr must be positive, got 0"),
        ({"lr": "1e-4"}, TypeError, "lr must be of type float, got '1e-4'"),
        ({"lr": float("nan")}, ValueError, "lr must be positive, got nan"),
        ({"betas": (0.9,)}, ValueError, "betas must be two numbers"),
        ({"betas": (0.9, 1.0)}, ValueError, "betas must be two numbers"),
        ({"schedule": "linear"}, ValueError, "schedule must be one of constant, cosine, got 'linear'"),
        ({"flip": 1}, TypeError, "flip must be of type bool, got 1"),
        ({"max_bad_share": 1.5}, ValueError, "max_bad_share must be at least 0 and at most 1, got 1.5"),
    ],
)
def test_wrong_options_are_named(options, error, sentence):
    with pytest.raises(error, match=f"^TrainConfig: {sentence}"):
        TrainConfig(**options)


def test_fp16_on_the_cpu_is_refused(images, tmp_path):
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        run_steps(images, tmp_path / "run", 1, precision="fp16")
    assert not (tmp_path / "run").exists()


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
