"""What every protocol shares: a number that carries its protocol, argument checks, and per-joint errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Score:
    """A measured number together with the protocol it was measured by.

    Attributes:
        value: the number; its unit is part of `protocol`.
        protocol: how it was measured, as text to print beside it.
        per_joint: (J,) float64, the same measure joint by joint; NaN for a joint that no counted image shows.
        baseline: the same measure for a trivial answer.
        baseline_name: what that is: the mean pose, chance.
        details: further JSON-able facts about the measurement.
    """

    value: float
    protocol: str
    per_joint: np.ndarray | None = None
    baseline: float | None = None
    baseline_name: str = "mean pose"
    details: dict[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return self.value

    def as_dict(self, names: Sequence[str] | None = None) -> dict[str, Any]:
        """JSON-able form; `per_joint` is keyed by `names` (default: joint numbers), with None for NaN."""
        result: dict[str, Any] = {"value": self.value, "protocol": self.protocol}
        if self.baseline is not None:
            result |= {"baseline": self.baseline, "baseline_name": self.baseline_name}
        if self.per_joint is not None:
            names = names if names is not None else [str(j) for j in range(len(self.per_joint))]
            values = [None if math.isnan(v) else float(v) for v in self.per_joint]
            result["per_joint"] = dict(zip(names, values, strict=True))
        return result | self.details


def point_array(value: Any, name: str, caller: str) -> np.ndarray:
    """A (n, K, 2) float64 array from a tensor or array-like, or a ValueError that names the argument."""
    array = value.detach().cpu().double().numpy() if isinstance(value, torch.Tensor) else np.asarray(value, np.float64)
    if array.ndim != 3 or array.shape[2] != 2:
        raise ValueError(f"{caller}: {name} must have shape (n, K, 2), got {array.shape}")
    if not len(array):
        raise ValueError(f"{caller}: {name} must hold at least one image, got none")
    return array


def detected(value: Any, name: str, caller: str) -> np.ndarray:
    """Detected keypoints (n, N, 2), xy in [-1, 1], checked to be finite and scaled to [0, 1]."""
    array = point_array(value, name, caller)
    bad = int((~np.isfinite(array)).any(axis=(1, 2)).sum())
    if bad:
        raise ValueError(f"{caller}: {name} must be finite, got non-finite keypoints in {bad} of {len(array)} images")
    return (array + 1) / 2


def labelled(joints: Any, visible: Any, name: str, caller: str) -> tuple[np.ndarray, np.ndarray]:
    """Labelled joints (n, J, 2) in [0, 1] and which of them count, (n, J) bool (default: all)."""
    array = point_array(joints, name, caller)
    shown = np.ones(array.shape[:2], bool) if visible is None else np.asarray(visible, bool)
    if shown.shape != array.shape[:2]:
        raise ValueError(f"{caller}: visible must have shape {array.shape[:2]} like {name}, got {shown.shape}")
    if not shown.any():
        raise ValueError(f"{caller}: {name} must have at least one visible joint, got none in {len(array)} images")
    if not np.isfinite(array[shown]).all():
        raise ValueError(f"{caller}: {name} must be finite where visible, got NaN or infinity")
    return array, shown


def same_count(caller: str, **arrays: np.ndarray) -> None:
    """ValueError unless all arrays describe the same number of images."""
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"{caller}: labels and predictions must cover the same images, got {listed}")


def joint_errors(predicted: np.ndarray, joints: np.ndarray, visible: np.ndarray, norm: str = "l2") -> np.ndarray:
    """(n, J) distances between points, NaN where the joint is not visible; `l1` is |dx| + |dy|."""
    difference = predicted - joints
    distance = np.abs(difference).sum(-1) if norm == "l1" else np.hypot(difference[..., 0], difference[..., 1])
    return np.where(visible, distance, np.nan)


def mean_over(errors: np.ndarray, axis: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Mean of the entries that are not NaN; NaN where there is none, without NumPy's warning."""
    counted = ~np.isnan(errors)
    total, count = np.where(counted, errors, 0).sum(axis), counted.sum(axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
