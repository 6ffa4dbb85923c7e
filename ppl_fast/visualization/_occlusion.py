"""The chart of errors under occlusion: rounds of iterative inference, models beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_fast.visualization._charts import INK, new_figure, quieten, save_chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
PANEL = 2.9, 2.7  # inches
CEILING = 2.5  # the axis ends at this many times the mean pose's error; what lies above is written there
LEGEND = 2.1  # inches an entry takes
MEAN_POSE: dict[str, Any] = {"color": "#6d737e", "linewidth": 1.1, "linestyle": "-."}
COLOURS = ("#2f5f9e", "#d1722e", "#3d8b5f", "#8a5aa8")  # of the models, told apart by their markers as well
MARKERS = "osD^"


def save_occlusion(path: str | Path, results: Mapping[str, Mapping[str, Any]], baseline: float | None = None) -> None:
    """Write error against rounds of iterative inference, a panel a mask, the models' curves in each.

    A model without iterative inference has one error a mask, a single point; each model's error on the clean images is
    a dotted line. Errors far beyond the mean pose's are written at the top, for the others to be told apart.

    Args:
        path: the PNG file to write.
        results: by name of the model, what `evaluation.occlusion` gives; all with the same masks.
        baseline: the mean pose's error, a grey line.

    Raises:
        ValueError: no result, no mask, or models that were measured with different masks.
        ImportError: matplotlib is not installed.
    """
    masks = {name: [(row["mask"], row["share"]) for row in result["rows"]] for name, result in results.items()}
    if not masks or not all(masks.values()):
        raise ValueError(f"save_occlusion: results must hold at least one mask of one model, got {masks}")
    first = next(iter(masks.values()))
    if any(other != first for other in masks.values()):
        raise ValueError(f"save_occlusion: all models must be measured with the same masks, got {masks}")
    columns = min(COLUMNS, len(first))
    rows = -(-len(first) // columns)
    chart = new_figure(0.9 + PANEL[0] * columns, 0.95 + PANEL[1] * rows)
    panels = chart.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    rounds = max(len(row["rounds"]) for result in results.values() for row in result["rows"]) - 1
    highest = max(max(row["rounds"]) for result in results.values() for row in result["rows"])
    ceiling = CEILING * baseline if baseline is not None and CEILING * baseline < highest else None
    for panel, number in zip(panels, range(len(first)), strict=False):
        for model, result in enumerate(results.values()):
            _draw(panel, result["clean"], result["rows"][number]["rounds"], model)
            _name_beyond(panel, result["rows"][number]["rounds"], ceiling, model)
        if baseline is not None:
            panel.axhline(baseline, **MEAN_POSE)
        kind, share = first[number]
        panel.set_title(f"{kind}, {share:.0%} hidden", loc="left", color=INK, fontsize=11)
        panel.set_xticks(range(rounds + 1))
        panel.set_xlim(-0.25, max(rounds, 1) + 0.25)
        quieten(panel)
        panel.tick_params(labelbottom=True)  # also where the row below ends before
    panels[0].set_ylim(0, ceiling)
    for panel in panels[len(first) :]:
        panel.set_visible(False)
    chart.supxlabel("rounds of iterative inference (0: the plain estimate)", color=INK, fontsize=10)
    chart.supylabel(f"error, {next(iter(results.values()))['unit']}", color=INK, fontsize=10)
    chart.set_layout_engine("constrained", wspace=0.05, hspace=0.08)
    _explain(chart, results, baseline)
    save_chart(path, chart)


def _draw(panel: Axes, clean: float, errors: list[float], model: int) -> None:
    colour = COLOURS[model % len(COLOURS)]
    panel.axhline(clean, color=colour, linewidth=1, linestyle=":")
    marker = MARKERS[model % len(MARKERS)]
    panel.plot(np.arange(len(errors)), errors, color=colour, linewidth=1.8, marker=marker, markersize=5)


def _name_beyond(panel: Axes, errors: list[float], ceiling: float | None, model: int) -> None:
    for x, error in enumerate(errors):
        if ceiling is not None and error > ceiling:
            place: dict[str, Any] = {"xytext": (5, -2 - 13 * model), "textcoords": "offset points", "va": "top"}
            place["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            panel.annotate(f"\N{UPWARDS ARROW} {error:.3g}", (x, ceiling), color=COLOURS[model % len(COLOURS)], **place)


def _explain(chart: Figure, results: Mapping[str, Any], baseline: float | None) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for model, (name, result) in enumerate(results.items()):
        colour, marker = COLOURS[model % len(COLOURS)], MARKERS[model % len(MARKERS)]
        rounds = len(result["rows"][0]["rounds"]) > 1
        label = name if rounds else f"{name} (no rounds)"
        handles.append(Line2D([], [], marker=marker, linestyle="-" if rounds else "", label=label, color=colour))
        handles.append(Line2D([], [], linestyle=":", label=f"{name}, nothing hidden", color=colour))
    if baseline is not None:
        handles.append(Line2D([], [], **MEAN_POSE, label="mean pose"))
    columns = max(1, int(chart.get_figwidth() / LEGEND))
    chart.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK, fontsize=10)
