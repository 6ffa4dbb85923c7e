"""The command line in processes of its own: Ctrl-C, and several processes at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import run_steps

ROOT = Path(__file__).parents[1]


def launch(*arguments, **options) -> subprocess.Popen:
    """The command in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ppl_fast.cli", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def test_ctrl_c_saves_and_says_how_to_resume(images, config, tmp_path):
    out = tmp_path / "run"
    process = launch("train", images, "--out", out, "--config", config, "--steps", 1_000_000)
    try:
        for line in iter(process.stderr.readline, ""):
            if "images/s" in line or (out / "checkpoints/step_0000003").exists():
                break
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
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "ppl_fast.cli", "train"]
        command += [str(images), f"--out={out}", f"--config={config}", f"--steps={steps}", *more]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert torchrun(tmp_path / "straight", 6).count("trained to step 6") == 1
    torchrun(tmp_path / "halved", 3)
    torchrun(tmp_path / "halved", 6, "--resume")
    straight, halved = ((tmp_path / n / "model/model.safetensors").read_bytes() for n in ("straight", "halved"))
    assert straight == halved
    run_steps(images, tmp_path / "one", 6)
    assert straight != (tmp_path / "one/model/model.safetensors").read_bytes()
