"""What stops a training run: each fault is one sentence, and what was saved stays."""

from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import draw_images, run_steps

from ppl_fast import ExtendedPPL
from ppl_fast.training import TrainConfig
from ppl_fast.training.checkpoint import list_checkpoints


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A run of 6 steps."""
    run = tmp_path_factory.mktemp("runs") / "finished"
    run_steps(images, run, 6)
    return run


def test_missing_matplotlib_is_named_before_any_work(images, tmp_path, monkeypatch):
    monkeypatch.setattr("ppl_fast.training.pictures.find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(ImportError, match=r"pip install 'ppl_fast\[viz\]'"):
        run_steps(images, tmp_path / "run", 4, picture_every=2)
    assert not (tmp_path / "run").exists()


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


@contextmanager
def file_size_limit(limit: int):
    """Writing past the limit fails as it does on a full disk."""
    resource = pytest.importorskip("resource", reason="file size limits need a POSIX system")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_keeps_the_last_checkpoint(images, tmp_path):
    run = tmp_path / "run"
    run_steps(images, run, 3)
    before = (run / "model/model.safetensors").read_bytes()
    kept = run / "checkpoints/step_0000003"
    sentence = f"could not write to {run} at step 6: .*; {kept} is kept, --resume continues from it"
    with file_size_limit(len(before) // 2), pytest.raises(OSError, match=sentence):
        run_steps(images, run, 6, resume=True)
    assert list((run / "checkpoints").iterdir()) == [kept]
    assert (run / "model/model.safetensors").read_bytes() == before
    assert not list(run.rglob("*.tmp"))
    run_steps(images, run, 6, resume=True)
    run_steps(images, tmp_path / "straight", 6)
    assert (run / "model/model.safetensors").read_bytes() == (
        tmp_path / "straight/model/model.safetensors"
    ).read_bytes()


def test_a_last_save_that_was_cut_short_is_completed(images, tmp_path, monkeypatch):
    run, save = tmp_path / "run", ExtendedPPL.save_pretrained

    def cut(model, directory):
        if Path(directory) == run / "model":
            raise OSError(28, "No space left on device")
        save(model, directory)

    run_steps(images, run, 3)
    before = (run / "model/model.safetensors").read_bytes()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="--resume continues"):
        patch.setattr(ExtendedPPL, "save_pretrained", cut)
        run_steps(images, run, 6, resume=True)
    assert (run / "model/model.safetensors").read_bytes() == before
    run_steps(images, run, 6, resume=True)
    after = (run / "model/model.safetensors").read_bytes()
    assert after == (run / "checkpoints/step_0000006/model.safetensors").read_bytes() != before


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


def test_a_checkpoint_without_its_step_is_named(images, tmp_path):
    run_steps(images, tmp_path / "run", 1)
    path = tmp_path / "run/checkpoints/step_0000001/state.json"
    path.write_text(path.read_text().replace('"step": 1', '"step": "1"'))
    with pytest.raises(ValueError, match=rf"{path} is missing or damaged: step must be a number of steps"):
        run_steps(images, tmp_path / "run", 2, resume=True)


def test_checkpoint_of_another_architecture_is_named(images, tmp_path):
    run_steps(images, tmp_path / "run", 1)
    path = tmp_path / "run/checkpoints/step_0000001/config.json"
    path.write_text(path.read_text().replace('"extended-ppl"', '"autolink"'))
    with pytest.raises(ValueError, match="expected a model of the class ExtendedPPL, got ExtendedAutoLink"):
        run_steps(images, tmp_path / "run", 2, resume=True)


def test_optimizer_of_another_model_is_named(images, tmp_path):
    run_steps(images, tmp_path / "run", 1)
    run_steps(images, tmp_path / "other", 1, model={"memory_width": 24})
    name = "checkpoints/step_0000001/optimizer.safetensors"
    (tmp_path / "run" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(ValueError, match=r"optimizer.safetensors: memory\.\S+ has shape .*, the model has shape"):
        run_steps(images, tmp_path / "run", 2, resume=True)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 2.5}, TypeError, "steps must be int, got 2.5"),
        ({"batch_size": True}, TypeError, "batch_size must be int, got True"),
        ({"lr": 0}, ValueError, "lr must be a positive number, got 0"),
        ({"lr": "1e-4"}, TypeError, "lr must be float, got '1e-4'"),
        ({"lr": float("nan")}, ValueError, "lr must be a positive number, got nan"),
        ({"betas": (0.9,)}, ValueError, "betas must be two numbers"),
        ({"betas": (0.9, 1.0)}, ValueError, "betas must be two numbers"),
        ({"schedule": "linear"}, ValueError, "schedule must be one of constant, cosine, got 'linear'"),
        ({"flip": 1}, TypeError, "flip must be bool, got 1"),
        ({"max_bad_share": 1.5}, ValueError, "max_bad_share must be between 0 and 1, got 1.5"),
    ],
)
def test_wrong_options_are_named(options, error, sentence):
    with pytest.raises(error, match=f"^TrainConfig: {sentence}"):
        TrainConfig(**options)


def test_fp16_on_the_cpu_is_refused(images, tmp_path):
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        run_steps(images, tmp_path / "run", 1, precision="fp16")
    assert not (tmp_path / "run").exists()
