"""A model and images small enough to train in a second, for the tests of training and command line."""

from pathlib import Path

import numpy as np
from PIL import Image

from ppl_fast.cli import main
from ppl_fast.training import TrainConfig, train

MODEL = {
    "num_keypoints": 6,
    "image_size": 32,
    "head": "residual",
    "regressor_base": 4,
    "translator": "light",
    "translator_base": 4,
    "translator_levels": 3,
    "memory_banks": 4,
    "memory_width": 16,
    "memory_hidden": 16,
    "memory_layers": 1,
    "memory_start": "balanced",
    "mask_blocks": 4,
    "occlude_input": 0.5,
    "reseed_after": 2,
    "reconstruction_loss": "mse",
}
TRAIN = {
    "batch_size": 4,
    "lr": 1e-3,
    "workers": 0,
    "device": "cpu",
    "log_every": 2,
    "checkpoint_every": 3,
    "picture_every": 0,
    "tracker": "none",
}


def draw_images(folder: Path, count: int = 10, seed: int = 0) -> Path:
    """Bright bars at random places and angles on a dark ground, 40 x 30 pixels."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:30, :40]
    for i in range(count):
        angle, cx, cy = rng.uniform(0, np.pi), rng.uniform(12, 28), rng.uniform(10, 20)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        bar = (np.abs(along) < 10) & (np.abs(across) < 2)
        Image.fromarray(np.where(bar[..., None], (230, 200, 90), (20, 40, 60)).astype(np.uint8)).save(
            folder / f"{i}.png"
        )
    return folder


def run_steps(images: Path, out: Path, steps: int, resume: bool = False, model: dict | None = None, **options):
    """Train the tiny model; `model` and `options` replace single options of model and loop."""
    config = TrainConfig(**(TRAIN | {"steps": steps} | options))
    return train(MODEL | (model or {}), config, images, out, resume, architecture="extended-ppl")


def fails(capsys, *arguments) -> str:
    """The one sentence that a wrong command ends with; checks exit code 2 and that no traceback comes before it."""
    assert main([str(argument) for argument in arguments]) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    last = err.rstrip("\n").split("\n")[-1]
    assert last.startswith("ppl-fast: error: ")
    return last.removeprefix("ppl-fast: error: ")
