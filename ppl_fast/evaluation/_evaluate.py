"""All protocols on one model and one labelled data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from ppl_fast._options import plain
from ppl_fast.data import Labels
from ppl_fast.evaluation._error import error_text, nearer_sides, regression_error
from ppl_fast.evaluation._labelled import Split, both_splits
from ppl_fast.evaluation._limbs import limb_share
from ppl_fast.evaluation._matching import check_scipy, matching
from ppl_fast.evaluation._occlusion import MASKS, check_masks, occlusion
from ppl_fast.evaluation._pck import pck
from ppl_fast.evaluation._regression import RegressionMap, fit_mean_pose, fit_regression, regression
from ppl_fast.evaluation._ridge import fit_ridge, ridge
from ppl_fast.evaluation._score import Score
from ppl_fast.evaluation._subject import subject_share
from ppl_fast.inference import predict
from ppl_fast.inference.estimation import read
from ppl_fast.inference.poses import Naming
from ppl_fast.inference.posing import device_of
from ppl_fast.inference.sources import Images
from ppl_fast.models import KeypointModel

FEW_SAID = (
    "{} training images are few for {} coefficients a coordinate: least squares (regression) overfits; ridge comes "
    "first, and pck is by ridge"
)
FEW = 10  # training images for each coefficient; with fewer, least squares overfits visibly


def evaluate_model(
    model: KeypointModel,
    train_dataset: Any,
    train_labels: Labels,
    test_dataset: Any = None,
    test_labels: Labels | None = None,
    *,
    protocol: Mapping[str, Any] | None = None,
    iterations: int = 1,
    threshold: float = 0.05,
    masks: Sequence[tuple[str, float]] = MASKS,
    rounds: int = 4,
    occlusion_images: int = 256,
    max_missing_share: float = 0.5,
    joints: Naming | None = None,
    subjects: Any = None,
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure a model by every protocol, with the mean pose beside.

    Args:
        model: a `KeypointModel`, or what offers the same; the limb share is measured where it has links. For one that
            is not `iterative`, `iterations` and `rounds` stay at 1 and 0.
        train_dataset: `ppl_fast.data.ImageFolder`-like, with `paths`, `original_sizes` and `image_size`.
        train_labels: `ppl_fast.data.Labels`, in pixels of the original images, or of larger or smaller ones whose sizes
            they tell. Images without labels and labels without images are left out.
        test_dataset: like `train_dataset`. Without it the last fifth of the labelled training images, by name, is the
            test.
        test_labels: its labels.
        protocol: options of `regression` (swap, summed_at, intercept, norm), such as a data set's
            `LabelledSet.protocol`; fit, regression, mean pose, PCK and occlusion all keep to it, and ridge as far as it
            says how an error is measured.
        iterations: estimation passes behind every keypoint.
        threshold: of PCK, as a fraction of the image size.
        masks: (kind, share) of what `occlusion` hides; none, no measurement.
        rounds: for how many rounds of iterative inference.
        occlusion_images: on at most how many test images, the first.
        max_missing_share: of the labels may name no image; more are an error.
        joints: named joints of the model, as `ppl_fast.naming.load_joints` reads them, to be measured too.
        subjects: `ppl_fast.data.subjects.SubjectMasks` of the test data set, or of the training one where that is
            divided: where the subjects are, for the share of keypoints on them.
        batch_size: images that go through the model at once.
        workers: processes that load images.
        progress: show a bar where there is a terminal.

    Returns:
        JSON-able metrics: "split" (text), "notes" (texts, where labels and images do not fit together), "iterations",
        "images", "leading" ("ridge" where labels are too few for least squares, else "regression"), "regression",
        "ridge", "matching", "pck" (by the leading one), and where measurable "named", "limb_share",
        "subject_share" and "occlusion"; each score is `Score.as_dict` with the protocol in it.

    Raises:
        ValueError: images and labels do not fit together, or what the protocols raise.
        ImportError: scipy is not installed.
    """
    protocol = dict(protocol or {})
    check_masks(masks, rounds)
    check_scipy()
    train, test, split, notes = both_splits(train_dataset, train_labels, test_dataset, test_labels, max_missing_share)
    iterations = plain(iterations) if model.iterative else 1
    found = partial(predict, model, iterations=iterations, batch_size=batch_size, workers=workers, progress=progress)
    train_keypoints = found(train.images, description="training poses")
    test_keypoints = found(test.images, description="test poses")
    fit_options = {key: value for key, value in protocol.items() if key != "summed_at"}
    fitted = fit_regression(train_keypoints, train.joints, train.visible, **fit_options)
    sides = {key: protocol[key] for key in ("swap", "norm") if key in protocol}
    penalised = fit_ridge(train_keypoints, train.joints, train.visible, **sides)
    few = len(train) < FEW * len(fitted.coefficients)
    scores = _scores(train_keypoints, train, test_keypoints, test, (fitted, penalised), threshold, protocol, few)
    if few:
        notes = [*notes, FEW_SAID.format(len(train), len(fitted.coefficients))]
    if joints is not None and set(joints.names) & set(train_labels.names):
        parts, first, device = [], 0, device_of(model)
        for _, batch in read(Images(test.images, workers, "named joints"), batch_size, progress):
            parts.append(joints(batch.to(device), test_keypoints[first : first + len(batch)]))
            first += len(batch)
        scores["named"] = _named(joints, np.concatenate(parts), train_labels.names, test, protocol)
    if train_labels.skeleton and len(model.links):
        links, weights = model.links.cpu().numpy(), model.link_weights().detach().cpu().double().numpy()
        scores["limb_share"] = limb_share(
            test_keypoints, links, weights, test.joints, train_labels.skeleton, test.visible
        )
    if subjects is not None:
        masks_of = torch.cat(test.beside(subjects)).numpy()
        scores["subject_share"] = subject_share(test_keypoints, masks_of)
    metrics: dict[str, Any] = {"split": split} | ({"notes": notes} if notes else {}) | {"iterations": iterations}
    metrics |= {"images": {"train": len(train), "test": len(test)}, "leading": "ridge" if few else "regression"}
    metrics |= {name: score.as_dict(train_labels.names) for name, score in scores.items()}
    if masks:
        some = test.part(slice(occlusion_images))
        metrics["occlusion"] = occlusion(
            model, some.images, some.joints, fitted, some.visible, masks=masks, rounds=rounds, protocol=protocol,
            penalised=penalised, threshold=threshold, batch_size=batch_size, progress=progress,
        )  # fmt: skip
    return metrics


