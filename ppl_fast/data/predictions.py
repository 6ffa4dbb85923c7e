"""Estimated poses as CSV and COCO keypoint JSON."""

import csv
import json

import numpy as np

from ppl_fast._files import replacing, write_text


def write_csv(path, files, keypoints, names=None, columns=None) -> None:
    """One row an image: file, further columns, then x and y of every keypoint in pixels of the original.

    Args:
        path: the file to write, replaced whole.
        files: n names.
        keypoints: (n, N, 2), (x, y) in pixels of the originals.
        names: N keypoint names; keypoint_00, keypoint_01, ... by default.
        columns: name to n values, such as the frame in a video; None leaves a cell empty.
    """
    keypoints, names = _check("write_csv", files, keypoints, names)
    columns = columns or {}
    rows = zip(files, *columns.values(), keypoints, strict=True)
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", *columns, *(f"{name}_{axis}" for name in names for axis in "xy")])
        for *cells, points in rows:
            writer.writerow([*cells, *(f"{value:.3f}" for value in points.ravel())])


def write_coco(path, files, keypoints, sizes, names=None, skeleton=(), category="object") -> None:
    """COCO keypoint JSON, one annotation an image, every keypoint marked visible.

    Args:
        path: the file to write, replaced whole.
        files: n names.
        keypoints: (n, N, 2), (x, y) in pixels of the originals.
        sizes: n pairs (W, H) of the originals.
        names: N keypoint names; keypoint_00, keypoint_01, ... by default.
        skeleton: links as pairs of keypoint numbers counted from 0 (COCO's own count, from 1, is used in the file).
        category: name of the one category.
    """
    keypoints, names = _check("write_coco", files, keypoints, names)
    if len(sizes) != len(files):
        raise ValueError(f"write_coco: sizes must hold {len(files)} pairs, got {len(sizes)}")
    images, annotations = [], []
    for number, (name, points, (width, height)) in enumerate(zip(files, keypoints, sizes, strict=True), start=1):
        low, extent = points.min(0), np.ptp(points, axis=0)
        images.append({"id": number, "file_name": name, "width": int(width), "height": int(height)})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "keypoints": [v for x, y in points.tolist() for v in (round(x, 3), round(y, 3), 2)],
                "num_keypoints": len(names),
                "bbox": [round(float(v), 3) for v in (*low, *extent)],
                "area": round(float(extent.prod()), 3),
                "iscrowd": 0,
            }
        )
    bones = [[int(i) + 1, int(j) + 1] for i, j in skeleton]
    categories = [{"id": 1, "name": category, "keypoints": names, "skeleton": bones}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    write_text(path, json.dumps(content))


def _check(caller: str, files, keypoints, names) -> tuple[np.ndarray, list[str]]:
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if keypoints.ndim != 3 or keypoints.shape[0] != len(files) or keypoints.shape[2] != 2:
        raise ValueError(f"{caller}: keypoints must have shape ({len(files)}, N, 2), got {keypoints.shape}")
    if names is None:
        names = [f"keypoint_{i:02d}" for i in range(keypoints.shape[1])]
    if len(names) != keypoints.shape[1]:
        raise ValueError(f"{caller}: names must hold {keypoints.shape[1]} entries, got {len(names)}")
    return keypoints, list(names)
