"""Keypoint labels, for evaluation only: `keypoints.npz` or COCO keypoint JSON."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ppl_fast._documents import LARGE, read_json
from ppl_fast._files import replacing
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
    """

    files: list[str]
    keypoints: np.ndarray
    visible: np.ndarray
    names: list[str]
    skeleton: list[tuple[int, int]]

    def __post_init__(self) -> None:
        n, joints = len(self.files), len(self.names)
        if self.keypoints.shape != (n, joints, 2):
            raise ValueError(f"Labels: keypoints must have shape {(n, joints, 2)}, got {self.keypoints.shape}")
        if self.visible.shape != (n, joints):
            raise ValueError(f"Labels: visible must have shape {(n, joints)}, got {self.visible.shape}")
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
        """Positions in `paths` that have labels, and their rows here: two int64 arrays of one length."""
        row_of = {file: row for row, file in enumerate(self.files)}
        found = [(i, row_of[path]) for i, path in enumerate(paths) if path in row_of]
        images, rows = np.array(found, dtype=np.int64).reshape(-1, 2).T
        return images, rows

    def select(self, rows: Sequence[int] | np.ndarray) -> "Labels":
        """The labels of some rows, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        files = [self.files[row] for row in rows]
        return Labels(files, self.keypoints[rows], self.visible[rows], self.names, self.skeleton)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `keypoints.npz`: plain arrays, read back without pickle."""
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                files=np.array(self.files, dtype=np.str_),
                keypoints=self.keypoints,
                visible=self.visible,
                names=np.array(self.names, dtype=np.str_),
                skeleton=np.array(self.skeleton, dtype=np.int64).reshape(-1, 2),
            )


def load_labels(root: str | os.PathLike[str]) -> Labels:
    """Labels of a folder of images, or of the label file itself.

    A folder's `keypoints.npz` comes first; else its one JSON file with COCO's `images` and `annotations`.
    Of several people in one COCO image the one with the largest area counts; joints with COCO's v = 0 are not
    visible.

    Raises:
        ValueError: no labels, several COCO files, or a file that does not hold what it should; it is named.
    """
    root = Path(root)
    if root.is_dir():
        if (root / LABEL_FILE).exists():
            return _load_npz(root / LABEL_FILE)
        found = [(path, data) for path in sorted(root.glob("*.json")) if _is_coco(data := _read_json(path))]
        if len(found) != 1:
            got = ", ".join(path.name for path, _ in found) or "neither"
            raise ValueError(f"load_labels: expected {LABEL_FILE} or one COCO keypoint JSON file in {root}, got {got}")
        return _from_coco(*found[0])
    if not root.exists():
        raise ValueError(f"load_labels: {root} is missing; expected a folder or a label file")
    if root.suffix == ".npz":
        return _load_npz(root)
    data = _read_json(root)
    if not _is_coco(data):
        raise ValueError(f"load_labels: {root} must be a JSON object with COCO's images and annotations")
    return _from_coco(root, data)


def _load_npz(path: Path) -> Labels:
    try:
        with members(path, ARRAYS) as found:
            (n, *_), (joints, *_) = found["files"].shape or (0,), found["names"].shape or (0,)
            expected = {"files": (n,), "names": (joints,), "keypoints": (n, joints, 2), "visible": (n, joints)}
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
            )
    except KeyError as error:
        raise ValueError(f"load_labels: {path} lacks an array: {error.args[0]}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"load_labels: {path} is no valid label file: {error}") from error


def _read_json(path: Path) -> Any:
    try:
        return read_json(path, LARGE)
    except (OSError, ValueError) as error:
        raise ValueError(f"load_labels: {path} is no readable JSON: {error}") from error


def _is_coco(data: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(data, dict) and {"images", "annotations"} <= data.keys()


def _from_coco(path: Path, data: dict[str, Any]) -> Labels:
    try:
        return _coco_labels(data)
    except KeyError as error:
        raise ValueError(f"load_labels: {path} lacks the COCO key {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"load_labels: {path} is no valid COCO keypoint file: {error}") from error


def _coco_labels(data: dict[str, Any]) -> Labels:
    """The largest annotation of each image, in the order of the images."""
    largest: dict[int, dict[str, Any]] = {}
    for annotation in data["annotations"]:
        kept = largest.get(annotation["image_id"])
        if "keypoints" in annotation and (kept is None or _area(annotation) > _area(kept)):
            largest[annotation["image_id"]] = annotation
    used = {annotation.get("category_id") for annotation in largest.values()}
    categories = [c for c in data.get("categories", []) if "keypoints" in c and c["id"] in used]
    if len(categories) != 1:
        raise ValueError(f"annotations with keypoints must be of one category that names them, got {len(categories)}")
    names = [str(name) for name in categories[0]["keypoints"]]
    images = [image for image in data["images"] if image["id"] in largest]
    for image in images:
        length = len(largest[image["id"]]["keypoints"])
        if length != 3 * len(names):
            raise ValueError(f"{image['file_name']} must have {3 * len(names)} keypoint numbers, got {length}")
    triples = np.array([largest[image["id"]]["keypoints"] for image in images], dtype=np.float64)
    triples = triples.reshape(-1, len(names), 3)
    return Labels(
        files=[image["file_name"] for image in images],
        keypoints=triples[..., :2].copy(),
        visible=triples[..., 2] > 0,
        names=names,
        skeleton=[(int(i) - 1, int(j) - 1) for i, j in categories[0].get("skeleton", [])],
    )


def _area(annotation: dict[str, Any]) -> float:
    if "area" in annotation:
        return float(annotation["area"])
    _, _, width, height = annotation.get("bbox", (0, 0, 0, 0))
    return float(width) * float(height)
