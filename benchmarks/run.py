"""Run the suites, print one table and write it, with machine and versions, to benchmarks/results/.

`python benchmarks/run.py [OP ...] [--out FILE] [--table FILE]`: all operators by default; --table prints a result file.
Some operators alone are printed, and written only where --out says: a part must not replace the whole.
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

HERE = Path(__file__).parent
OPERATORS = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operators", nargs="*", help=f"of {', '.join(OPERATORS)} (default: all)")
    parser.add_argument("--out", type=Path, help="write here (default: results/cpu.json; with OP named, nowhere)")
    parser.add_argument("--table", type=Path, help="print this result file and measure nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.operators) - set(OPERATORS):
        parser.error(f"unknown operator {', '.join(sorted(unknown))}; there are {', '.join(OPERATORS)}")
    if arguments.table:
        result = json.loads(arguments.table.read_text())
    else:
        files = [str(HERE / f"bench_{op}.py") for op in arguments.operators or OPERATORS]
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw.json"
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-disable-gc"]
            done = subprocess.run([*command, "--benchmark-columns=median", f"--benchmark-json={raw}", *files])
            if done.returncode:
                return done.returncode
            result = {"machine": machine(), "rows": rows(json.loads(raw.read_text())["benchmarks"])}
        if out := arguments.out or (None if arguments.operators else HERE / "results" / "cpu.json"):
            write(result, out)
    print_table(result)
    return 0


def write(result: dict, out: Path) -> None:
    """Write a result file, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(out)
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
    """Join the forward and backward medians (ms) of each (operator, shape, backend) and add the ratios."""
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
                ratio = (base["forward_ms"] + base["backward_ms"]) / (row["forward_ms"] + row["backward_ms"])
                row[f"times_{name}"] = float(f"{ratio:.4g}")
    return list(joined.values())


def print_table(result: dict) -> None:
    """Print the rows: medians in milliseconds, peak memory above the inputs, ratios of forward + backward."""
    print("\n" + ", ".join(f"{k} {v}" for k, v in result["machine"].items()) + "\n")
    head = ("operator", "shape", "backend", "forward ms", "backward ms", "peak MB", "x formula", "x compiled")
    keys = ("op", "shape", "backend", "forward_ms", "backward_ms", "peak_mb", "times_formula", "times_compiled")
    lines = [head, *(tuple(str(row.get(key, "-")) for key in keys) for row in result["rows"])]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        print("  ".join(cells))


if __name__ == "__main__":
    sys.exit(main())
