"""Label files of other programs: as those wrote them (tests/data/label_files), and miniatures in their layouts.

The files are by pandas 3.1 with PyTables 3.11, and by sleap-io 0.9.5.
"""

import gzip
import json
from pathlib import Path

import h5py
import numpy as np

WRITTEN = Path(__file__).parent / "data" / "label_files"
POINT = [("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")]
INSTANCE = [
    ("instance_id", "i8"), ("instance_type", "u1"), ("frame_id", "u8"), ("skeleton", "u4"), ("track", "i4"),
    ("from_predicted", "i8"), ("score", "f4"), ("point_id_start", "u8"), ("point_id_end", "u8"),
]  # fmt: skip
FRAME = [
    ("frame_id", "u8"),
    ("video", "u4"),
    ("frame_idx", "u8"),
    ("instance_id_start", "u8"),
    ("instance_id_end", "u8"),
]


def written(folder: Path, name: str) -> Path:
    """One of the files that other programs wrote."""
    path = folder / name
    path.write_bytes(gzip.decompress((WRITTEN / f"{name}.gz").read_bytes()))
    return path


def csv_text(rows: dict[str, list], parts=("nose", "tail"), individuals=(), scorer="me") -> str:
    """A table as DeepLabCut writes it; `rows` has x and y of each part, None where it is not labelled."""
    columns = [(who, part, axis) for who in individuals or ("",) for part in parts for axis in "xy"]
    levels = zip(*columns, strict=True)
    heads = dict(zip(("individuals", "bodyparts", "coords"), levels, strict=True))
    lines = [",".join(["scorer", *[scorer] * len(columns)])]
    lines += [",".join([name, *head]) for name, head in heads.items() if individuals or name != "individuals"]
    lines += [",".join([file, *("" if cell is None else str(cell) for cell in cells)]) for file, cells in rows.items()]
    return "\n".join(lines) + "\n"


def slp(path: Path, points, version=1.2, name="walk.mp4", kind=0, **changes) -> Path:
    """A project of one video with one instance a frame: points (frames, nodes, 3), x, y and visible."""
    points = np.asarray(points, float)
    count, nodes = points.shape[:2]
    about = {
        "nodes": [{"name": f"node{i}"} for i in range(nodes)],
        "skeletons": [{"nodes": [{"id": i} for i in range(nodes)], "links": []}],
    }
    arrays = {
        "frames": np.array([(i, 0, 10 * i, i, i + 1) for i in range(count)], FRAME),
        "instances": np.array([(i, kind, i, 0, -1, -1, 0, i * nodes, (i + 1) * nodes) for i in range(count)], INSTANCE),
        "points": np.array([(x, y, seen, False) for x, y, seen in points.reshape(-1, 3)], POINT),
        "videos_json": np.array([json.dumps({"backend": {"filename": f"C:\\clips\\{name}"}})], "S"),
        "tracks_json": np.array([], "S1"),
    }
    with h5py.File(path, "w") as file:
        file.create_group("metadata").attrs.update(
            {"format_id": version, "json": np.bytes_(json.dumps(about | changes))}
        )
        for key, values in arrays.items():
            file.create_dataset(key, data=values)
    return path
