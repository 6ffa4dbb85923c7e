"""The command line in processes of its own: Ctrl-C, and several processes at once."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import run_steps

from ppl_fast.training.checkpoint import list_checkpoints

ROOT = Path(__file__).parents[1]
TWO = ("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone")  # at a port that is free
# Found by Python at its start: in the launcher's first attempt the second process ends, as killed by the system.
KILLED_ONCE = """
import os, signal
if os.environ.get("RANK") == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    from ppl_fast.training import trainer
    advance = trainer.Trainer._advance
    def advance_and_die(self, batch):
        advance(self, batch)
        if self.step == 5:
            os.kill(os.getpid(), signal.SIGKILL)
    trainer.Trainer._advance = advance_and_die
"""


def launch(*arguments, by=(), **variables) -> subprocess.Popen:
    """The command in a process of its own, or in those that a launcher starts, with environment variables."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, *by, "-m", "ppl_fast.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def await_steps(process, out) -> None:
    """Read what is printed until steps are done."""
    for line in iter(process.stderr.readline, ""):
        if "images/s" in line or (out / "checkpoints/step_0000003").exists():
            break


def ended(process) -> tuple[str, str]:
    """What a launcher's process printed by its end; one that does not end is told to, for it has others to end."""
    try:
        return process.communicate(timeout=120)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_resume(images, config, tmp_path):
    out = tmp_path / "run"
    process = launch("train", images, "--out", out, "--config", config, "--steps", 1_000_000)
    try:
        await_steps(process, out)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert f"resume with: ppl-fast train {images} --out {out} --resume" in err
    assert "Traceback" not in err
    newest = sorted((out / "checkpoints").iterdir())[-1]
    assert f"saved {newest}" in err
    assert (newest / "model.safetensors").read_bytes() == (out / "model/model.safetensors").read_bytes()


@pytest.mark.slow
def test_two_processes_share_the_batch_and_agree_when_resumed(images, config, tmp_path):
    def torchrun(out, steps, *more):
        process = launch("train", images, f"--out={out}", f"--config={config}", f"--steps={steps}", *more, by=TWO)
        printed, err = ended(process)
        assert process.returncode == 0, err
        return printed

    printed = torchrun(tmp_path / "straight", 6)
    assert printed.count("trained to step 6") == 1 and "training on cpu in 2 processes, " in printed
    torchrun(tmp_path / "halved", 3)
    torchrun(tmp_path / "halved", 6, "--resume")
    straight, halved = ((tmp_path / n / "model/model.safetensors").read_bytes() for n in ("straight", "halved"))
    assert straight == halved
    run_steps(images, tmp_path / "one", 6)
    assert straight != (tmp_path / "one/model/model.safetensors").read_bytes()


@pytest.mark.slow
def test_torchrun_goes_on_from_the_last_checkpoint_after_a_process_was_killed(images, config, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(KILLED_ONCE)
    command = ["train", images, "--config", config, "--steps", 6, "--resume", "--out"]
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        # By torchrun's own rendezvous, whose store outlives the restart; --standalone would make another.
        by = (*TWO[:-1], f"--master-port={free.getsockname()[1]}", "--max-restarts=1")
    process = launch(*command, tmp_path / "killed", by=by, PYTHONPATH=path)
    printed, err = ended(process)
    assert process.returncode == 0, err
    assert "resuming at step 3" in printed and "trained to step 6" in printed
    ended(launch(*command, tmp_path / "straight", by=TWO))
    straight, killed = ((tmp_path / n / "model/model.safetensors").read_bytes() for n in ("straight", "killed"))
    assert straight == killed


@pytest.mark.slow
def test_ctrl_c_at_torchrun_saves_once(images, config, tmp_path):
    out = tmp_path / "run"
    process = launch("train", images, "--out", out, "--config", config, "--steps", 1_000_000, by=TWO)
    await_steps(process, out)
    process.send_signal(signal.SIGINT)
    _, err = ended(process)
    assert process.returncode != 0
    newest = list_checkpoints(out)[-1]
    assert err.count("ppl-fast: stopped at step ") == 1 and f", saved {newest}; resume with: ppl-fast train" in err
    assert (newest / "model.safetensors").read_bytes() == (out / "model/model.safetensors").read_bytes()
    assert not list(out.rglob("*.tmp"))
