"""Print a GPU's result file as the tables of docs/gpu.md: `python benchmarks/gpu_table.py benchmarks/results/FILE`."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

COLUMNS = ("cpp", "triton", "formula", "compiled")


def operators(result: dict) -> list[str]:
    """Forward, and forward with backward, of each implementation, in microseconds; memory above the inputs."""
    rows = {(row["op"], row["shape"], row["backend"]): row for row in result["rows"] if "graph_forward_us" in row}
    lines = [
        "| operator | size | CUDA C++ | Triton | formula | formula compiled | memory | formula's memory |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for op, shape in dict.fromkeys((op, shape) for op, shape, _ in rows):
        found = [rows.get((op, shape, name)) for name in COLUMNS]
        memory = [f"{row['peak_mb']:,.0f} MB" if row and "peak_mb" in row else "" for row in (found[0], found[2])]
        cells = [times(row, found[0]) for row in found]
        lines.append(f"| `{op}` | {shape} | {' | '.join(cells + memory)} |")
    return lines


def times(row: dict | None, ours: dict | None) -> str:
    """Forward, and forward with backward; of a baseline, how many times as long as ours."""
    if row is None:
        return ""
    forward, total = replayed(row, "forward"), replayed(row, "total")
    text = f"{short(forward)}, {short(total)}"
    if ours and row["backend"] in ("formula", "compiled"):
        text += f" ({short(total / replayed(ours, 'total'))} times)"
    return text


def replayed(row: dict, what: str) -> float:
    """Microseconds as replayed from a graph, or as called where a graph holds no such call."""
    return float(row[f"graph_{what}_us"] or row[f"eager_{what}_us"])


def kernels(result: dict) -> list[str]:
    """What each kernel of CUDA C++ takes of forward and backward."""
    lines = ["| operator | size | kernel | us |", "| --- | --- | --- | ---: |"]
    for row in result["rows"]:
        if row["backend"] == "cpp" and "kernels_us" in row:
            for name, time in row["kernels_us"].items():
                bare = re.search(r"(\w+_kernel)", name)
                lines.append(f"| `{row['op']}` | {row['shape']} | `{bare[1] if bare else name}` | {short(time)} |")
    return lines


def models(result: dict) -> list[str]:
    """Steps and passes of the whole model, in milliseconds, of the published formulas and of ours."""
    rows = {(r["op"], r["precision"], r["backend"], r["compiled"]): r for r in result["rows"] if "graph_breaks" in r}
    lines = [
        "| | precision | published formulas | the same, channels last | ours | memory, of the formulas' |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for op, precision, compiled in dict.fromkeys((op, precision, how) for op, precision, _, how in rows):
        found = [rows.get((op, precision, name, compiled)) for name in ("formula", "formula, channels last", "cpp")]
        theirs, _, ours = found
        if theirs and ours:
            cells = [f"{replayed(row, 'total') / 1e3:.1f} ms" if row else "" for row in found]
            cells[:2] = [
                f"{cell} ({replayed(row, 'total') / replayed(ours, 'total'):.2f} times)" if row else ""
                for cell, row in zip(cells, found[:2], strict=False)
            ]
            how = f"{op}, compiled" if compiled else op
            lines.append(f"| {how} | {precision} | {' | '.join(cells)} | {ours['peak_mb'] / theirs['peak_mb']:.2f} |")
    return lines


def estimates(result: dict) -> list[str]:
    """Images a second, by images at a time and passes over each."""
    rows = {(r["shape"], r["how"]): r for r in result["rows"] if r["op"] == "estimate"}
    ways = ("plain", "optimized", "optimized bfloat16")
    lines = ["| | as it is | `optimize` | `optimize`, bfloat16 |", "| --- | ---: | ---: | ---: |"]
    for shape in dict.fromkeys(shape for shape, _ in rows):
        cells = [f"{rows[shape, way]['images_per_second']:,.0f}" if (shape, way) in rows else "" for way in ways]
        lines.append(f"| {shape} | {' | '.join(cells)} |")
    return lines


def demo(result: dict) -> list[str]:
    """Images a second of the demo's training, launched kernel by kernel and replayed."""
    rates = {r["replayed"]: r["images_per_second"] for r in result["rows"] if r["op"] == "demo's training"}
    lines = ["| kernel by kernel | replayed from a CUDA graph |", "| ---: | ---: |"]
    return lines + [f"| {rates[False]:,.0f} | {rates[True]:,.0f} |"] * (len(rates) == 2)


def short(value: float) -> str:
    """Three digits, and all of a thousand's."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


TABLES = {
    "Operators": operators,
    "Kernels": kernels,
    "The whole model": models,
    "Estimates": estimates,
    "The demo's training": demo,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", type=Path, help="of gpu_suite.sh")
    result = json.loads(parser.parse_args().result.read_text())
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items() if key != "_C_cuda"))
    for title, table in TABLES.items():
        print(f"\n{title}\n")
        print("\n".join(table(result)))


if __name__ == "__main__":
    main()
