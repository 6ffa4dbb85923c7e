"""Estimation under occlusion: how much of what hiding costs do the rounds of iterative inference bring back?

Zero rounds are the plain estimate on the occluded image; each round fills in what is hidden and estimates anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ppl_fast._options import integer, plain
from ppl_fast.evaluation._error import error_text, error_unit, nearer_sides, regression_error
from ppl_fast.evaluation._pck import pck
from ppl_fast.evaluation._regression import RegressionMap
from ppl_fast.evaluation._score import labelled
from ppl_fast.inference.estimation import read
from ppl_fast.inference.posing import device_of
from ppl_fast.inference.sources import Images
from ppl_fast.models import KeypointModel

# (kind, share of the image area): 24 x 24 of 64 x 64 pixels is a share of .14.
MASKS = (("centre", 0.14), ("random", 0.14), ("blocks", 0.5), ("blocks", 0.8))


def visible_pixels(
    kind: str, share: float, size: int, rng: np.random.Generator, block: int | None = None
) -> np.ndarray:
    """Which pixels of an image stay visible.

    Args:
        kind: `centre` or `random`, one square there or at a random place; `blocks`, that share of the blocks of a
            regular grid.
        share: of the image area that is hidden, in (0, 1).
        size: S, the side of the image in pixels.
        rng: draws the place or the blocks.
        block: side in pixels, default size / 8.

    Returns:
        (S, S) bool, False where the image is hidden.

    Raises:
        ValueError: an unknown kind or a share out of range.
    """
    if not 0 < share < 1:
        raise ValueError(f"occlusion: share must lie between 0 and 1, got {share}")
    visible = np.ones((size, size), bool)
    if kind == "blocks":
        side = block or max(size // 8, 1)
        cells = -(-size // side)
        hidden = np.zeros(cells * cells, bool)
        hidden[rng.permutation(cells * cells)[: round(share * cells * cells)]] = True
        return ~hidden.reshape(cells, cells).repeat(side, 0).repeat(side, 1)[:size, :size]
    side = round(size * math.sqrt(share))
    if kind == "centre":
        top = left = (size - side) // 2
    elif kind == "random":
        top, left = rng.integers(0, size - side + 1, 2)
    else:
        raise ValueError(f"occlusion: kind must be 'centre', 'random' or 'blocks', got {kind!r}")
    visible[top : top + side, left : left + side] = False
    return visible


def occlude(
    images: torch.Tensor, kind: str, share: float, *, seed: int = 0, first: int = 0, block: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide part of each image.

    Args:
        images: (B, 3, S, S) in [-1, 1].
        kind: as for `visible_pixels`.
        share: as for `visible_pixels`.
        seed: image i's mask depends on the seed and i alone, whatever the batches.
        first: number of the first image in its set.
        block: as for `visible_pixels`.

    Returns:
        The occluded images, hidden pixels 0, and visible, (B, 1, S, S) bool.

    Raises:
        ValueError: an unknown kind or a share out of range.
    """
    size = images.shape[-1]
    masks = [
        visible_pixels(kind, share, size, np.random.default_rng([seed, first + i]), block) for i in range(len(images))
    ]
    visible = torch.from_numpy(np.stack(masks))[:, None].to(images.device)
    return images * visible, visible


