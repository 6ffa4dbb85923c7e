"""The whole way of a laboratory, in each layout that it may have its labels in: train, name, estimate, read back."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("scipy", reason="fitting joints needs the data extra")

import h5py
import yaml
from label_cases import csv_text
from PIL import Image
from tiny import MODEL, TRAIN, fails
from video_files import drawn, encode

from ppl_fast.cli import main
from ppl_fast.data import load_labels

pytestmark = pytest.mark.slow
FRAMES, PARTS = 6, ("nose", "tail")
POINTS = np.array([[[4 * number + 1, 20], [4, 4]] for number in range(FRAMES)], float)  # (frames, parts, 2)


def deeplabcut(root: Path) -> list[str]:
    """A project of two animals, of which the second is labelled in places."""
    folder = root / "labeled-data" / "walk"
    folder.mkdir(parents=True)
    rows = {}
    for number, points in enumerate(POINTS):
        Image.fromarray(drawn(number)).save(folder / f"img{number}.png")
        other = [9, 9, None, None] if number % 2 else [None] * 4
        rows[f"labeled-data/walk/img{number}.png"] = [*points.ravel(), *other]
    (folder / "CollectedData_me.csv").write_text(csv_text(rows, PARTS, individuals=("one", "two")))
    encode(root / "videos" / "walk.mp4", count=FRAMES)
    return ["--individual", "one"]


def sleap(root: Path) -> list[str]:
    """A video, and an analysis file of it elsewhere, its axes as SLEAP writes them for MATLAB."""
    encode(root / "videos" / "walk.mp4", count=FRAMES)
    file = root.parent / "analysis.h5"
    with h5py.File(file, "w") as content:
        content["tracks"] = POINTS.transpose(2, 1, 0)[None]  # (track, xy, node, frame)
        content["track_occupancy"] = np.ones((FRAMES, 1), np.uint8)
        content["node_names"] = np.array(PARTS, "S")
        content["edge_inds"], content["track_names"] = np.array([[0, 1]]), np.array(["track_0"], "S")
        content["video_path"] = str(root / "videos" / "walk.mp4")
    return ["--labels", str(file)]


def coco(root: Path) -> list[str]:
    """COCO's own layout: annotations/ beside images/."""
    (root / "images" / "val").mkdir(parents=True)
    (root / "annotations").mkdir()
    for number in range(FRAMES):
        Image.fromarray(drawn(number)).save(root / "images" / "val" / f"{number:06d}.png")
    height, width = drawn(0).shape[:2]
    content = {
        "images": [{"id": n, "file_name": f"{n:06d}.png", "width": width, "height": height} for n in range(FRAMES)],
        "categories": [{"id": 1, "name": "animal", "keypoints": PARTS, "skeleton": [[1, 2]]}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "keypoints": [v for p in points for v in (*p, 2)]}
            for n, points in enumerate(POINTS)
        ],
    }
    (root / "annotations" / "person_keypoints_val.json").write_text(json.dumps(content))
    return []


def read(path: Path, kind: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Joints (n, J, 2) and likelihoods (n, J) of a file, by the documentation of its format."""
    if kind == "sleap":
        with h5py.File(path) as file:
            assert [name.decode() for name in file["node_names"]] == list(PARTS)
            return file["tracks"][0].transpose(2, 1, 0), file["point_scores"][0].T
    if kind in ("csv", "dlc"):
        heads, each = (1, 2) if kind == "csv" else (3, 3)
        *_, head = (rows := list(csv.reader(path.open())))[: 2 if kind == "dlc" else 1]
        assert [name[:4] for name in head[-2 * each :: each]] == list(PARTS)
        values = np.array([[float(cell or "nan") for cell in row[-2 * each :]] for row in rows[heads:]])
        values = values.reshape(len(values), 2, each)
        return values[..., :2], values[..., 2] if kind == "dlc" else None
    labels = load_labels(path)
    assert labels.names == list(PARTS)
    return np.where(labels.visible[..., None], labels.keypoints, np.nan), None


@pytest.mark.parametrize("layout", [deeplabcut, sleap, coco])
def test_from_labels_to_named_joints_in_every_format(layout, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    which = layout(tmp_path / "project")
    options = {"architecture": "extended-ppl", "model": MODEL, "train": TRAIN | {"steps": 1}}
    Path("tiny.yaml").write_text(yaml.safe_dump(options))
    assert main(["train", "project", "--out", "run", "--config", "tiny.yaml"]) == 0
    if layout is deeplabcut:
        assert "several individuals (one, two); name the one to take" in fails(capsys, "name", "run", "project")
    assert main(["name", "run", "project", "--network", "false", *which]) == 0
    assert f"on {FRAMES} labelled images" in capsys.readouterr().out
    footage = "project/images" if layout is coco else "project/videos/walk.mp4"
    found = {}
    for kind, suffix in (("csv", "csv"), ("dlc", "csv"), ("sleap", "h5"), ("coco", "json"), ("npz", "npz")):
        assert main(["estimate", "run", footage, "--out", f"{kind}.{suffix}", "--format", kind]) == 0
        found[kind] = read(Path(f"{kind}.{suffix}"), kind)
        assert "poses of 2 joints" in capsys.readouterr().out
    joints, likelihood = found["dlc"]
    assert joints.shape == (FRAMES, 2, 2) and np.isfinite(joints).all()
    assert ((likelihood >= 0) & (likelihood <= 1)).all()
    np.testing.assert_allclose(found["sleap"][1], likelihood)
    for other, _ in found.values():
        np.testing.assert_allclose(other, joints, atol=1e-3)


def test_a_frame_without_an_animal_has_neither_joints_nor_likelihoods(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    which = deeplabcut(tmp_path / "project")
    boxes = [f"labeled-data/walk/img{n}.png,,2,2,28,28" for n in range(FRAMES)]
    boxes += [f"videos/walk.mp4,{n},2,2,28,28" for n in range(FRAMES) if n != 3]
    Path("boxes.csv").write_text("\n".join(["file,frame,x,y,width,height", *boxes]) + "\n")
    options = {"architecture": "extended-ppl", "model": MODEL, "train": TRAIN | {"steps": 1}}
    Path("tiny.yaml").write_text(yaml.safe_dump(options))
    assert main(["train", "project", "--out", "run", "--config", "tiny.yaml", "--crop", "boxes.csv"]) == 0
    crop = ["--crop", "boxes.csv"]
    part = fails(capsys, "name", "run", "project/videos", *crop)
    assert part.endswith(f"it is a part of the project {tmp_path / 'project'}: give that")
    assert main(["name", "run", "project", "--network", "false", *which, *crop]) == 0
    for kind, suffix in (("dlc", "csv"), ("sleap", "h5")):
        out = f"{kind}.{suffix}"
        assert main(["estimate", "run", "project/videos/walk.mp4", "--out", out, "--format", kind, *crop]) == 0
        joints, likelihood = read(Path(out), kind)
        gone = np.isnan(joints).any(axis=2)
        assert np.argwhere(gone.all(axis=1)).ravel().tolist() == [3] and not np.delete(gone, 3, axis=0).any()
        assert (np.isnan(likelihood) == gone).all()
