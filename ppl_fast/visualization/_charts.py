"""Charts: learning curves and the connectivity prior as a matrix."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_fast._extras import needing
from ppl_fast._files import replacing
from ppl_fast.visualization._draw import as_array, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE = "#4a4e57", "#d9dce1"
SMOOTHED_OVER = 40  # a curve's window is this fraction of its length
FEWEST_TO_SMOOTH = 40  # records; shorter curves are drawn as they are
FEWEST_TO_JOIN = 3  # records; fewer are drawn as dots
DEPTH = 1e-4  # the log axis ends at this fraction of the smallest loss, however small a term becomes
READABLE = 0.65  # of a curve's colour is taken for its name: light colours do for lines, but not for letters
LABEL_GAP = 0.055  # least distance of labels at the curves' ends, as a fraction of the axis


def save_training(path: str | Path, records: Sequence[dict[str, Any]]) -> None:
    """Write learning curves: the loss and its terms on a log axis, and images per second.

    Args:
        path: the PNG file to write.
        records: as in a run's log.jsonl, {"step", "loss", "losses": {name: weighted term}, "images_per_second"};
            records without "step" and "loss" are left out, and so are terms that are never positive.

    Raises:
        ValueError: no record holds a loss.
        ImportError: matplotlib is not installed.
    """
    kept = [record for record in records if "step" in record and "loss" in record]
    if not kept:
        raise ValueError(f"save_training: records must hold steps with a loss, got {len(records)} without")
    steps = np.array([record["step"] for record in kept], float)
    curves = {"loss": np.array([record["loss"] for record in kept], float)}
    for name in dict.fromkeys(name for record in kept for name in record.get("losses", {})):
        curves[name] = np.array([record.get("losses", {}).get(name, np.nan) for record in kept], float)
    curves = {name: values for name, values in curves.items() if np.nanmax(np.append(values, 0)) > 0}
    speed = np.array([record.get("images_per_second", np.nan) for record in kept], float)

    figure = new_figure(9, 6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    colours = [(0.13, 0.14, 0.16), *np.array(palette(max(len(curves) - 1, 1))) / 255]
    above.set_yscale("log")
    ends = {}
    for (name, values), colour in zip(curves.items(), colours, strict=False):
        values = np.where(values > 0, values, np.nan)
        smooth = _smoothed(values)
        marker = "o" if len(steps) < FEWEST_TO_JOIN else ""
        above.plot(steps, values, color=colour, alpha=0.22, linewidth=0.8)
        above.plot(steps, smooth, color=colour, linewidth=2.2 if name == "loss" else 1.5, marker=marker)
        ends[name] = (np.log10(smooth[np.isfinite(smooth)][-1]), colour)
    above.set_ylim(bottom=max(above.get_ylim()[0], DEPTH * np.nanmin(curves["loss"])))
    _label_ends(above, ends)
    above.set_title("loss and its weighted terms", loc="left", color=INK, fontsize=11)
    below.plot(steps, speed, color=INK, linewidth=1.2, marker=marker)
    below.set_ylim(0, np.nanmax(np.append(speed, 0)) * 1.15 or 1)
    below.set_title("images per second", loc="left", color=INK, fontsize=11)
    below.set_xlabel("step", color=INK)
    below.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value == round(value) else "")
    for axes in (above, below):
        quieten(axes)
    save_chart(path, figure)


def save_connectivity(path: str | Path, connectivity: Any) -> None:
    """Write the connectivity prior as a matrix; rows and columns carry their keypoints' colours.

    Args:
        path: the PNG file to write.
        connectivity: (N, N), symmetric.

    Raises:
        ValueError: it is not square.
        ImportError: matplotlib is not installed.
    """
    matrix = as_array(connectivity).astype(float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise ValueError(f"save_connectivity: connectivity must have shape (N, N), got {matrix.shape}")
    count = len(matrix)
    figure = new_figure(6, 5.2)
    axes = figure.subplots()
    from matplotlib.colors import LinearSegmentedColormap

    ramp = LinearSegmentedColormap.from_list("links", ["#f5f6f8", "#9db8d9", "#2f5f9e", "#14294d"])
    drawn = axes.imshow(matrix, cmap=ramp, vmin=0)
    colours = np.array(palette(count)) / 255
    for x, y in ((np.full(count, -0.95), np.arange(count)), (np.arange(count), np.full(count, -0.95))):
        axes.scatter(x, y, s=2400 / max(count, 12) ** 1.4, c=colours, clip_on=False)
    axes.set_xticks(range(count), labels=[str(i) for i in range(count)])
    axes.set_yticks(range(count), labels=[str(i) for i in range(count)])
    axes.tick_params(length=0, labelsize=8, colors=INK, pad=2)
    axes.set_title("weights of the links between keypoints", loc="left", color=INK, fontsize=11, pad=14)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, shrink=0.8)
    bar.outline.set_visible(False)
    bar.set_label("link weight", color=INK)
    bar.ax.tick_params(length=0, labelsize=9, colors=INK)
    save_chart(path, figure)


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches; an ImportError that names the extra where matplotlib is missing."""
    with needing("charts need", "viz"):
        _import_matplotlib()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _import_matplotlib() -> None:
    """Import matplotlib whatever backend the environment names: charts go to files, and a notebook's is not everywhere.

    Where the backend is here, it is chosen as ever, for the charts of the user's own.
    """
    if "matplotlib" in sys.modules:
        return
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def save_chart(path: str | Path, figure: Figure) -> None:
    """Write a figure as a PNG that appears whole or not at all; missing folders on the way are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Centred running median; the window shrinks towards the ends, so that the curve keeps its length."""
    half = len(values) // SMOOTHED_OVER // 2 + 1
    if len(values) < FEWEST_TO_SMOOTH:
        return values
    padded = np.pad(values, half, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    empty = np.isnan(windows).all(axis=1)
    return np.where(empty, np.nan, np.nanmedian(np.where(empty[:, None], 0, windows), axis=1))


def _label_ends(axes: Axes, ends: dict[str, tuple[float, Any]]) -> None:
    """Name each curve at its right end, pushed apart where they would overlap."""
    low, high = np.log10(axes.get_ylim())
    floor = -np.inf
    for name, (height, colour) in sorted(ends.items(), key=lambda item: item[1][0]):
        floor = max((height - low) / (high - low), floor + LABEL_GAP, 0.0)
        style: dict[str, Any] = {"color": READABLE * np.array(colour), "va": "center", "fontsize": 10}
        axes.text(1.015, floor, name, transform=axes.transAxes, **style)


def quieten(axes: Axes) -> None:
    """Leave of frame, grid and ticks what reading the numbers needs."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(PALE)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, colors=INK, labelsize=9)
    axes.margins(x=0.01)