def occlusion(
    model: KeypointModel,
    images: Any,
    joints: Any,
    regression_map: RegressionMap,
    visible: Any = None,
    *,
    masks: Sequence[tuple[str, float]] = MASKS,
    rounds: int = 4,
    protocol: Mapping[str, Any] | None = None,
    penalised: RegressionMap | None = None,
    threshold: float = 0.05,
    block: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = True,
) -> dict[str, Any]:
    """Regression error on partly hidden images after 0 to `rounds` rounds of iterative inference.

    Args:
        model: a `KeypointModel`, or what offers the same; of one that is not `iterative` there is only the error after
            0 rounds, the plain estimate on the occluded image.
        images: (n, 3, S, S) tensor in [-1, 1] or a map-style dataset of (3, S, S).
        joints: (n, J, 2) labelled, xy in [0, 1].
        regression_map: from `fit_regression` on clean training images.
        visible: (n, J) bool, the joints that count, default all.
        masks: (kind, share) as for `visible_pixels`.
        rounds: of iterative inference.
        protocol: options of `regression` that the error is measured by.
        penalised: from `fit_ridge` on the same images. Where given, each row also has "ridge", the errors by this map,
            which extrapolates less where keypoints leave their places, and "pck", the share of joints that it puts
            within `threshold`.
        threshold: of PCK, as a fraction of the image size.
        block: as for `visible_pixels`.
        seed: of the masks, as for `occlude`.
        batch_size: images that go through the model at once.
        progress: show a bar where there is a terminal.

    Returns:
        {"protocol", "unit", "clean": error of the plain estimate on the clean images, "clean_rounds": the error there
        after 0, 1, ... rounds, for which the whole image is imagined anew, "rows": [{"mask", "share", "rounds": the
        error after 0, 1, ... rounds, "recovered": the share of what hiding added that is gone after the last round}]}.
        `recovered` is None where hiding added nothing or the model cannot iterate. The pixels that are hidden are told
        to the model.

    Raises:
        ValueError: differing counts, wrong shapes, masks out of range or no visible joint.
    """
    targets, shown = labelled(joints, visible, "joints", "occlusion")
    if len(images) != len(targets):
        raise ValueError(f"occlusion: images and joints must have equal length, got {len(images)} and {len(targets)}")
    masks, rounds, threshold = [(kind, plain(share)) for kind, share in masks], plain(rounds), plain(threshold)
    check_masks(masks, rounds)
    batch_size = integer("occlusion", "batch_size", batch_size, low=1)
    measured = {key: value for key, value in (protocol or {}).items() if key != "intercept"}
    passes = 1 + rounds if model.iterative else 1

    clean: list[list[np.ndarray]] = [[] for _ in range(passes)]
    found: list[list[list[np.ndarray]]] = [[[] for _ in range(passes)] for _ in masks]
    device, first = device_of(model), 0
    for _, batch in read(Images(images, name="occluded poses"), batch_size, progress):
        batch = batch.to(device)
        _keep(clean, model.estimate_rounds(batch, passes))
        for (kind, share), kept in zip(masks, found, strict=True):
            hidden, seen = occlude(batch, kind, share, seed=seed, first=first, block=block)
            _keep(kept, model.estimate_rounds(hidden, passes, visible=seen))
        first += len(batch)

    def errors(kept: list[list[np.ndarray]], fitted: RegressionMap) -> list[float]:
        return [regression_error(fitted(np.concatenate(parts)), targets, shown, **measured)[0] for parts in kept]

    def near(kept: list[list[np.ndarray]], fitted: RegressionMap) -> list[float]:
        swap, norm = measured.get("swap"), measured.get("norm", "l2")
        predicted = [fitted(np.concatenate(parts)) for parts in kept]
        sides = [(each, *nearer_sides(each, targets, shown, swap, norm)) for each in predicted]
        return [pck(each, where, threshold, seen).value for each, where, seen in sides]

    base = errors(clean, regression_map)
    result: dict[str, Any] = {"protocol": _protocol(len(targets), measured, model.iterative)}
    result |= {"unit": error_unit(measured.get("summed_at")), "clean": base[0], "clean_rounds": base}
    result["rows"] = [
        _row(kind, share, base[0], errors(kept, regression_map))
        for (kind, share), kept in zip(masks, found, strict=True)
    ]
    if penalised is not None:
        result |= {"clean_ridge": errors(clean, penalised), "clean_pck": near(clean, penalised)}
        result["threshold"] = threshold
        for row, kept in zip(result["rows"], found, strict=True):
            row |= {"ridge": errors(kept, penalised), "pck": near(kept, penalised)}
    return result


def _keep(kept: list[list[np.ndarray]], rounds: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for parts, (keypoints, _) in zip(kept, rounds, strict=True):
        parts.append(keypoints.detach().cpu().double().numpy())


def check_masks(masks: Sequence[tuple[str, float]], rounds: int) -> None:
    """Raise ValueError unless `occlusion` can hide these and go that many rounds."""
    if rounds < 0:
        raise ValueError(f"occlusion: rounds must not be negative, got {rounds}")
    for kind, share in masks:
        visible_pixels(kind, share, 8, np.random.default_rng(0))


def _row(kind: str, share: float, clean: float, errors: list[float]) -> dict[str, Any]:
    added = errors[0] - clean
    recovered = (errors[0] - errors[-1]) / added if added > 0 and len(errors) > 1 else None
    return {"mask": kind, "share": share, "rounds": errors, "recovered": recovered}


def _protocol(images: int, measured: Mapping[str, Any], iterates: bool) -> str:
    error = error_text(images, measured.get("summed_at"), measured.get("norm", "l2"))
    if measured.get("swap"):
        error += ", left and right swapped per image where that fits better"
    rounds = (
        "by rounds of iterative inference, 0 being the plain estimate on the occluded image"
        if iterates
        else "by the plain estimate on the occluded image, 0 rounds: the model has no iterative inference"
    )
    return (
        "occlusion: part of each test image set to 0; joints by the regression fitted on clean training images, "
        f"{error}; {rounds}"
    )
