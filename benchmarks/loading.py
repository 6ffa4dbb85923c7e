"""Images a second from a folder of JPEG files through the training loader, alone and into a training step."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ppl_fast.data import ImageFolder, training_loader


def draw_photographs(folder: Path, count: int, side: int = 256) -> Path:
    """Smooth random colours with some grain, as JPEG of quality 90: about as large as photographs of that side."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (side // 16, side // 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), dtype=np.int16)
        grainy = (smooth + rng.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(folder / f"{i:05}.jpg", quality=90)
    return folder


def images_per_second(
    folder: Path, size: int, batch: int, workers: int, device: str, seconds: float, step=None
) -> float:
    """Over some seconds and at least three batches; `step(images)` takes each, else it is copied to the device."""
    loader = training_loader(ImageFolder(folder, size), batch, seed=0, workers=workers)
    batches, seen = iter(loader), 0
    for number in range(1 << 30):
        images = next(batches).to(device, non_blocking=True)
        if step is not None:
            step(images)
        if device == "cuda":
            torch.cuda.synchronize()
        if number == 2 * workers:  # what was loaded while the workers started is left out
            began = time.perf_counter()
        elif number > 2 * workers:
            seen += 1
            if seen >= 3 and time.perf_counter() - began > seconds:
                break
    return seen * batch / (time.perf_counter() - began)
