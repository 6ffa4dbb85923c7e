"""Run the suites, print one table and write it, with machine and versions, to benchmarks/results/.

`python benchmarks/run.py [NAME ...] [--out FILE] [--table FILE]`: an operator or `whole_model`, all by default; --table
prints a result file. Some alone are printed, and written only where --out says: a part must not replace the whole.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import ppl_fast
from ppl_fast import _library
from ppl_fast._files import write_text

HERE = Path(__file__).parent
SUITES = {path.stem.removeprefix("bench_"): path for path in sorted(HERE.glob("bench_*.py"))}
SUITES["whole_model"] = HERE / "whole_model.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="NAME", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--out", type=Path, help="write here (default: results/cpu.json; with NAME given, nowhere)")
    parser.add_argument("--table", type=Path, help="print this result file and measure nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.suites) - set(SUITES):
        parser.error(f"unknown name {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    if arguments.table:
        result = json.loads(arguments.table.read_text())
    else:
        files = [str(SUITES[name]) for name in arguments.suites or SUITES]
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw.json"
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-disable-gc"]
            command += ["--benchmark-columns=median", f"--benchmark-json={raw}", *files]
            # Started by a test that is one of several at once, pytest-benchmark would measure nothing.
            alone = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
            done = subprocess.run(command, env=alone)
            if done.returncode:
                return done.returncode
            result = {"machine": machine(), "rows": rows(json.loads(raw.read_text())["benchmarks"])}
        if out := arguments.out or (None if arguments.suites else HERE / "results" / "cpu.json"):
            write(result, out)
    print_table(result)
    return 0


def parser_of(about: str | None) -> argparse.ArgumentParser:
    """The parser of a script that may keep what it measures."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--out", type=Path, help="write here; else nothing is written")
    return parser


def keep(rows: list[dict], out: Path | None, **more: object) -> None:
    """Write rows, with the machine that they are of, where `out` says."""
    if out:
        write({"machine": machine(), **more, "rows": rows}, out)


def write(result: dict, out: Path) -> None:
    """Write a result file, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, json.dumps(result, indent=1) + "\n")
    print(f"\nwritten to {out}")


def machine() -> dict:
    """What the figures depend on."""
    kernels = _library.loaded("_C_cpu")
    model = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "cpu": model[0] if model else platform.processor(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instruction_set": kernels.current_isa() if kernels else None,
        "compiler": kernels.build_info()["compiler"] if kernels else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ppl_fast": ppl_fast.__version__,
    }


def rows(benchmarks: list[dict]) -> list[dict]:
    """Join the medians (ms) of each (operator or task, shape, backend) by direction; add the ratios of their sums."""
    joined: dict[tuple, dict] = {}
    for b in benchmarks:
        info = b["extra_info"]
        row = joined.setdefault(
            (info["op"], info["shape"], info["backend"]), {k: info[k] for k in ("op", "shape", "backend")}
        )
        row[f"{info['direction']}_ms"] = round(b["stats"]["median"] * 1e3, 4)
        if "peak_mb" in info:
            row["peak_mb"] = round(info["peak_mb"], 1)
    for (op, shape, _), row in joined.items():
        for name in ("formula", "compiled"):
            if base := joined.get((op, shape, name)):
                row[f"times_{name}"] = float(f"{time_of(base) / time_of(row):.4g}")
    return list(joined.values())


def time_of(row: dict) -> float:
    """Milliseconds of a row, all directions together."""
    return sum(value for key, value in row.items() if key.endswith("_ms"))


def print_table(result: dict) -> None:
    """Print the rows: medians in milliseconds, peak memory above the inputs, ratios of all that was timed."""
    print("\n" + ", ".join(f"{k} {v}" for k, v in result["machine"].items()) + "\n")
    columns = {"operator": "op", "shape": "shape", "backend": "backend"}
    columns |= {"forward ms": "forward_ms", "backward ms": "backward_ms", "total ms": "total_ms", "peak MB": "peak_mb"}
    columns |= {"x formula": "times_formula", "x compiled": "times_compiled"}
    lines = [[*columns], *([str(row.get(key, "-")) for key in columns.values()] for row in result["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    for line in lines:
        cells = [c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        print("  ".join(cells))


if __name__ == "__main__":
    sys.exit(main())
