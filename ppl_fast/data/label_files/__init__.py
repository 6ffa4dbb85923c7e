"""Label files of every kind, by what a folder holds or by a file's name.

| files | pixels: where (0, 0) is | source |
| --- | --- | --- |
| `keypoints.npz` | centre of the top left pixel | `Labels` |
| COCO keypoint JSON | centre of the top left pixel | `coco` |
| DeepLabCut, Lightning Pose | centre of the top left pixel | `deeplabcut` |
| SLEAP | centre of the top left pixel; before format 1.1 its outer corner | `sleap` |
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ppl_fast.data.label_files.coco import read_coco, read_folder
from ppl_fast.data.label_files.deeplabcut import read_deeplabcut, read_project, tables
from ppl_fast.data.label_files.sleap import is_analysis, read_analysis, read_slp
from ppl_fast.data.labels import LABEL_FILE, Labels
from ppl_fast.data.npz import members

ARRAYS = ("files", "keypoints", "visible", "names", "skeleton")


def load_labels(root: str | os.PathLike[str], individual: str | None = None) -> Labels:
    """Labels of a folder of images or of a project, or of the label file itself.

    A folder's `keypoints.npz` comes first; then the tables `CollectedData*` of a DeepLabCut or Lightning Pose project,
    a SLEAP project, and COCO's JSON, in the folder or in its `annotations`, the one that has keypoints. Of several
    people in one COCO image the one with the largest area counts, among those with labelled joints; crowds never do.
    Joints without numbers, with COCO's v = 0, or that SLEAP has as not visible, are not visible.

    Args:
        root: the folder or file.
        individual: whose joints to take, of a DeepLabCut table with individuals or a SLEAP file with tracks.

    Raises:
        ValueError: no labels, several files that may be meant, several individuals and none or another one is named, or
            a file that does not hold what it should; it is named.
        ImportError: a file needs h5py, which is not installed.
    """
    root = Path(root)
    if root.is_dir():
        return _in_folder(root, individual)
    if not root.exists():
        raise ValueError(f"load_labels: {root} is missing; expected a folder or a label file")
    named = {".csv": read_deeplabcut, ".h5": _h5, ".slp": read_slp}.get(root.suffix.lower())
    if named:
        return named(root, individual)
    return _alone(root, individual, _load_npz if root.suffix == ".npz" else read_coco)


def has_labels(root: Path) -> bool:
    """Whether a folder holds what `load_labels` would look at."""
    beside = any(any(root.glob(pattern)) for pattern in (LABEL_FILE, "*.json", "*.slp", "annotations/*.json"))
    return beside or bool(tables(root))


def _in_folder(root: Path, individual: str | None) -> Labels:
    projects = sorted(root.glob("*.slp"))
    if (root / LABEL_FILE).exists():
        return _alone(root / LABEL_FILE, individual, _load_npz)
    if tables(root):
        return read_project(root, individual)
    if len(projects) > 1:
        listed = ", ".join(path.name for path in projects)
        raise ValueError(f"load_labels: expected one .slp file in {root}, got {listed}")
    if projects:
        return read_slp(projects[0], individual)
    return _alone(root, individual, read_folder)


def _alone(path: Path, individual: str | None, read: Callable[[Path], Labels]) -> Labels:
    """Labels of a file that knows no individuals by name."""
    if individual is not None:
        raise ValueError(f"load_labels: {path} has no individuals by name, but {individual!r} is asked for")
    return read(path)


def _h5(path: Path, individual: str | None) -> Labels:
    return (read_analysis if _is_analysis(path) else read_deeplabcut)(path, individual)


def _is_analysis(path: Path) -> bool:
    try:
        return is_analysis(path)
    except ValueError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"load_labels: {path} is no valid label file: {reason}") from error


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
