"""How sure a model is of each keypoint: by its own evidence, calibrated where labelled frames were at hand.

The score of a keypoint is a constant of its own, plus weights >= 0 times its evidence, and the mean evidence of the
image's keypoints, each as the distance from what is usual for that keypoint. Two monotone maps lead from the score to
an expected error and to a likelihood; docs/confidence.md says how they are fitted and what they mean.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ppl_fast._documents import read_json
from ppl_fast._files import write_text
from ppl_fast.models.checkpoint import CALIBRATION, digest_of_weights

if TYPE_CHECKING:
    from ppl_fast.models import KeypointModel

    Evidence = dict[str, NDArray[np.float64]]

WITHIN = 0.05  # of the image's side: an error below it is what a likelihood is of
SHIFT = 24  # a view is shifted by a side over this
UNIFORM = 0.8165  # the spread of attention that is the same everywhere
LENGTH = 0.1  # of distances in the uncalibrated likelihood, in units of half the image side
FORMAT = 1


def measure(
    model: KeypointModel, images: Tensor, iterations: int = 1, visible: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Estimate keypoints, and the evidence for each: the model's, and how far two views and two rounds agree.

    Args:
        model: the model.
        images: (B, 3, S, S) in [-1, 1].
        iterations: estimation passes.
        visible: (B, 1, S, S) bool; see `KeypointModel.estimate`.

    Returns:
        Keypoints (B, N, 2), as by `model.estimate`; numbers (B, N) by name, the larger the less sure: that of
        `KeypointModel.evidence`; `view`, how far a keypoint is from where it is found in a shifted copy; and `rounds`,
        from where it was in the round before, 0 in the first; distances are in units of half the image side. And the
        images (B, 3, S, S) that the last round saw.
    """
    rounds = model.estimate_rounds(images, iterations, visible)
    keypoints, seen = rounds[-1]
    found = dict(model.evidence(seen, keypoints))
    size = images.shape[-1]
    step = max(1, size // SHIFT)
    shifted = F.pad(seen, (step, 0, step, 0), mode="replicate")[:, :, :size, :size]
    found["view"] = (model.estimate(shifted) - 2 * step / (size - 1) - keypoints).norm(dim=2)
    found["rounds"] = (keypoints - (rounds[-2][0] if len(rounds) > 1 else keypoints)).norm(dim=2)
    return keypoints, found, seen


def gather(
    model: KeypointModel, images: Tensor, iterations: int = 1, visible: Tensor | None = None
) -> tuple[Tensor, Evidence]:
    """`measure`, with the evidence as float64 arrays."""
    keypoints, found, _ = measure(model, images, iterations, visible)
    return keypoints, arrays(found)


def arrays(found: dict[str, Tensor]) -> Evidence:
    """Evidence as float64 arrays."""
    return {name: value.detach().cpu().double().numpy() for name, value in found.items()}


def uncalibrated(evidence: Evidence) -> NDArray[np.float64]:
    """`agreement` of arrays."""
    score: NDArray[np.float64] = agreement({name: torch.as_tensor(value) for name, value in evidence.items()}).numpy()
    return score


def agreement(evidence: dict[str, Tensor]) -> Tensor:
    """A score (n, N) in [0, 1] without labels; it is no probability, and tells frames apart more than keypoints.

    exp(-(view + recall + rounds) / 0.1), times how much narrower the attention is than one that is the same everywhere.
    """
    distances = [evidence[name] for name in ("view", "recall", "rounds") if name in evidence]
    score = torch.exp(-torch.stack(distances).sum(dim=0) / LENGTH)
    return score * (1 - (evidence["spread"] / UNIFORM).clamp(max=1)) if "spread" in evidence else score


@dataclass(frozen=True, eq=False, kw_only=True)
class Calibration:
    """What leads from evidence to an expected error and a likelihood.

    Attributes:
        names: of the F kinds of evidence.
        usual: (F, N), of each keypoint on whole frames.
        scale: (F, N) > 0, how much it varies.
        weights: (2 F,) >= 0, of a keypoint's evidence, then of the mean over the image's keypoints.
        offsets: (N,), of each keypoint's score.
        scores: (M,) ascending.
        errors: (M,) ascending, the expected error at each score, as a fraction of the image's side.
        likelihoods: (M,) descending, in [0, 1], of an error below `WITHIN`.
        frames: number of labelled frames behind it.
        model: digest of the weights that it is for; "" for any.
        held_out: what it is worth on frames that it was not fitted on, by what was hidden.
    """

    names: list[str]
    usual: NDArray[np.float64]
    scale: NDArray[np.float64]
    weights: NDArray[np.float64]
    offsets: NDArray[np.float64]
    scores: NDArray[np.float64]
    errors: NDArray[np.float64]
    likelihoods: NDArray[np.float64]
    frames: int
    model: str = ""
    held_out: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds, keypoints, knots = len(self.names), len(self.offsets), len(self.scores)
        shapes = {"usual": (kinds, keypoints), "scale": (kinds, keypoints), "weights": (2 * kinds,)}
        shapes |= {"offsets": (keypoints,), "scores": (knots,), "errors": (knots,), "likelihoods": (knots,)}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"{name} must be finite numbers of shape {shape}, got shape {value.shape}")
        if not (self.scale > 0).all() or not (self.weights >= 0).all() or not knots:
            raise ValueError("scale must be positive, weights not negative, and scores not empty")
        rising = (np.diff(self.scores) >= 0).all() and (np.diff(self.errors) >= 0).all() and self.errors[0] >= 0
        if not rising or (np.diff(self.likelihoods) > 0).any():
            raise ValueError("scores and errors must ascend, and likelihoods descend")

    def score(self, evidence: Evidence) -> NDArray[np.float64]:
        """(n, N), the larger the less sure."""
        return features(evidence, self.names, self.usual, self.scale) @ self.weights + self.offsets

    def judge(self, evidence: Evidence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Likelihoods and expected errors, (n, N) each, of evidence as `gather` gives it; errors as fractions."""
        score = self.score(evidence)
        return np.interp(score, self.scores, self.likelihoods), np.interp(score, self.scores, self.errors)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, whole or not at all."""
        values = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in asdict(self).items()}
        write_text(path, json.dumps({"format": FORMAT, "within": WITHIN} | values) + "\n")


