"""Keypoint labels of images: the record that all label files are read to."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_fast._files import replacing
from ppl_fast.data.names import pair

LABEL_FILE = "keypoints.npz"


@dataclass(frozen=True)
class Labels:
    """Labelled joints of n images, J each.

    Attributes:
        files: n paths relative to the image folder, forward slashes.
        keypoints: (n, J, 2) float64, (x, y) in pixels of the original images, integers at pixel centres.
        visible: (n, J) bool, whether the joint is labelled and takes part in evaluation.
        names: J joint names.
        skeleton: bones as pairs of joint numbers.
        sizes: (n, 2) float64, the (W, H) of the images that were labelled, 0 where unknown; None where all are.
    """

    files: list[str]
    keypoints: np.ndarray
    visible: np.ndarray
    names: list[str]
    skeleton: list[tuple[int, int]]
    sizes: np.ndarray | None = None

    def __post_init__(self) -> None:
        n, joints = len(self.files), len(self.names)
        if self.keypoints.shape != (n, joints, 2):
            raise ValueError(f"Labels: keypoints must have shape {(n, joints, 2)}, got {self.keypoints.shape}")
        if self.visible.shape != (n, joints):
            raise ValueError(f"Labels: visible must have shape {(n, joints)}, got {self.visible.shape}")
        if self.sizes is not None and self.sizes.shape != (n, 2):
            raise ValueError(f"Labels: sizes must have shape {(n, 2)}, got {self.sizes.shape}")
        if not all(isinstance(text, str) for text in (*self.files, *self.names)):
            raise ValueError("Labels: files and names must be strings")
        if len(set(self.files)) != n:
            raise ValueError("Labels: files must be distinct, got one of them twice")
        if not np.isfinite(self.keypoints[self.visible]).all():
            raise ValueError("Labels: keypoints must be finite wherever visible, got NaN or infinity")
        if any(not 0 <= joint < joints for bone in self.skeleton for joint in bone):
            raise ValueError(f"Labels: skeleton must name joints 0 to {joints - 1}, got {self.skeleton}")

    def __len__(self) -> int:
        return len(self.files)

    def match(self, paths: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Positions in `paths` that have labels, and their rows here: two int64 arrays of one length.

        Separators, `./`, composed and decomposed letters and encodings do not matter, the case of a name only where it
        would not be unique, and folders that all labels or all paths begin with only where any label fits without.
        """
        rows, images = np.array(pair(self.files, paths), dtype=np.int64).reshape(-1, 2).T
        return images, rows

    def select(self, rows: Sequence[int] | np.ndarray) -> "Labels":
        """The labels of some rows, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        files = [self.files[row] for row in rows]
        sizes = None if self.sizes is None else self.sizes[rows]
        return Labels(files, self.keypoints[rows], self.visible[rows], self.names, self.skeleton, sizes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `keypoints.npz`: plain arrays, read back without pickle."""
        known: dict[str, Any] = {} if self.sizes is None else {"sizes": self.sizes}
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                files=np.array(self.files, dtype=np.str_),
                keypoints=self.keypoints,
                visible=self.visible,
                names=np.array(self.names, dtype=np.str_),
                skeleton=np.array(self.skeleton, dtype=np.int64).reshape(-1, 2),
                **known,
            )
