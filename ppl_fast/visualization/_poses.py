"""Pictures of poses on images: grids, rounds of iterative inference, overlays on originals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ppl_fast._files import OVERLAY
from ppl_fast.visualization._draw import as_array, draw_pose, in_picture, pose_arrays, to_image
from ppl_fast.visualization._labels import labels_of, reach
from ppl_fast.visualization._sheet import save_png, sheet, with_legend

OVERLAID = 0.65  # size of lines and dots on an original
CELL = 192  # pixels that the longer side of a picture in a grid aims at


def save_poses(
    path: str | Path,
    images: Any,
    keypoints: Any,
    links: Any,
    weights: Any,
    *,
    columns: int | None = None,
    cell: int = CELL,
    legend: bool = False,
) -> None:
    """Write a grid of images with their keypoints and links.

    Args:
        path: the PNG file to write.
        images: (B, 3, H, W) in [-1, 1].
        keypoints: (B, N, 2), xy in [-1, 1].
        links: (E, 2) keypoint numbers.
        weights: (E,), opacity.
        columns: default a grid about three to two, without empty places where that is possible.
        cell: pixels that an image's longer side is scaled to, about.
        legend: add a strip beneath that tells the colours, and what is shown.

    Raises:
        ValueError: shapes that do not fit together or keypoints that are not finite.
    """
    points, ends, heavy = pose_arrays("save_poses", keypoints, links, weights)
    _check_batch("save_poses", images, points)
    columns = columns or _columns(len(points))
    cells = [
        _posed(image, pose, ends, heavy, cell, "save_poses")
        for image, pose in zip(as_array(images), points, strict=True)
    ]
    page = sheet([cells[i : i + columns] for i in range(0, len(cells), columns)])
    text = "Images with the keypoints and links found on them."
    save_png(path, with_legend(page, points.shape[1], text) if legend else page)


def save_rounds(
    path: str | Path,
    images: Any,
    rounds: Sequence[tuple[Any, Any]],
    links: Any,
    weights: Any,
    *,
    row_labels: Sequence[str] | None = None,
    cell: int = CELL,
    legend: bool = False,
) -> None:
    """Write iterative inference under occlusion, one image a row, one round a column.

    Columns: the image, its occluded form, the plain estimate on it, the pose after each round on what that round saw,
    and the image as completed by the last reconstruction.

    Args:
        path: the PNG file to write.
        images: (B, 3, H, W) in [-1, 1], not occluded.
        rounds: as `PPL.estimate_rounds` gives them, per estimation pass the keypoints (B, N, 2) and the images seen
            (B, 3, H, W); the first, the plain estimate, saw the occluded images.
        links: (E, 2) keypoint numbers.
        weights: (E,), opacity.
        row_labels: texts left of the rows.
        cell: pixels that an image's longer side is scaled to, about.
        legend: add a strip beneath that tells the colours, and what is shown.

    Raises:
        ValueError: shapes that do not fit together, no round, or keypoints that are not finite.
    """
    if not rounds:
        raise ValueError("save_rounds: rounds must hold at least one (keypoints, images), got none")
    checked = [pose_arrays("save_rounds", points, links, weights) for points, _ in rounds]
    seen = [as_array(batch) for _, batch in rounds]
    for (points, _, _), batch in zip(checked, seen, strict=True):
        _check_batch("save_rounds", images, points)
        _check_batch("save_rounds", batch, points)
    completed = len(rounds) > 1
    rows = []
    for b, original in enumerate(as_array(images)):
        row = [to_image(original, cell, "save_rounds"), to_image(seen[0][b], cell, "save_rounds")]
        row += [
            _posed(batch[b], points[b], ends, heavy, cell, "save_rounds")
            for (points, ends, heavy), batch in zip(checked, seen, strict=True)
        ]
        rows.append(row + [to_image(seen[-1][b], cell, "save_rounds")] * completed)
    after = [f"{r} round{'s' * (r > 1)}" for r in range(1, len(rounds))]
    headings = ["image", "occluded", "plain", *after, *["completed"] * completed]
    page = sheet(rows, headings, row_labels)
    text = "Each round sees the image with its hidden part filled in from the memory's version of the pose so far."
    save_png(path, with_legend(page, checked[0][0].shape[1], text) if legend else page)


def save_overlay(
    path: str | Path,
    image: Image.Image,
    keypoints: Any,
    links: Any,
    weights: Any,
    *,
    names: Sequence[str] | None = None,
    shortest: int = 256,
) -> None:
    """Write an original image with its keypoints, numbered or named, and links, at its own size.

    Args:
        path: the PNG file to write.
        image: any PIL image.
        keypoints: (N, 2), xy in pixels of it, integers at pixel centres.
        links: (E, 2) keypoint numbers.
        weights: (E,), opacity.
        names: of the N keypoints; without them they are numbered.
        shortest: a smaller image is enlarged by a whole factor until its shorter side has this many pixels.

    Raises:
        ValueError: shapes that do not fit together, another number of names, or keypoints that are not finite.
    """
    points, ends, heavy = pose_arrays("save_overlay", keypoints, links, weights)
    if points.ndim != 2:
        raise ValueError(f"save_overlay: keypoints must have shape (N, 2), got {points.shape}")
    factor = max(1, math.ceil(shortest / min(image.size)))
    picture = image.convert("RGB")
    if factor > 1:
        picture = picture.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    labels = labels_of(len(points), names, min(picture.size))
    placed = (points + 0.5) * factor - 0.5
    save_png(path, draw_pose(picture, placed, ends, heavy, size=OVERLAID, labels=labels), OVERLAY)


def draw_overlay(
    image: Image.Image, keypoints: Any, links: Any, weights: Any, *, names: Sequence[str] | None = None
) -> Image.Image:
    """A copy of an RGB image with its keypoints and links as `save_overlay` draws them, at its own size.

    Only the part that they lie in is drawn on: the supersampling that smooths lines costs by the pixel.

    Args:
        image: RGB.
        keypoints: (N, 2), xy in pixels of it, integers at pixel centres; N may be 0.
        links: (E, 2) keypoint numbers.
        weights: (E,), opacity.
        names: of the N keypoints; without them they are numbered, but on images below 120 pixels.

    Raises:
        ValueError: shapes that do not fit together, another number of names, or keypoints that are not finite.
    """
    points, ends, heavy = pose_arrays("draw_overlay", keypoints, links, weights)
    side, image = min(image.size), image.copy()
    if not len(points):
        return image
    labels = labels_of(len(points), names, side)
    margin = reach(labels, side)
    left, top = np.floor(points.min(axis=0) - margin).clip(0).astype(int).tolist()
    right, bottom = np.ceil(points.max(axis=0) + margin).clip(None, image.size).astype(int).tolist()
    if right > left and bottom > top:
        part = image.crop((left, top, right, bottom))
        size = OVERLAID * side / min(part.size)
        image.paste(draw_pose(part, points - (left, top), ends, heavy, size=size, labels=labels), (left, top))
    return image


def _posed(
    image: np.ndarray, points: np.ndarray, links: np.ndarray, weights: np.ndarray, cell: int, caller: str
) -> Image.Image:
    picture = to_image(image, cell, caller)
    labels = labels_of(len(points), None, min(picture.size))
    return draw_pose(picture, in_picture(points, picture.size, image.shape[:0:-1]), links, weights, labels=labels)


def _columns(count: int) -> int:
    """Of a grid about three to two, without empty places where two columns more or less do that."""
    ideal = math.ceil(math.sqrt(1.5 * count))
    return min(range(max(1, ideal - 2), ideal + 3), key=lambda columns: (-count % columns, abs(columns - ideal)))


def _check_batch(caller: str, images: Any, points: np.ndarray) -> None:
    if points.ndim != 3:
        raise ValueError(f"{caller}: keypoints must have shape (B, N, 2), got {points.shape}")
    if not len(points) or len(images) != len(points):
        raise ValueError(
            f"{caller}: images and keypoints must be as many and at least one, got {len(images)} and {len(points)}"
        )
