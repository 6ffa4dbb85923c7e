"""What one core decodes: images a second of processor time, from JPEG files of several sizes to a model's square.

`python benchmarks/decoding.py [--out FILE]`; processor time of one thread, which leaves out what others take
meanwhile. 2,000 images a second on 16 cores are 125 a core.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from loading import draw_photographs, per_second
from run import keep, parser_of

from ppl_fast.data import ImageFolder, training_loader
from ppl_fast.data.image_file import load_upright
from ppl_fast.data.pixels import normalised, resized

SIZE = 128
SIDES = {256: 16, 512: 16, 1024: 8, 2048: 4}  # of the files, and how many there are


def rows_of(folder: Path, side: int, rounds: int) -> dict[str, float]:
    """Whole images resized, those that JPEG reduces on decoding, and batches of the training loader."""
    files = ImageFolder(folder, SIZE)
    count = len(files)

    def whole() -> None:
        for name in files.paths:
            normalised(resized(load_upright(folder / name), SIZE))

    def reduced() -> None:
        for number in range(count):
            files[number]

    def batches() -> None:
        next(iter(training_loader(files, count, seed=0)))

    ways = {"whole": whole, "reduced": reduced, "training_loader": batches}
    row = {way: round(per_second(function, count, rounds), 1) for way, function in ways.items()}
    print(f"{side:>5} x {side:<5}" + "".join(f"{way}: {rate:8.1f} a second   " for way, rate in row.items()))
    return {"side": side, "size": SIZE, **row}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="calls of each way")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as made:
        for side, count in SIDES.items():
            rows.append(rows_of(draw_photographs(Path(made, str(side)), count, side), side, arguments.rounds))
    keep(rows, arguments.out)


if __name__ == "__main__":
    main()
