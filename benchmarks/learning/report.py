"""The comparison as a JSON file, a table and a chart: `python benchmarks/learning/report.py FOLDER [--out FILE.json]`.

FOLDER holds the cells of `run.py`. Means over seeds have a 95 % interval by Student's t. Ratios to AutoLink, of errors
on whole images, are taken seed by seed: to AutoLink with every extra that is told of the subject what the row is, and
learns from as much hidden, as many pixels and keypoints, after equal steps, and after as many as it takes in the time
of the slowest method.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from methods import METHODS, Method

from ppl_fast._files import write_text
from ppl_fast.visualization._charts import INK, new_figure, quieten, save_chart

T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57}  # of n - 1 degrees of freedom, two-sided
RATIOS = ("ratio, equal steps", "ratio, equal time")
COLUMNS = {  # of the table: where a cell has it
    "whole": lambda m: m["ridge"]["value"],
    "whole, 2 rounds": lambda m: m["occlusion"]["clean_ridge"][-1],
    "half hidden": lambda m: m["occlusion"]["rows"][0]["ridge"][0],
    "half hidden, 2 rounds": lambda m: m["occlusion"]["rows"][0]["ridge"][-1],
    "80 % hidden, 2 rounds": lambda m: m["occlusion"]["rows"][1]["ridge"][-1],
    "limb share": lambda m: m["limb_share"]["value"],
    "on the subject": lambda m: m["subject_share"]["value"],
    "least squares": lambda m: m["regression"]["value"],
    "mean pose": lambda m: m["ridge"]["baseline"],
    "seconds": lambda m: m["cell"]["seconds"],
}


def main() -> None:
    """Write the file and the chart, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--out", type=Path, help="JSON file, with a chart .png beside it (default: FOLDER/learning.json)"
    )
    parser.add_argument("--judged", default="test", choices=["validation", "test"])
    options = parser.parse_args()
    cells = [
        json.loads(path.read_text()) for path in sorted((options.folder / "cells").glob(f"*-{options.judged}.json"))
    ]
    if not cells:
        raise SystemExit(f"{options.folder} holds no cells judged on {options.judged}")
    rows = summary(cells)
    out = options.out or options.folder / "learning.json"
    write_text(out, json.dumps({"judged": options.judged, "rows": rows}, indent=2) + "\n")
    print("\n".join(table(rows)))
    chart(out.with_suffix(".png"), rows)
    print(f"wrote {out} and {out.with_suffix('.png')}")


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a set, method and number of steps."""
    groups: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = defaultdict(dict)
    for each in cells:
        cell = each["cell"]
        groups[cell["set"], cell["method"], cell["steps"]][cell["seed"]] = each
    rows = []
    for (name, method, steps), by_seed in sorted(groups.items(), key=lambda item: _order(*item[0])):
        row: dict[str, Any] = {"set": name, "method": method, "steps": steps, "seeds": sorted(by_seed)}
        for column, value in COLUMNS.items():
            row[column] = _where_measured(value, by_seed)
        beside = _baseline(groups, name, METHODS[method], set(by_seed))
        for ratio, other in zip(
            RATIOS, (beside.get(steps), beside[max(beside)] if len(beside) > 1 else None), strict=True
        ):
            row[ratio] = other and _ratio(by_seed, other)
        rows.append(row)
    return rows


def _where_measured(value: Any, by_seed: dict[int, dict[str, Any]]) -> dict[str, float | None] | None:
    """None where the set has no such measure, as no bones for a limb share."""
    try:
        return interval([value(each) for each in by_seed.values()])
    except KeyError:
        return None


def _order(name: str, method: str, steps: int) -> tuple[str, int, int]:
    return name, list(METHODS).index(method), steps


def interval(values: list[float]) -> dict[str, float | None]:
    """Mean and half of the interval; the latter unknown of one seed."""
    wide = T95[len(values)] * float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) in T95 else None
    return {"mean": float(np.mean(values)), "half": wide}


def _baseline(groups: Any, name: str, row: Method, seeds: set[int]) -> dict[int, dict[int, dict[str, Any]]]:
    """AutoLink on equal terms: by its steps the cells by seed, of those that have all seeds."""
    equal = [key for key, each in METHODS.items() if each.baseline and each.terms() == row.terms()]
    runs = {steps: each for (other, own, steps), each in groups.items() if other == name and own in equal}
    return {steps: each for steps, each in runs.items() if seeds <= set(each)}


def _ratio(by_seed: dict[int, dict[str, Any]], beside: dict[int, dict[str, Any]]) -> dict[str, float | None]:
    whole = COLUMNS["whole"]
    return interval([whole(each) / whole(beside[seed]) for seed, each in by_seed.items()])


def table(rows: list[dict[str, Any]]) -> list[str]:
    """As Markdown."""
    names = [column for column in (*COLUMNS, *RATIOS) if column != "mean pose"]
    lines = ["| set | method | steps | " + " | ".join(names) + " |", "| --- | --- | ---: |" + " ---: |" * len(names)]
    for row in rows:
        numbers = " | ".join(_number(row[name]) for name in names)
        lines.append(f"| {row['set']} | {METHODS[row['method']].words} | {row['steps']} | {numbers} |")
    return lines


def _number(value: dict[str, Any] | None) -> str:
    if value is None:
        return "-"
    digits = 0 if value["mean"] > 20 else 2 if value["mean"] > 0.5 else 4
    return f"{value['mean']:.{digits}f}" + (f" ± {value['half']:.{digits}f}" if value["half"] is not None else "")


def chart(path: Path, rows: list[dict[str, Any]]) -> None:
    """Errors on whole and on half hidden images, a panel a set."""
    sets = list(dict.fromkeys(row["set"] for row in rows))
    figure = new_figure(
        1.5 + 3.6 * len(sets), 0.9 + 0.32 * max(sum(row["set"] == name for row in rows) for name in sets)
    )
    panels = figure.subplots(1, len(sets), squeeze=False)[0]
    for panel, name in zip(panels, sets, strict=True):
        own = [row for row in rows if row["set"] == name]
        labels = [f"{METHODS[row['method']].words}, {row['steps']:,}" for row in own]
        for column, colour, marker in (("whole", "#2f5f9e", "o"), ("half hidden, 2 rounds", "#d1722e", "s")):
            means = [row[column]["mean"] for row in own]
            half = [row[column]["half"] or 0 for row in own]
            panel.errorbar(means, range(len(own)), xerr=half, fmt=marker, color=colour, markersize=5, label=column)
        panel.axvline(own[0]["mean pose"]["mean"], color="#6d737e", linestyle="-.", linewidth=1.1, label="mean pose")
        panel.set_yticks(range(len(own)), labels, fontsize=8)
        panel.invert_yaxis()
        panel.set_xlim(0)
        panel.set_title(name, loc="left", color=INK, fontsize=11)
        quieten(panel)
    figure.supxlabel("error by ridge, fraction of the image size", color=INK, fontsize=10)
    figure.set_layout_engine("constrained")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=3, frameon=False, labelcolor=INK, fontsize=9)
    save_chart(path, figure)


if __name__ == "__main__":
    main()
