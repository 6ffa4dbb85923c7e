"""Images a second through the training loader: from JPEG files in a folder, in shards, and from the caches.

`python benchmarks/loading.py [--out FILE]`: processor time of one thread, which leaves out what others take meanwhile,
and with it the wait for a disk or a network: the files lie in memory. `images_per_second` measures by the clock, for a
training step too.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from ppl_fast.data import ImageFolder, open_set, training_loader
from ppl_fast.data.image_file import load_resized, load_upright
from ppl_fast.data.pixels import resized
from ppl_fast.data.shards import tables

SIZE, COUNT, ROWS = 128, 128, 32  # of the model's square; images, also of a batch; rows of a group in Parquet
SIDES = (256, 512, 1024)  # of the files


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


def per_second(function, count: int, rounds: int) -> float:
    """Of `count` images that a call takes, by processor time; the first call is not counted."""
    taken = []
    for _ in range(rounds + 1):
        begun = time.process_time()
        function()
        taken.append(time.process_time() - begun)
    return count / median(taken[1:])


def pack(folder: Path) -> tuple[Path, Path]:
    """The images of a folder as a tar and as a Parquet file beside it."""
    import pyarrow
    from pyarrow import parquet

    files = sorted(folder.iterdir())
    packed = folder.with_suffix(".tar"), folder.with_suffix(".parquet")
    with tarfile.open(packed[0], "w") as tar:
        for path in files:
            tar.add(path, path.name)
    table = pyarrow.table({"image": [{"bytes": path.read_bytes(), "path": path.name} for path in files]})
    parquet.write_table(table, packed[1], row_group_size=ROWS)
    return packed


def rows_of(folder: Path, side: int, rounds: int) -> dict[str, float]:
    """Batches of the training loader, in its order, from each source of the same images."""
    tar, table = pack(folder)
    caches = {f"cache {kind}": (folder, kind) for kind in ("memory", "disk")}
    sources = {"folder": (folder, "no"), "tar": (tar, "no"), "parquet": (table, "no")} | caches
    sources["parquet, a row group an image"] = table, "no"
    row: dict[str, float] = {"side": side, "size": SIZE}
    for name, (source, kind) in sources.items():
        images = open_set(source, SIZE, cache=kind).dataset
        assert len(images) == COUNT
        tables.HELD = 0 if name.endswith("an image") else 1 << 28
        batch = iter(training_loader(images, COUNT, seed=0))
        row[name] = round(per_second(lambda batch=batch: next(batch), COUNT, rounds), 1)
        print(f"{side:>5} x {side:<5}{name:<32}{row[name]:>10.1f} a second")
    differences = [
        np.abs(load_resized(path, SIZE).numpy().astype(int) - resized(load_upright(path), SIZE).numpy())
        for path in sorted(folder.iterdir())[:16]
    ]
    row["reduced_mean_difference"] = round(float(np.mean(differences)), 3)  # in levels of 255
    return row


def main() -> None:
    from run import keep, parser_of

    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="batches of each source")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        os.environ["PPL_FAST_CACHE"] = str(Path(made, "cache"))
        rows = [rows_of(draw_photographs(Path(made, str(side)), COUNT, side), side, arguments.rounds) for side in SIDES]
    keep(rows, arguments.out)


if __name__ == "__main__":
    main()
