"""Damaged files of every format that the library reads, tried in a child process: `python tests/fuzz --help`."""

import argparse
import os
import random
import shutil
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from formats import FORMATS  # noqa: E402
from mutations import mutated  # noqa: E402
from PIL import Image  # noqa: E402
from trials import Child, in_a_process  # noqa: E402

OUTCOMES = ("read", "refused", "unexpected", "outside", "crash", "hang")
GOOD = {"read", "refused"}


def main(arguments: list[str] | None = None) -> int:
    """Run the fuzzer; 0 where every file was read or refused, else 1."""
    options = _options(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    Image.init()
    names = options.formats or list(FORMATS)
    with TemporaryDirectory(prefix="ppl_fast_fuzz_") as place:
        counts, seconds = _fuzz(Path(place).resolve(), names, options)
    width = max(map(len, names))
    print(f"{'':{width}}  " + "".join(f"{outcome:>11}" for outcome in OUTCOMES))
    for name in names:
        print(f"{name:{width}}  " + "".join(f"{counts[name, outcome]:>11}" for outcome in OUTCOMES))
    bad = sum(count for (_, outcome), count in counts.items() if outcome not in GOOD)
    print(
        f"{counts.total()} files in {seconds:.0f} s from seed {options.seed}: {bad or 'none'} neither read nor refused"
    )
    return 1 if bad else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of all damages; a file is repeated by its seed and number")
    parser.add_argument("--mutations", type=int, default=10_000, help="files in all, shared out over the formats")
    parser.add_argument("--minutes", type=float, default=60, help="after which no new file is tried")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("--seconds", type=float, default=60, help="that one file may take")
    parser.add_argument("--keep", type=Path, help="folder for the files that were neither read nor refused")
    return parser.parse_args(arguments)


def _fuzz(place: Path, names: list[str], options: argparse.Namespace) -> tuple[Counter, float]:
    """Outcomes by (format, outcome), and the seconds that it took."""
    folder, seeds = _set_up(place, names)
    counts: Counter[tuple[str, str]] = Counter()
    child, begin, prepared = Child(folder, options.seconds), time.monotonic(), ""
    try:
        for number in range(options.mutations):
            name = names[number * len(names) // options.mutations]
            form = FORMATS[name]
            if time.monotonic() - begin > 60 * options.minutes:
                break
            if prepared != name:
                prepared = name
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                in_a_process(_prepare, name, folder)
                (folder / form.name).write_bytes(seeds[name][0])
                if (whole := child.run(name)) != ("read", ""):
                    raise SystemExit(f"{name}: the whole file is not read in the child process: {whole}")
            rng = random.Random(f"{options.seed} {name} {number}")
            content = mutated(rng.choice(seeds[name]), seeds[name], rng)
            if rng.random() < 0.5:
                content = form.mend(content)
            before = set(os.listdir(folder)) | {form.name}
            (folder / form.name).write_bytes(content)
            outcome, detail = child.run(name)
            if set(os.listdir(folder)) != before:
                outcome, detail = "outside", f"left {set(os.listdir(folder)) - before}"
            counts[name, outcome] += 1
            if outcome not in GOOD:
                print(f"{name} {number}: {outcome}: {detail}", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    (options.keep / f"{name}_{options.seed}_{number}").write_bytes(content)
    finally:
        child.close()
    return counts, time.monotonic() - begin


def _set_up(place: Path, names: list[str]) -> tuple[Path, dict[str, list[bytes]]]:
    """The folder of the trials, and whole files of each format."""
    outside, folder, seeds = place / "outside", place / "trial", {}
    outside.mkdir()
    (outside / "secret.txt").write_bytes(b"secret" * 1000)
    shutil.copy(outside / "secret.txt", outside / "secret.h5")
    for name in names:
        with TemporaryDirectory(dir=place) as empty:
            seeds[name] = in_a_process(_seeds, name, Path(empty))
    return folder, seeds


def _seeds(name: str, folder: Path) -> list[bytes]:
    return FORMATS[name].seeds(folder)


def _prepare(name: str, folder: Path) -> None:
    FORMATS[name].prepare(folder)


if __name__ == "__main__":
    sys.exit(main())
