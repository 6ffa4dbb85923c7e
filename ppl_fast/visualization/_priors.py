"""Pictures of poses without an image: the prior, and as it evolved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ppl_fast.visualization._draw import SUPERSAMPLE, as_array, draw_pose, palette, pose_arrays
from ppl_fast.visualization._labels import labels_of
from ppl_fast.visualization._sheet import CAPTION, GAP, PAPER, TEXT, captioned, save_png, sheet, with_legend

PANEL = (245, 246, 248)
GHOST = (205, 208, 214)
ROOM = 1.2  # half the side of a panel, relative to the keypoint farthest from the centre
WIDEST = 1.12  # but at most this, in normalised coordinates: a little beyond the image's border
SEEN = 0.9  # least share of keypoints within that for an earlier prior to be shown
EARLIER = 6  # earlier priors shown beside the last one


def save_prior(
    path: str | Path, priors: Sequence[tuple[int, Any, Any]], *, cell: int = 200, legend: bool = False
) -> None:
    """Write the prior as it evolved: earlier ones small, the last one large.

    Of many priors, those shown lie denser early on, where learning is fast; those whose keypoints do not lie within
    the image yet are left out.

    Args:
        path: the PNG file to write.
        priors: (step, keypoints (N, 2) xy in [-1, 1], connectivity (N, N) symmetric), in order of steps.
        cell: side of the small pictures in pixels.
        legend: add a strip beneath that tells the colours, and what is shown.

    Raises:
        ValueError: an empty list, other shapes, or keypoints that are not finite.
    """
    if not len(priors):
        raise ValueError("save_prior: priors must hold at least one (step, keypoints, connectivity), got none")
    poses = [(f"step {step:,}", *_prior_arrays("save_prior", keypoints, matrix)) for step, keypoints, matrix in priors]
    paths = np.stack([points for _, points, *_ in poses])
    title, *last = poses[-1]
    large = panel(2 * cell + CAPTION + GAP, *last, extent=extent_of(paths[-1]), size=0.7, numbers=True)
    page = sheet([[captioned(large, title)]])
    within = (np.abs(paths).max(axis=2) <= WIDEST).mean(axis=1) >= SEEN
    earlier = [i for i in range(len(priors) - 1) if within[i]]
    shown = [earlier[i] for i in _denser_early([priors[i][0] for i in earlier], EARLIER)]
    if shown:
        extent = extent_of(paths[shown])
        small = [captioned(panel(cell, *pose, extent=extent), title) for title, *pose in (poses[i] for i in shown)]
        columns = -(-len(small) // 2)
        left = sheet([small[:columns], small[columns:]] if len(small) > 1 else [small])
        right, page = page, Image.new("RGB", (left.width + page.width, page.height), PAPER)
        page.paste(left, (0, 0))
        page.paste(right, (left.width, 0))
    save_png(path, with_legend(page, paths.shape[1], "The pose prior as it was learned.") if legend else page)


def save_keypoint_prior(
    path: str | Path, keypoints: Any, connectivity: Any, *, side: int = 560, legend: bool = False
) -> None:
    """Write one prior large, each keypoint with the number it has in the connectivity matrix.

    Args:
        path: the PNG file to write.
        keypoints: (N, 2), xy in [-1, 1].
        connectivity: (N, N), symmetric.
        side: pixels of the picture.
        legend: add a strip beneath that tells the colours, and what is shown.

    Raises:
        ValueError: other shapes, or keypoints that are not finite.
    """
    points, links, weights = _prior_arrays("save_keypoint_prior", keypoints, connectivity)
    extent = extent_of(points)
    page = sheet([[panel(side, points, links, weights, extent=extent, size=0.7, numbers=True)]])
    save_png(path, with_legend(page, len(points), "The pose prior.") if legend else page)


def _prior_arrays(caller: str, keypoints: Any, connectivity: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    matrix = as_array(connectivity)
    points = as_array(keypoints)
    if points.ndim != 2 or matrix.shape != (len(points), len(points)):
        shapes = f"{points.shape} and {matrix.shape}"
        raise ValueError(f"{caller}: keypoints must have shape (N, 2) and connectivity (N, N), got {shapes}")
    links = np.stack(np.triu_indices(len(points), k=1), axis=1)
    return pose_arrays(caller, points, links, matrix[links[:, 0], links[:, 1]])


def _denser_early(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` positions, first and last among them, about evenly spaced in the root of the step."""
    if len(steps) <= count:
        return list(range(len(steps)))
    roots = np.sqrt(np.asarray(steps, float))
    wanted = np.linspace(roots[0], roots[-1], count)
    return sorted({int(np.abs(roots - root).argmin()) for root in wanted})


def extent_of(points: np.ndarray) -> float:
    """Half the side of panels that show all these points (..., 2)."""
    return min(WIDEST, max(ROOM * float(np.abs(points).max(initial=0)), 0.1))


def panel(
    side: int,
    points: np.ndarray,
    links: np.ndarray,
    weights: np.ndarray,
    *,
    extent: float,
    centre: np.ndarray | float = 0.0,
    size: float = 1.0,
    ghost: np.ndarray | None = None,
    numbers: bool = False,
) -> Image.Image:
    """A pose (N, 2) on a plain square from centre - extent to centre + extent.

    Args:
        side: of the square, in pixels.
        points: (N, 2).
        links: (E, 2) keypoint numbers.
        weights: (E,), opacity.
        extent: half the side, in the points' units.
        centre: of the square.
        size: thickness of lines and dots relative to the picture's.
        ghost: (N, 2), drawn in grey beneath.
        numbers: write each keypoint's beside it.
    """
    pixels = side * SUPERSAMPLE
    picture = Image.new("RGB", (pixels, pixels), PAPER)
    drawing = ImageDraw.Draw(picture, "RGBA")
    drawing.rounded_rectangle([0, 0, pixels - 1, pixels - 1], pixels // 32, PANEL)
    colours = palette(len(points))
    picture = picture.resize((side, side), Image.Resampling.BOX)
    if ghost is not None:
        picture = draw_pose(
            picture, _placed(ghost - centre, extent, side), links, weights, size=size, colours=[GHOST] * len(points)
        )
    labels = labels_of(len(points), None, side) if numbers else None
    style: dict[str, Any] = {"size": size, "colours": colours, "labels": labels, "ink": (TEXT, PANEL)}
    return draw_pose(picture, _placed(points - centre, extent, side), links, weights, **style)


def _placed(points: np.ndarray, extent: float, pixels: int) -> np.ndarray:
    """Points (..., 2) as pixels of a panel of this side."""
    return (points / extent + 1) / 2 * (pixels - 1)
