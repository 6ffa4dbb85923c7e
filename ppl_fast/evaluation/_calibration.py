"""What a model's evidence is worth: an expected error and a likelihood of each keypoint, from labelled frames.

Keypoints have no labels of their own. Where one belongs is predicted from the frame's labelled joints, by a ridge
regression that was fitted on other frames, whole ones; its error is the distance from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_fast._extras import needing
from ppl_fast.evaluation._labelled import Split, labelled_split
from ppl_fast.evaluation._occlusion import occlude
from ppl_fast.evaluation._ridge import fit_ridge
from ppl_fast.evaluation.folds import fold_numbers
from ppl_fast.inference.confidence import WITHIN, Calibration, features, gather
from ppl_fast.inference.estimation import read
from ppl_fast.inference.masks import PASSES
from ppl_fast.inference.posing import device_of
from ppl_fast.inference.sources import Images

if TYPE_CHECKING:
    from ppl_fast.data import Labels
    from ppl_fast.models import KeypointModel

FEWEST = 20  # labelled frames
FOLDS = 5
HIDDEN = ("blocks", 0.5)  # so that errors of all sizes are among those fitted to
TINY = 1e-3  # is added to errors before their logarithm is taken, as a fraction of the side
KNOTS = 51

# By what is hidden: evidence (n, N) by name, and errors (n, N).
Judged = dict[str, tuple[dict[str, np.ndarray], np.ndarray]]


def calibrate(
    model: KeypointModel,
    dataset: Any,
    labels: Labels,
    *,
    batch_size: int = 32,
    max_missing_share: float = 0.5,
    progress: bool = True,
) -> Calibration:
    """Fit what leads from a model's evidence to expected errors and likelihoods.

    Args:
        model: a trained model, on the device that is to compute.
        dataset: images, as an `ImageFolder` has them.
        labels: of at least 20 of them.
        batch_size: images that go through the model at once.
        max_missing_share: of the labels that may name no image.
        progress: show a bar where there is a terminal.

    Raises:
        ValueError: too few labelled frames, or labels that do not fit the images.
        ImportError: scipy is not installed.
    """
    split, _ = labelled_split(dataset, labels, "calibrate", max_missing_share)
    if len(split) < FEWEST:
        raise ValueError(f"calibrate: labels must be of at least {FEWEST} images, got {len(split)}")
    clips = split.clips(dataset)
    judged = judge(model, split, clips, batch_size=batch_size, progress=progress)
    half = fold_numbers(len(split), 0, 2, clips)
    halves = np.flatnonzero(half == 0), np.flatnonzero(half == 1)
    checks = [measure(fit(part(judged, one)), part(judged, other)) for one, other in (halves, halves[::-1])]
    held_out = {
        kind: {name: float(np.mean([check[kind][name] for check in checks])) for name in checks[0][kind]}
        for kind in judged
    }
    return fit(judged, held_out)


def judge(
    model: KeypointModel, split: Split, clips: Sequence[str] = (), *, batch_size: int = 32, progress: bool = False
) -> Judged:
    """Evidence and errors on labelled frames: whole; half hidden and told so; half hidden and not told."""
    found: dict[str, list[tuple[np.ndarray, dict[str, np.ndarray]]]] = {"whole": [], "told": [], "hidden": []}
    device, first, passes = device_of(model), 0, PASSES if model.iterative else 1
    for _, batch in read(Images(split.images, name="calibration"), batch_size, progress):
        hidden, visible = occlude(batch.to(device), *HIDDEN, first=first)
        for kind, given in (
            ("whole", (batch.to(device),)),
            ("told", (hidden, passes, visible)),
            ("hidden", (hidden,)),
        ):
            keypoints, evidence = gather(model, *given)
            found[kind].append((keypoints.detach().cpu().double().numpy(), evidence))
        first += len(batch)
    points = {kind: np.concatenate([keypoints for keypoints, _ in parts]) for kind, parts in found.items()}
    belongs = _targets(points["whole"], split.joints, split.visible, clips)
    return {
        kind: (
            {name: np.concatenate([evidence[name] for _, evidence in parts]) for name in parts[0][1]},
            np.linalg.norm((points[kind] + 1) / 2 - belongs, axis=2),
        )
        for kind, parts in found.items()
    }


def fit(judged: Judged, held_out: dict[str, Any] | None = None) -> Calibration:
    """The calibration that evidence and errors lead to."""
    with needing("calibration needs", "data"):
        from scipy.optimize import isotonic_regression, nnls
    whole = judged["whole"][0]
    names = [*whole]
    usual = np.stack([whole[name].mean(axis=0) for name in names])
    everything = {name: np.concatenate([evidence[name] for evidence, _ in judged.values()]) for name in names}
    scale = np.stack([everything[name].std(axis=0) for name in names])
    scale = np.where(scale > 0, scale, 1)
    x = features(everything, names, usual, scale)
    errors = np.concatenate([each for _, each in judged.values()])
    logs = np.log(errors + TINY)
    weights, _ = nnls((x - x.mean(axis=0)).reshape(-1, x.shape[2]), (logs - logs.mean(axis=0)).ravel())
    offsets = (logs - x @ weights).mean(axis=0)
    score = (x @ weights + offsets).ravel()
    order = score.argsort(kind="stable")
    at = np.linspace(0, len(order) - 1, KNOTS).round().astype(int)
    ranked = errors.ravel()[order]
    return Calibration(
        names=names,
        usual=usual,
        scale=scale,
        weights=weights,
        offsets=offsets,
        scores=score[order][at],
        errors=isotonic_regression(ranked).x[at],
        likelihoods=isotonic_regression((ranked < WITHIN).astype(float), increasing=False).x[at],
        frames=len(judged["whole"][1]),
        held_out=held_out or {},
    )


def measure(calibration: Calibration, judged: Judged) -> dict[str, dict[str, float]]:
    """By what is hidden: errors, what was expected, and the errors of the surer half of keypoints and of the rest."""
    found = {}
    for kind, (evidence, errors) in judged.items():
        likelihood, expected = calibration.judge(evidence)
        sure, rest = surer_half(-calibration.score(evidence), errors)
        found[kind] = {"error": float(errors.mean()), "expected": float(expected.mean()), "sure": sure, "rest": rest}
        found[kind] |= {"within": float((errors < WITHIN).mean()), "likelihood": float(likelihood.mean())}
    return found


def surer_half(sureness: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Mean errors of the keypoints, (n, N), whose sureness is the larger, and of the others."""
    ranked = errors.ravel()[(-sureness).ravel().argsort(kind="stable")]
    half = len(ranked) // 2
    return float(ranked[:half].mean()), float(ranked[half:].mean())


def part(judged: Judged, rows: np.ndarray) -> Judged:
    """Some of the frames."""
    return {
        kind: ({name: v[rows] for name, v in given.items()}, errors[rows]) for kind, (given, errors) in judged.items()
    }


def _targets(keypoints: np.ndarray, joints: np.ndarray, visible: np.ndarray, clips: Sequence[str]) -> np.ndarray:
    """Where each keypoint belongs, (n, N, 2) in [0, 1], by the frame's joints and a map fitted on other frames."""
    shown = visible[..., None]
    mean = np.where(shown, joints, 0).sum(axis=0) / np.maximum(shown.sum(axis=0), 1)
    filled = 2 * np.where(shown, joints, mean) - 1
    folds = fold_numbers(len(joints), 0, FOLDS, clips)
    found = np.empty_like(keypoints)
    for fold in range(FOLDS):
        held = folds == fold
        found[held] = fit_ridge(filled[~held], (keypoints[~held] + 1) / 2)(filled[held])
    return found