def side_by_side(metrics: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What `evaluate_model` gave for several models, by name, as one JSON-able dict.

    It is the first model's, with its name under "model" and the others by name under "beside".
    """
    (name, first), *others = metrics.items()
    return first | {"model": name, "beside": dict(others)}


def _named(joints: Naming, found: np.ndarray, names: Sequence[str], test: Split, protocol: Mapping[str, Any]) -> Score:
    """The error of named joints (n, J', 2) in [-1, 1], on those that labels of these names have."""
    predicted, shown = np.zeros_like(test.joints), np.zeros_like(test.visible)
    for j, name in enumerate(names):
        if name in joints.names:
            predicted[:, j] = (found[:, joints.names.index(name)] + 1) / 2
            shown[:, j] = test.visible[:, j]
    measured = {key: value for key, value in protocol.items() if key != "intercept"}
    value, per_joint = regression_error(predicted, test.joints, shown, **measured)
    error = error_text(len(test), measured.get("summed_at"), measured.get("norm", "l2"))
    origin = "as ppl-fast name has kept them beside the model, or train --labels, by the labels that were given"
    text = f"named joints, {origin}; {error}"
    return Score(value, text, per_joint)


def _scores(
    train_keypoints: np.ndarray,
    train: Split,
    test_keypoints: np.ndarray,
    test: Split,
    fits: tuple[RegressionMap, RegressionMap],
    threshold: float,
    protocol: Mapping[str, Any],
    few: bool,
) -> dict[str, Score]:
    """The protocols that need keypoints alone, each with the mean pose as baseline; pck by ridge for few labels."""
    swap, norm = protocol.get("swap"), protocol.get("norm", "l2")
    mean = fit_mean_pose(train.joints, train.visible, swap=swap, norm=norm)
    everywhere = np.broadcast_to(mean, test.joints.shape)
    matched = matching(test_keypoints, test.joints, test.visible)

    def correct(predicted: np.ndarray) -> Score:
        joints, shown = nearer_sides(predicted, test.joints, test.visible, swap, norm)
        return pck(predicted, joints, threshold, shown)

    fitted, penalised = fits
    near = correct((penalised if few else fitted)(test_keypoints))
    measured = {key: value for key, value in protocol.items() if key != "intercept"}
    regressed = regression(
        train_keypoints,
        train.joints,
        test_keypoints,
        test.joints,
        train_visible=train.visible,
        test_visible=test.visible,
        fitted=fitted,
        mean=mean,
        **protocol,
    )
    sides = ", left and right swapped per image where that fits better" if swap else ""
    by = "ridge regression" if few else "regression"
    return {
        "regression": regressed,
        "ridge": ridge(
            penalised, len(train), test_keypoints, test.joints, test.visible, baseline=regressed.baseline, **measured
        ),
        "matching": replace(
            matched, baseline=matching(np.nan_to_num(everywhere) * 2 - 1, test.joints, test.visible).value
        ),
        "pck": replace(
            near,
            protocol=f"{near.protocol}; predicted by the {by} fitted on the training images{sides}",
            baseline=correct(everywhere).value,
        ),
    }
