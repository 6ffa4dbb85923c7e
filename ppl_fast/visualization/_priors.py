"""Pictures of poses without an image: the prior as it evolved, and what the memory's vectors stand for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ._draw import SUPERSAMPLE, as_array, draw_pose, palette, pose_arrays
from ._sheet import CAPTION, GAP, PAPER, captioned, save_png, sheet

PANEL = (245, 246, 248)
GHOST = (205, 208, 214)
ROOM = 1.2  # half the side of a panel, relative to the keypoint farthest from the centre
WIDEST = 1.12  # but at most this, in normalised coordinates: a little beyond the image's border
SETTLED = 0.1  # paths begin at this share of the steps; before, the keypoints are anywhere
EARLIER = 6  # earlier priors shown beside the last one


def save_prior(path: str | Path, priors: Sequence[tuple[int, Any, Any]], *, cell: int = 200) -> None:
    """Write the prior as it evolved: earlier ones small, the last one large, with each keypoint's path to it
    since the first tenth of the steps.

    priors: (step, keypoints (N, 2) xy in [-1, 1], connectivity (N, N) symmetric), in order of steps. Of many,
    those shown lie denser early on, where learning is fast.
    Raises ValueError for an empty list, other shapes, or keypoints that are not finite.
    """
    if not len(priors):
        raise ValueError("save_prior: priors must hold at least one (step, keypoints, connectivity), got none")
    poses = [(f"step {step:,}", *_prior_arrays(keypoints, matrix)) for step, keypoints, matrix in priors]
    paths = np.stack([points for _, points, *_ in poses])
    title, *last = poses[-1]
    settled = paths[[step >= SETTLED * priors[-1][0] for step, *_ in priors]]
    large = _panel(2 * cell + CAPTION + GAP, *last, extent=_extent(paths[-1]), size=0.7, paths=settled)
    page = sheet([[captioned(large, title)]])
    shown = _denser_early([step for step, *_ in priors[:-1]], EARLIER)
    if shown:
        extent = _extent(paths[shown])
        small = [captioned(_panel(cell, *pose, extent=extent), title) for title, *pose in (poses[i] for i in shown)]
        columns = -(-len(small) // 2)
        left = sheet([small[:columns], small[columns:]] if len(small) > 1 else [small])
        right, page = page, Image.new("RGB", (left.width + page.width, page.height), PAPER)
        page.paste(left, (0, 0))
        page.paste(right, (left.width, 0))
    save_png(path, page)


def save_prototypes(
    path: str | Path, prototypes: Any, links: Any, weights: Any, *, banks: int = 6, vectors: int = 12, cell: int = 104
) -> None:
    """Write what single memory vectors stand for: a row a bank, a column a vector, the bank's mean pose in grey.

    prototypes: (m, k, N, 2), xy in [-1, 1], as ``PPL.prototypes`` gives them. links: (E, 2). weights: (E,).
    banks, vectors: show this many at most; of the banks those whose poses differ most.
    Raises ValueError for shapes that do not fit together or keypoints that are not finite.
    """
    points, ends, heavy = pose_arrays("save_prototypes", prototypes, links, weights)
    if points.ndim != 4 or not points.shape[0] * points.shape[1]:
        raise ValueError(f"save_prototypes: prototypes must have shape (m, k, N, 2), none 0, got {points.shape}")
    spread = points.std(axis=1).mean(axis=(1, 2))
    shown = np.argsort(-spread, kind="stable")[:banks]
    style = {"extent": _extent(points[shown, :vectors]), "size": 1.2}
    rows = [
        [_panel(cell, pose, ends, heavy, ghost=points[bank].mean(0), **style) for pose in points[bank, :vectors]]
        for bank in shown
    ]
    save_png(path, sheet(rows, row_labels=[f"bank {bank + 1}" for bank in shown]))


def _prior_arrays(keypoints: Any, connectivity: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    matrix = as_array(connectivity)
    points = as_array(keypoints)
    if points.ndim != 2 or matrix.shape != (len(points), len(points)):
        shapes = f"{points.shape} and {matrix.shape}"
        raise ValueError(f"save_prior: keypoints must have shape (N, 2) and connectivity (N, N), got {shapes}")
    links = np.stack(np.triu_indices(len(points), k=1), axis=1)
    return pose_arrays("save_prior", points, links, matrix[links[:, 0], links[:, 1]])


def _denser_early(steps: Sequence[int], count: int) -> list[int]:
    """At most ``count`` positions, first and last among them, about evenly spaced in the root of the step."""
    if len(steps) <= count:
        return list(range(len(steps)))
    roots = np.sqrt(np.asarray(steps, float))
    wanted = np.linspace(roots[0], roots[-1], count)
    return sorted({int(np.abs(roots - root).argmin()) for root in wanted})


def _extent(points: np.ndarray) -> float:
    """Half the side of panels that show all these points (..., 2)."""
    return min(WIDEST, max(ROOM * float(np.abs(points).max(initial=0)), 0.1))


def _panel(
    side: int,
    points: np.ndarray,
    links: np.ndarray,
    weights: np.ndarray,
    *,
    extent: float,
    size: float = 1.0,
    ghost: np.ndarray | None = None,
    paths: np.ndarray | None = None,
) -> Image.Image:
    """A pose (N, 2) on a plain square from -extent to extent.

    Beneath it, ``ghost`` (N, 2) is drawn in grey and ``paths`` (T, N, 2) as fine lines.
    """

    def place(xy: np.ndarray, pixels: int) -> np.ndarray:
        return (xy / extent + 1) / 2 * (pixels - 1)

    pixels = side * SUPERSAMPLE
    panel = Image.new("RGB", (pixels, pixels), PAPER)
    drawing = ImageDraw.Draw(panel, "RGBA")
    drawing.rounded_rectangle([0, 0, pixels - 1, pixels - 1], pixels // 32, PANEL)
    colours = palette(len(points))
    if paths is not None:
        for keypoint, colour in enumerate(colours):
            drawing.line([tuple(p) for p in place(paths[:, keypoint], pixels)], (*colour, 110), max(pixels // 220, 1))
    panel = panel.resize((side, side), Image.Resampling.BOX)
    if ghost is not None:
        panel = draw_pose(panel, place(ghost, side), links, weights, size=size, colours=[GHOST] * len(points))
    return draw_pose(panel, place(points, side), links, weights, size=size, colours=colours)
