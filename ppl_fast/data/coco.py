"""COCO keypoint JSON as exporters write it: nulls, crowds, people without joints, marks of encodings, other JSON."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import numpy as np

from ppl_fast._documents import LARGE, parse_json, read_bytes

Built = TypeVar("Built")


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


def read_coco(path: Path, data: dict[str, Any], build: Callable[..., Built]) -> Built:
    """What `build`, as `Labels`, makes of the fields that a COCO object holds.

    Raises:
        ValueError: the object is not as it should be; the sentence names the file.
    """
    try:
        return build(**_fields(data))
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
