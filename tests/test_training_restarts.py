"""Runs that are begun again: by a queue, twice at once, beside stray files, or after their folder was moved."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

pytest.importorskip("accelerate", reason="training needs the train extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")

from tiny import draw_images, fails, run_steps

from ppl_fast._files import locked
from ppl_fast.cli import main
from ppl_fast.training import load_model
from ppl_fast.training.checkpoint import list_checkpoints
from ppl_fast.training.logging import RunLog


def weights(run):
    return (run / "model/model.safetensors").read_bytes()


def logged(run):
    return [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def six(images, tmp_path_factory):
    """A run of 6 steps, in one go."""
    run = tmp_path_factory.mktemp("runs") / "six"
    run_steps(images, run, 6)
    return run


@pytest.mark.parametrize("form", [["--resume"], ["--resume", "auto"], ["--resume=auto"]])
def test_one_command_begins_and_goes_on(images, config, six, tmp_path, capsys, form):
    command = ["train", str(images), "--out", str(tmp_path / "run"), "--config", str(config)]
    assert main([*command, *form]) == 0
    assert f"no run in {tmp_path / 'run'} yet: it begins" in capsys.readouterr().out
    assert main([*command, *form, "--steps", "6"]) == 0
    assert "resuming at step 3" in capsys.readouterr().out
    assert weights(tmp_path / "run") == weights(six)
    assert main([*command, *form, "--steps", "6"]) == 0 and "all 6 steps are done" in capsys.readouterr().out


def test_resume_from_python_begins_too(images, six, tmp_path):
    (tmp_path / "run").mkdir()
    run_steps(images, tmp_path / "run", 3, resume=True)
    run_steps(images, tmp_path / "run", 6, resume="auto")
    assert weights(tmp_path / "run") == weights(six)


def test_a_run_killed_before_its_first_checkpoint_is_begun_again(images, six, tmp_path):
    shutil.copytree(six, tmp_path / "run", ignore=lambda *_: ["checkpoints", "model"])
    run_steps(images, tmp_path / "run", 6, resume=True)
    assert weights(tmp_path / "run") == weights(six)
    (tmp_path / "early").mkdir()
    (tmp_path / "early/.lock").touch()  # killed before it wrote anything
    run_steps(images, tmp_path / "early", 1)


def test_the_second_of_two_runs_in_one_folder_is_refused(images, config, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    code = (
        "import sys; from ppl_fast._files import locked\n"
        "with locked(sys.argv[1], 'taken'): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(run / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        for more in ([], ["--resume"]):
            sentence = fails(capsys, "train", images, "--out", run, "--config", config, *more)
            assert sentence == f"train: a run is in progress in {run}; wait for its end, or name another --out"
        assert os.listdir(run) == [".lock"]
        other.kill()  # the lock ends with its process
    assert (run / ".lock").exists()
    run_steps(images, run, 1)
    assert not (run / ".lock").exists()


def test_a_lock_is_held_by_one_alone(tmp_path):
    with locked(tmp_path / "lock", "taken"):
        with pytest.raises(BlockingIOError, match="taken"), locked(tmp_path / "lock", "taken"):
            raise AssertionError("held twice")
        assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock", "taken"):
        assert (tmp_path / "lock").exists()
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here, which would have the lock too")
def test_a_forked_process_keeps_no_lock_of_one_that_was_killed(tmp_path):
    """One that loads images outlives a trainer by seconds."""
    code = (
        "import os, signal, sys; from ppl_fast._files import locked\n"
        "with locked(sys.argv[1], 'taken'):\n"
        "    if os.fork(): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    print('alone', flush=True); sys.stdin.read(); os._exit(0)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout.readline() == "alone\n" and killed.wait(60) == -signal.SIGKILL
        with locked(tmp_path / "lock", "taken"):
            killed.stdin.close()


def test_another_process_that_ended_in_between_is_noticed(images, six, tmp_path, monkeypatch):
    shutil.copytree(six, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints/step_0000006")
    load = run_steps.__globals__["train"].__globals__["load_optimizer"]

    def meanwhile(*arguments):
        shutil.copytree(six / "checkpoints/step_0000006", tmp_path / "run/checkpoints/step_0000006")
        return load(*arguments)

    monkeypatch.setitem(run_steps.__globals__["train"].__globals__, "load_optimizer", meanwhile)
    with pytest.raises(BlockingIOError, match="another process went on with"):
        run_steps(images, tmp_path / "run", 9, resume=True)


def test_stray_files_among_checkpoints(images, six, tmp_path):
    run, checkpoints = tmp_path / "run", tmp_path / "run/checkpoints"
    run_steps(images, run, 3)
    for name in ("step_0000003 (copy)", "step_latest", "step_0000003.bak", "best"):
        shutil.copytree(checkpoints / "step_0000003", checkpoints / name)
    (checkpoints / ".DS_Store").write_bytes(b"\0")
    (checkpoints / "step_0000009").write_text("a note")
    (checkpoints / "step_0000006").mkdir()  # half of a copy
    (checkpoints / "step_0000006/config.json").write_text("{")
    assert [path.name for path in list_checkpoints(run)] == ["step_0000003"]
    run_steps(images, run, 6, resume=True)
    assert (
        weights(run) == weights(six) and weights(six) == (checkpoints / "step_0000006/model.safetensors").read_bytes()
    )
    assert (checkpoints / "step_latest/state.json").is_file() and (checkpoints / "step_0000009").read_text() == "a note"


def test_what_a_killed_run_left_half_written_goes(images, tmp_path):
    left = tmp_path / "run/checkpoints/.step_0000004.x.tmp"
    run_steps(images, tmp_path / "run", 3)
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    run_steps(images, tmp_path / "run", 4, resume=True)
    assert not left.exists() and list_checkpoints(tmp_path / "run")[-1].name == "step_0000004"


def test_lines_in_the_log_that_are_none(images, six, tmp_path):
    run_steps(images, tmp_path / "run", 3)
    with open(tmp_path / "run/log.jsonl", "ab") as file:
        file.write(b'[1]\n7\n{"loss": 1}\n{"step": "x"}\n\xff\xfe\n{"step": 3, "lo')
    run_steps(images, tmp_path / "run", 6, resume=True)
    assert logged(tmp_path / "run") == [2, 3, 4, 6]


@pytest.mark.parametrize("moved", [True, False])
def test_a_run_whose_folder_goes_away_is_written_anew(images, six, tmp_path, monkeypatch, capsys, moved):
    run, steps = tmp_path / "run", []
    scalars = RunLog.scalars

    def away(self, record):
        scalars(self, record)
        steps.append(record["step"])
        if record["step"] == 4:
            shutil.move(run, tmp_path / "moved") if moved else shutil.rmtree(run)

    monkeypatch.setattr(RunLog, "scalars", away)
    run_steps(images, run, 6)
    assert f"note: {run} was moved or removed; it is written anew" in capsys.readouterr().out
    assert weights(run) == weights(six)
    assert logged(run) == steps == [2, 3, 4, 6]
    monkeypatch.undo()
    run_steps(images, run, 7, resume=True)
    if moved:
        assert load_model(tmp_path / "moved") and [p.name for p in list_checkpoints(tmp_path / "moved")]


def test_a_moved_run_goes_on_elsewhere(images, six, tmp_path):
    run_steps(images, tmp_path / "run", 3)
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    assert main(["train", "--out", str(tmp_path / "elsewhere"), "--resume", "--steps", "6"]) == 0
    assert weights(tmp_path / "elsewhere") == weights(six)


def test_a_run_in_the_folder_of_its_images(tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="pictures need the viz extra")
    folder = draw_images(tmp_path / "images")
    for steps in (2, 4):
        run_steps(folder, folder / "runs/mine", steps, resume=True, picture_every=2)
    run_steps(folder, folder / "runs/mine", 5, resume=True)
    shown = capsys.readouterr().out
    assert "10 images in" in shown and "runs/mine/ (a training run)" in shown and "no longer holds" not in shown


@pytest.mark.slow
def test_names_that_are_no_utf8(tmp_path, capsys):
    folder = draw_images(tmp_path / "images")
    try:
        os.rename(folder / "3.png", os.fsencode(folder) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("the file system does not take such names")
    data = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9")
    shutil.move(folder, data)
    run = os.fsdecode(os.fsencode(tmp_path) + b"/\xe8re")
    for steps in (2, 3):
        run_steps(data, run, steps, resume=True, picture_every=2, tracker="tensorboard")
    assert main(["train", "--out", run, "--resume", "--steps", "4"]) == 0
    shown = capsys.readouterr().out
    assert shown.encode("utf-8") and "note: TensorBoard takes no names" in shown and r"/\xe9t\xe9" in shown
    assert "no longer holds" not in shown and load_model(run)
