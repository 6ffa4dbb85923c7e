"""Pictures of the memory: what its vectors stand for, and how much they are used."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast.visualization._charts import INK, new_figure, quieten, save_chart
from ppl_fast.visualization._draw import as_array, pose_arrays
from ppl_fast.visualization._priors import extent_of, panel
from ppl_fast.visualization._sheet import captioned, save_png, sheet, with_legend

ACROSS = 16  # vectors in a row of a page
ROWS = 12  # of vectors on a page
MOST = 32  # vectors shown of a bank
FRAMED, FRAME = 0.002, 1.2  # pages leave out this quantile of coordinates, and show this many times the range between
SEEN = 0.15  # a page magnifies differences until the largest bank's typical one is this, in half image sides
GAINS = (1, 2, 3, 5, 10, 20, 50, 100)
BAR, DEAD, LIMIT = "#2f5f9e", "#b5482f", "#9aa0aa"


def save_prototypes(
    path: str | Path,
    prototypes: Any,
    links: Any,
    weights: Any,
    *,
    banks: int = 6,
    vectors: int = 12,
    cell: int = 104,
    legend: bool = False,
) -> None:
    """Write what single memory vectors stand for: a row a bank, a column a vector, the bank's mean pose in grey.

    Args:
        path: the PNG file to write.
        prototypes: (m, k, N, 2), xy in [-1, 1], as `PPL.prototype_poses` gives them.
        links: (E, 2) keypoint numbers.
        weights: (E,), opacity.
        banks: show this many at most, those whose poses differ most.
        vectors: show this many of a bank at most.
        cell: side of a picture in pixels.
        legend: add a strip beneath that tells the colours, and what is shown.

    Raises:
        ValueError: shapes that do not fit together or keypoints that are not finite.
    """
    points, ends, heavy = _prototype_arrays("save_prototypes", prototypes, links, weights)
    shown = np.argsort(-points.std(axis=1).mean(axis=(1, 2)), kind="stable")[:banks]
    extent = extent_of(points[shown, :vectors])
    rows = [
        [
            panel(cell, pose, ends, heavy, ghost=points[bank].mean(0), extent=extent, size=1.2)
            for pose in points[bank, :vectors]
        ]
        for bank in shown
    ]
    page = sheet(rows, row_labels=[f"bank {bank + 1}" for bank in shown])
    text = "What single vectors of the memory stand for: one vector of a bank, all other banks at their means; in grey "
    text += f"the bank's mean. The {len(shown)} banks that differ most, the most different first."
    save_png(path, with_legend(page, points.shape[2], text) if legend else page)


def save_prototype_pages(
    folder: str | Path,
    prototypes: Any,
    links: Any,
    weights: Any,
    shares: Any = None,
    *,
    cell: int = 108,
    legend: bool = False,
) -> list[Path]:
    """Write what every bank's vectors stand for, varied one at a time, to memory_1.png, memory_2.png, ...

    A row a bank, more rows where it has over 16 vectors, the bank's mean pose in grey. Of over 32 vectors the 32 most
    used are shown. All differences from the mean pose are magnified alike, by the factor that each page names.

    Args:
        folder: where the files go.
        prototypes: (m, k, N, 2), xy in [-1, 1], as `PPL.prototype_poses` gives them.
        links: (E, 2) keypoint numbers.
        weights: (E,), opacity.
        shares: (m, k), how often each vector of a bank is chosen; written beneath its pose as a percentage.
        cell: side of a picture in pixels.
        legend: add a strip beneath that tells the colours.

    Returns:
        The files written.

    Raises:
        ValueError: shapes that do not fit together or keypoints that are not finite.
    """
    points, ends, heavy = _prototype_arrays("save_prototype_pages", prototypes, links, weights)
    used = np.ones(points.shape[:2]) if shares is None else as_array(shares).astype(float)
    if used.shape != points.shape[:2]:
        raise ValueError(f"save_prototype_pages: shares must have shape {points.shape[:2]}, got {used.shape}")
    used = used / np.maximum(used.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    means = points.mean(axis=1, keepdims=True)
    gain = _gain(points - means)
    points = means + gain * (points - means)
    banks, vectors = used.shape
    shown = np.sort(np.argsort(-used, axis=1, kind="stable")[:, :MOST], axis=1)
    low, high = np.quantile(points.reshape(-1, 2), (FRAMED, 1 - FRAMED), axis=0)
    style = {"centre": (low + high) / 2, "extent": max(FRAME * float((high - low).max()) / 2, 0.1), "size": 1.3}
    rows_each = math.ceil(shown.shape[1] / ACROSS)
    pages = np.array_split(np.arange(banks), math.ceil(banks * rows_each / ROWS))
    text = "one vector at a time, all other banks at their means; grey: the mean"
    text += f"; differences magnified {gain} times" if gain > 1 else ""
    text += "; beneath: how often a vector is chosen" if shares is not None else ""
    if shown.shape[1] < vectors:
        text += f"; the {MOST} most used of {vectors} vectors a bank"
    written = []
    for number, page in enumerate(pages, start=1):
        rows, labels = [], []
        for bank in page:
            cells = [
                captioned(
                    panel(cell, points[bank, k], ends, heavy, ghost=means[bank, 0], **style),
                    f"{used[bank, k]:.1%}" if shares is not None else str(k + 1),
                )
                for k in shown[bank]
            ]
            rows += [cells[i : i + ACROSS] for i in range(0, len(cells), ACROSS)]
            labels += [f"bank {bank + 1}"] + [""] * (rows_each - 1)
        written.append(Path(folder) / f"memory_{number}.png")
        sheets = sheet(rows, row_labels=labels)
        whole = with_legend(sheets, points.shape[2], f"{text[0].upper()}{text[1:]}.") if legend else None
        save_png(written[-1], whole or captioned(sheets, text))
    return written


def save_usage(path: str | Path, perplexity: Any, dead: Any, vectors: int) -> None:
    """Write how much of the memory is in use: perplexity and number of dead vectors, bank by bank.

    Args:
        path: the PNG file to write.
        perplexity: (m,), 1 to `vectors`, as `PPL.usage` gives it.
        dead: (m,), likewise.
        vectors: in a bank.

    Raises:
        ValueError: other shapes.
        ImportError: matplotlib is not installed.
    """
    spread, unused = as_array(perplexity).astype(float), as_array(dead)
    if spread.ndim != 1 or spread.shape != unused.shape or not len(spread):
        raise ValueError(f"save_usage: perplexity and dead must have shape (m,), got {spread.shape} and {unused.shape}")
    figure = new_figure(max(5.0, 1.5 + 0.2 * len(spread)), 4.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    banks = np.arange(1, len(spread) + 1)
    above.bar(banks, spread, color=BAR, width=0.75)
    above.axhline(vectors, color=LIMIT, linewidth=1.2)
    above.set_ylim(0, vectors * 1.12)
    above.set_title(f"perplexity of use, at most the {vectors} vectors of a bank", loc="left", color=INK, fontsize=11)
    below.bar(banks, unused, color=DEAD, width=0.75)
    below.set_ylim(0, max(float(unused.max()) * 1.15, 1))
    below.set_title(f"dead vectors: {int(unused.sum())} of {vectors * len(banks)}", loc="left", color=INK, fontsize=11)
    below.yaxis.get_major_locator().set_params(integer=True)
    below.xaxis.get_major_locator().set_params(integer=True)
    below.set_xlabel("bank", color=INK)
    for axes in (above, below):
        quieten(axes)
    save_chart(path, figure)


def _prototype_arrays(caller: str, prototypes: Any, links: Any, weights: Any) -> Sequence[np.ndarray]:
    points, ends, heavy = pose_arrays(caller, prototypes, links, weights)
    if points.ndim != 4 or not points.shape[0] * points.shape[1]:
        raise ValueError(f"{caller}: prototypes must have shape (m, k, N, 2), none 0, got {points.shape}")
    return points, ends, heavy


def _gain(differences: np.ndarray) -> int:
    """The factor that brings the typical difference in the most varied bank up to what the eye sees."""
    typical = float(np.sqrt((differences**2).sum(-1).mean(axis=(1, 2))).max())
    return max((gain for gain in GAINS if gain * typical <= SEEN), default=1)
