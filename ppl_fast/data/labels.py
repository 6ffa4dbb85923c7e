"""Keypoint labels, for evaluation only: `keypoints.npz` or COCO keypoint JSON."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast._files import replacing
from ppl_fast.data.coco import has_keypoints, is_coco, read_coco, read_json
from ppl_fast.data.names import pair
from ppl_fast.data.npz import members

LABEL_FILE = "keypoints.npz"
ARRAYS = ("files", "keypoints", "visible", "names", "skeleton")


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


def load_labels(root: str | os.PathLike[str]) -> Labels:
    """Labels of a folder of images, or of the label file itself.

    A folder's `keypoints.npz` comes first; else its one JSON file with COCO's `images`, `annotations` and keypoints.
    Of several people in one COCO image the one with the largest area counts, among those with labelled joints; crowds
    never do. Joints with COCO's v = 0, or without numbers, are not visible.

    Raises:
        ValueError: no labels, several COCO files, or a file that does not hold what it should; it is named.
    """
    root = Path(root)
    if root.is_dir():
        if (root / LABEL_FILE).exists():
            return _load_npz(root / LABEL_FILE)
        return _only_coco(root)
    if not root.exists():
        raise ValueError(f"load_labels: {root} is missing; expected a folder or a label file")
    if root.suffix == ".npz":
        return _load_npz(root)
    data = read_json(root)
    if not is_coco(data):
        raise ValueError(f"load_labels: {root} must be a JSON object with COCO's images and annotations")
    return read_coco(root, data, Labels)


def _only_coco(root: Path) -> Labels:
    """Labels of the one JSON file in a folder that holds keypoints; others, broken ones too, may lie beside it."""
    found, broken = [], []
    for path in sorted(path for path in root.iterdir() if path.suffix.lower() == ".json"):
        try:
            data = read_json(path)
        except ValueError as error:
            broken.append(error)
            continue
        if is_coco(data):
            found.append((path, data))
    if len(found) > 1:
        found = [(path, data) for path, data in found if has_keypoints(data)] or found
    if not found and broken:
        raise broken[0]
    if len(found) != 1:
        got = ", ".join(path.name for path, _ in found) or "neither"
        raise ValueError(f"load_labels: expected {LABEL_FILE} or one COCO keypoint JSON file in {root}, got {got}")
    path, data = found[0]
    return read_coco(path, data, Labels)


def _load_npz(path: Path) -> Labels:
    try:
        with members(path, ARRAYS, ("sizes",)) as found:
            (n, *_), (joints, *_) = found["files"].shape or (0,), found["names"].shape or (0,)
            expected = {"files": (n,), "names": (joints,), "keypoints": (n, joints, 2), "visible": (n, joints)}
            expected |= {"sizes": (n, 2)} if "sizes" in found else {}
            for name, shape in expected.items():  # before memory is taken for any
                if found[name].shape != shape:
                    raise ValueError(f"{name} must have shape {shape}, got {found[name].shape}")
            arrays = {name: member.read() for name, member in found.items()}
            return Labels(
                files=arrays["files"].tolist(),
                keypoints=arrays["keypoints"].astype(np.float64),
                visible=arrays["visible"].astype(bool),
                names=arrays["names"].tolist(),
                skeleton=[(int(i), int(j)) for i, j in arrays["skeleton"]],
                sizes=arrays["sizes"].astype(np.float64) if "sizes" in arrays else None,
            )
    except KeyError as error:
        raise ValueError(f"load_labels: {path} lacks an array: {error.args[0]}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"load_labels: {path} is no valid label file: {error}") from error
