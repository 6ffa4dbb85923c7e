"""COCO keypoint JSON as exporters write it: nulls, crowds, people without joints, marks of encodings, other JSON.

(0, 0) is the centre of the top left pixel: COCO's annotations of keypoints are whole numbers from 0 to W - 1 and H - 1,
the pixels that were clicked (cocodataset.org, data format: "0-indexed"; Detectron2, which counts from the outer corner,
therefore adds a half to them, and to them alone).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from ppl_fast._documents import LARGE, parse_json, read_bytes
from ppl_fast.data.labels import LABEL_FILE, Labels

ANNOTATIONS, IMAGES = "annotations", "images"  # folders of COCO's layout


def read_json(path: Path) -> Any:
    """What a JSON file holds, in UTF-8, -16 or -32, marked or not; other bytes stay in names as Python has them there.

    Raises:
        ValueError: the file cannot be read; it is named.
    """
    try:
        raw = read_bytes(path, LARGE)
        try:
            return parse_json(raw)
        except UnicodeDecodeError:
            return parse_json(raw.decode("utf-8", "surrogateescape"))
    except (OSError, ValueError) as error:
        raise ValueError(f"load_labels: {path} is no readable JSON: {error}") from error


def is_coco(data: Any) -> TypeGuard[dict[str, Any]]:
    """Whether this is an object with COCO's `images` and `annotations`."""
    return isinstance(data, dict) and {"images", "annotations"} <= data.keys()


def has_keypoints(data: dict[str, Any]) -> bool:
    """Whether a COCO object is about keypoints, and not about boxes alone."""
    lists = [data["annotations"], data.get("categories")]
    entries = [entry for each in lists if isinstance(each, list) for entry in each if isinstance(entry, dict)]
    return any(entry.get("keypoints") for entry in entries)


def read_coco(path: Path) -> Labels:
    """The labels of a file of JSON.

    Raises:
        ValueError: it is not as it should be; the sentence names the file.
    """
    data = read_json(path)
    if not is_coco(data):
        raise ValueError(f"load_labels: {path} must be a JSON object with COCO's images and annotations")
    return _labels(path, data)


def read_folder(root: Path) -> Labels:
    """Labels of the one JSON file in a folder, or in its annotations, that holds keypoints.

    Others, broken ones too, may lie beside it. Several may be meant where each is named after its folder of images, as
    `annotations/person_keypoints_val2017.json` after `val2017` or `images/val2017`.

    Raises:
        ValueError: there is none, or several; or what `read_coco` raises.
    """
    found, broken = [], []
    for path in sorted(path for folder in (root, root / ANNOTATIONS) for path in folder.glob("*.[jJ][sS][oO][nN]")):
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
    folders = [_folder_of(root, path) for path, _ in found]
    if len(found) != 1 and (not found or None in folders):
        got = ", ".join(path.name for path, _ in found) or "neither"
        raise ValueError(f"load_labels: expected {LABEL_FILE} or one COCO keypoint JSON file in {root}, got {got}")
    parts = [_below(_labels(*each), root, folder) for each, folder in zip(found, folders, strict=True)]
    if any((part.names, part.skeleton) != (parts[0].names, parts[0].skeleton) for part in parts):
        raise ValueError(f"load_labels: the files in {root / ANNOTATIONS} must name the same keypoints")
    sizes = [np.zeros((len(part), 2)) if part.sizes is None else part.sizes for part in parts]
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("keypoints", "visible")}
    files = [file for part in parts for file in part.files]
    return Labels(files=files, names=parts[0].names, skeleton=parts[0].skeleton, sizes=np.concatenate(sizes), **whole)


def _folder_of(root: Path, path: Path) -> str | None:
    """The folder of images that a file in the annotations is named after, if there is one."""
    name = path.stem.rpartition("_")[2]
    places = (f"{IMAGES}/{name}", name) if path.parent.name == ANNOTATIONS else ()
    return next((place for place in places if (root / place).is_dir()), None)


def _below(labels: Labels, root: Path, folder: str | None) -> Labels:
    """Labels whose names lead from the root to the images, where they led from the folder."""
    if folder is None or not labels.files or not (root / folder / labels.files[0]).is_file():
        return labels
    return replace(labels, files=[f"{folder}/{file}" for file in labels.files])


def _labels(path: Path, data: dict[str, Any]) -> Labels:
    try:
        return Labels(**_fields(data))
    except KeyError as error:
        raise ValueError(f"load_labels: {path} lacks the COCO key {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"load_labels: {path} is no valid COCO keypoint file: {error}") from error


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    """Of each image the annotation that counts, in the order of the images."""
    best: dict[str, dict[str, Any]] = {}
    for annotation in data["annotations"]:
        place = str(annotation["image_id"])
        if not annotation.get("keypoints") or annotation.get("iscrowd"):
            continue  # a box without joints, or a crowd that is not to be measured
        if place not in best or _rank(annotation) > _rank(best[place]):
            best[place] = annotation
    category = _category(data, {annotation.get("category_id") for annotation in best.values()})
    names = [str(name) for name in category["keypoints"]]
    images = [image for image in data["images"] if str(image["id"]) in best]
    for image in images:
        length = len(best[str(image["id"])]["keypoints"])
        if length != 3 * len(names):
            raise ValueError(f"{image['file_name']} must have {3 * len(names)} keypoint numbers, got {length}")
    triples = np.array([best[str(image["id"])]["keypoints"] for image in images], dtype=np.float64)
    triples = triples.reshape(-1, len(names), 3)
    return {
        "files": [image["file_name"] for image in images],
        "keypoints": triples[..., :2].copy(),
        "visible": (triples[..., 2] > 0) & np.isfinite(triples).all(axis=2),
        "names": names,
        "skeleton": [(int(i) - 1, int(j) - 1) for i, j in category.get("skeleton") or []],
        "sizes": np.array([_size(image) for image in images], dtype=np.float64).reshape(-1, 2),
    }


def _category(data: dict[str, Any], used: set[Any]) -> dict[str, Any]:
    """The one category with keypoints that the annotations are of; where they name none, the only one."""
    named = [category for category in data.get("categories") or [] if category.get("keypoints")]
    found = named if used == {None} else [c for c in named if str(c["id"]) in {str(i) for i in used}]
    if len(found) != 1:
        raise ValueError(f"annotations with keypoints must be of one category that names them, got {len(found)}")
    return dict(found[0])


def _rank(annotation: dict[str, Any]) -> tuple[bool, float]:
    """What counts first: whether joints are labelled; then the larger area."""
    return any(v for v in annotation["keypoints"][2::3]), _area(annotation)


def _area(annotation: dict[str, Any]) -> float:
    if annotation.get("area") is not None:
        return float(annotation["area"])
    _, _, width, height = annotation.get("bbox") or (0, 0, 0, 0)
    return float(width) * float(height)


def _size(image: dict[str, Any]) -> tuple[float, float]:
    """(W, H) as the file tells it; 0 where it does not."""
    width, height = (float(image.get(key) or 0) for key in ("width", "height"))
    return (width, height) if min(width, height) > 0 else (0.0, 0.0)