def in_pixels(errors: NDArray[np.float64], sizes: Any) -> NDArray[np.float64]:
    """Errors (n, N) in pixels of images whose (W, H) are `sizes` (n, 2): fractions of the root mean square of both."""
    return np.asarray(errors * np.sqrt(np.square(np.asarray(sizes, dtype=np.float64)).mean(axis=1))[:, None])


def load_calibration(directory: str | os.PathLike[str], keypoints: int) -> Calibration | None:
    """The calibration that lies beside a model's weights, or None.

    Args:
        directory: holds `model.safetensors`.
        keypoints: N, of the model.

    Raises:
        ValueError: the file is damaged, or was made for other weights; it is named.
    """
    directory = Path(directory)
    path = directory / CALIBRATION
    if not path.is_file():
        return None
    try:
        data = read_json(path)
        if not isinstance(data, dict) or (data.get("format"), data.get("within")) != (FORMAT, WITHIN):
            raise ValueError("it is of another format")
        arrays = ("usual", "scale", "weights", "offsets", "scores", "errors", "likelihoods")
        found = Calibration(
            **{name: np.array(data[name], dtype=np.float64) for name in arrays},
            names=[str(name) for name in data["names"]],
            frames=int(data["frames"]),
            model=str(data["model"]),
            held_out=dict(data["held_out"]),
        )
        if len(found.offsets) != keypoints:
            raise ValueError(f"it has {len(found.offsets)} keypoints, the model {keypoints}")
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ValueError(f"calibration {path} is damaged: {error}; make it anew by ppl-fast calibrate") from error
    if found.model and found.model != digest_of_weights(directory):
        raise ValueError(
            f"calibration {path} is of other weights than those beside it; make it anew by ppl-fast calibrate, or "
            "remove it"
        )
    return found


def features(
    evidence: Evidence, names: list[str], usual: NDArray[np.float64], scale: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n, N, 2 F): a keypoint's evidence as distance from the usual, then the image's mean of that."""
    missing = [name for name in names if name not in evidence]
    if missing:
        raise ValueError(f"Calibration: evidence must have {', '.join(names)}, got none of the kind {missing[0]}")
    own = np.stack([(evidence[name] - usual[i]) / scale[i] for i, name in enumerate(names)], axis=2)
    return np.concatenate([own, np.broadcast_to(own.mean(axis=1, keepdims=True), own.shape)], axis=2)
