"""What a run learned, from the model and the files of its directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast._files import readable
from ppl_fast.models import KeypointModel
from ppl_fast.models.hub import title
from ppl_fast.page.numbers import finite, rounded, significant
from ppl_fast.training.logging import read_records
from ppl_fast.visualization import palette
from ppl_fast.visualization._draw import as_array, drawn, opacities

RECORDS = 400  # of the training log at most


def described(model: KeypointModel, run: Path) -> dict[str, Any]:
    """Name and options of the model, and of its keypoints the number, the colours and the links by weight."""
    links, weights = as_array(model.links), as_array(model.link_weights()).astype(float)
    count = model.settings.num_keypoints
    strengths = opacities(weights, count)
    records = read_records(run / "log.jsonl")
    return {
        "name": readable(title(run.resolve())),
        "architecture": model.architecture,
        "step": records[-1]["step"] if records else None,
        "imageSize": model.settings.image_size,
        "options": {name: readable(str(value)) for name, value in model.config.items()},
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in palette(count)],
        "links": links.tolist(),
        "weights": significant(weights, 4),
        "opacities": rounded(strengths, 4),
        "linksShown": int(drawn(strengths).sum()),
    }


def priors(model: KeypointModel, run: Path, step: int | None) -> dict[str, Any] | None:
    """The prior as the run kept it over training, the model's own at the end; None for a model without one.

    Returns:
        {"steps": (T,), None for that of a model whose run is not at hand, "points": (T, N, 2), xy in [-1, 1],
        "opacities": (T, E), of the links in order}.
    """
    prior = model.prior()
    if prior is None:
        return None
    pairs = as_array(model.links)
    kept = [
        (record["step"], np.asarray(record["keypoints"], float), np.asarray(record["connectivity"], float))
        for record in read_records(run / "prior.jsonl")
        if "keypoints" in record and "connectivity" in record and (step is None or record["step"] < step)
    ]
    shape = as_array(prior.keypoints).shape
    kept = [(at, *arrays) for at, *arrays in kept if [a.shape for a in arrays] == [shape, (shape[0], shape[0])]]
    last = (step, as_array(prior.keypoints).astype(float), as_array(prior.connectivity).astype(float))
    steps, points, matrices = zip(*kept, last, strict=True)
    strengths = [opacities(matrix[pairs[:, 0], pairs[:, 1]], shape[0]) for matrix in matrices]
    return {
        "steps": list(steps),
        "points": rounded(np.stack(points), 4),
        "opacities": rounded(np.stack(strengths), 3),
    }


def curves(run: Path) -> dict[str, Any] | None:
    """The loss and its weighted terms over training, thinned evenly; None where there is no log.

    Returns:
        {"steps": (R,), "terms": {name: (R,)}}, None where a record lacks a term.
    """
    records = [record for record in read_records(run / "log.jsonl") if "loss" in record]
    if not records:
        return None
    chosen = np.unique(np.linspace(0, len(records) - 1, min(len(records), RECORDS)).round().astype(int))
    records = [records[i] for i in chosen]
    terms = {"loss": [record["loss"] for record in records]}
    for name in dict.fromkeys(name for record in records for name in record.get("losses", {})):
        terms[name] = [record.get("losses", {}).get(name, float("nan")) for record in records]
    return {
        "steps": [record["step"] for record in records],
        "terms": {name: significant_or_none(values) for name, values in terms.items()},
    }


def significant_or_none(values: list[float]) -> list[float | None]:
    """Numbers at four significant digits; None for what is not finite."""
    rounded_values: list[float | None] = finite(significant(values, 4))
    return rounded_values
