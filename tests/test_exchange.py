"""Poses in other tools' formats, read back by those tools where they are installed, and by their documentation here."""

import csv
import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")

from inference_cases import KEYPOINTS, Finder, S

from ppl_fast.data import load_labels
from ppl_fast.inference import Estimation, collect, estimate, write
from ppl_fast.inference.posing import Posing

NAMES = ["keypoint_00", "keypoint_01", "keypoint_02"]


class Sure(Estimation):
    """Poses with confidence, of which one keypoint of the third is missing."""

    def __next__(self):
        poses = super().__next__()
        rows = np.array([index if frame is None else frame for index, frame in enumerate(poses.frames)])
        confidence = (1 + rows[:, None] + np.arange(KEYPOINTS)) / 40
        keypoints = poses.keypoints.copy()
        keypoints[rows == 2, 1] = np.nan
        return replace(poses, keypoints=keypoints, confidence=confidence, expected_error=10 * confidence)


def sure(source, batch_size=100):
    found = estimate(Finder(), source, batch_size=batch_size)
    return Sure(Posing(Finder(), iterations=1), found.media, batch_size=batch_size, progress=False)


@pytest.fixture(scope="module")
def video(clips):
    return clips / "clip3.mp4"  # 7 frames


@pytest.fixture(scope="module")
def poses(video):
    return collect(sure(video))


def test_the_missing_one_is_missing(poses):
    assert len(poses) == 7 and np.argwhere(np.isnan(poses.keypoints[..., 0])).tolist() == [[2, 1]]


def read_dlc(path):
    """By DeepLabCut's documentation: three rows of header, the number of the frame, then x, y and likelihood."""
    scorer, parts, coordinates, *rows = csv.reader(path.open(newline=""))
    assert (scorer[0], parts[0], coordinates[0]) == ("scorer", "bodyparts", "coords")
    assert {*scorer[1:]} == {"ppl_fast"} and coordinates[1:] == ["x", "y", "likelihood"] * KEYPOINTS
    assert parts[1:] == [name for name in NAMES for _ in range(3)]
    values = [[float(cell or "nan") for cell in row[1:]] for row in rows]
    return [row[0] for row in rows], np.array(values).reshape(len(rows), KEYPOINTS, 3)


def triples(poses):
    return np.concatenate([poses.keypoints, poses.confidence[..., None]], axis=2)


@pytest.mark.parametrize("batch_size", [3, 100])
def test_dlc_csv(video, poses, tmp_path, batch_size):
    assert write(sure(video, batch_size), dlc=tmp_path / "p.csv") == 7
    rows, values = read_dlc(tmp_path / "p.csv")
    assert rows == [str(i) for i in range(7)]
    np.testing.assert_array_equal(values, triples(poses))


def test_dlc_csv_of_images_without_confidence(images, tmp_path):
    write(estimate(Finder(), images), dlc=tmp_path / "p.csv")
    rows, values = read_dlc(tmp_path / "p.csv")
    expected = collect(estimate(Finder(), images))
    assert rows == expected.names
    np.testing.assert_array_equal(values[..., :2], expected.keypoints)
    assert np.isnan(values[..., 2]).all()


@pytest.mark.filterwarnings("error")
def test_dlc_h5(video, images, poses, tmp_path):
    pandas = pytest.importorskip("pandas", reason="DeepLabCut's .h5 files need the dlc extra")
    pytest.importorskip("tables", reason="DeepLabCut's .h5 files need the dlc extra")
    write(sure(video), dlc=tmp_path / "p.h5")
    frame = pandas.read_hdf(tmp_path / "p.h5", key="df_with_missing")
    assert frame.columns.names == ["scorer", "bodyparts", "coords"] and frame.index.tolist() == [*range(7)]
    assert [*frame.columns][:4] == [("ppl_fast", NAMES[0], c) for c in ("x", "y", "likelihood")] + [
        ("ppl_fast", NAMES[1], "x")
    ]
    np.testing.assert_array_equal(frame.to_numpy().reshape(7, KEYPOINTS, 3), triples(poses))
    write(sure(images), dlc=tmp_path / "i.h5")
    assert pandas.read_hdf(tmp_path / "i.h5", key="df_with_missing").index.tolist() == collect(sure(images)).names


def test_dlc_h5_without_pandas(images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"DeepLabCut's .h5 files need pandas, .*'ppl_fast\[dlc\]', or write .csv"):
        write(estimate(Finder(), images), dlc=tmp_path / "p.h5")
    assert not [*tmp_path.iterdir()]


def test_sleap_analysis(video, images, poses, tmp_path):
    """By SLEAP's documentation."""
    h5py = pytest.importorskip("h5py", reason="SLEAP's analysis files need the data extra")
    write(sure(video, 3), sleap=tmp_path / "p.h5")
    with h5py.File(tmp_path / "p.h5") as file:
        np.testing.assert_array_equal(file["tracks"][0].transpose(2, 1, 0), poses.keypoints)
        np.testing.assert_array_equal(file["point_scores"][0].T, poses.confidence)
        np.testing.assert_allclose(file["instance_scores"][0], poses.confidence.mean(axis=1))
        assert file["track_occupancy"].shape == (7, 1) and file["track_occupancy"][:].all()
        assert [name.decode() for name in file["node_names"][:]] == NAMES
        assert file["edge_inds"][:].tolist() == [[0, 1], [1, 2]]
        assert [[name.decode() for name in pair] for pair in file["edge_names"][:]] == [NAMES[:2], NAMES[1:]]
        assert len(file["track_names"]) == 0 and file["video_path"][()].decode() == str(video)
    write(sure(images), sleap=tmp_path / "i.h5")
    with h5py.File(tmp_path / "i.h5") as file:
        assert file["tracks"].shape == (1, 2, KEYPOINTS, 10) and file["video_path"][()] == b""


def test_npz_is_read_as_labels(video, clips, poses, tmp_path):
    write(sure(video, 3), npz=tmp_path / "p.npz")
    labels = load_labels(tmp_path / "p.npz")
    assert labels.files == poses.unique_names and labels.names == NAMES and labels.skeleton == [(0, 1), (1, 2)]
    assert np.argwhere(~labels.visible).tolist() == [[2, 1]] and (labels.sizes == poses.sizes).all()
    np.testing.assert_array_equal(labels.keypoints, poses.keypoints)
    with np.load(tmp_path / "p.npz") as saved:
        np.testing.assert_array_equal(saved["confidence"], poses.confidence)
        np.testing.assert_array_equal(saved["expected_error"], poses.expected_error)
        np.testing.assert_array_equal(saved["times"], poses.times)
        assert saved["frames"].tolist() == [*range(7)] and saved["weights"].tolist() == [1, 0.5]
    write(estimate(Finder(), clips), npz=tmp_path / "c.npz")  # images and videos side by side
    with np.load(tmp_path / "c.npz") as saved:
        assert (saved["frames"][:14] == -1).all() and np.isnan(saved["times"][:14]).all()
        assert saved["frames"][14:].tolist() == [*range(7), *range(5)] and "confidence" not in saved


def test_csv_and_coco_with_confidence(video, poses, tmp_path):
    write(sure(video), csv=tmp_path / "p.csv", coco=tmp_path / "p.json")
    header, *rows = csv.reader((tmp_path / "p.csv").open())
    each = [f"{name}_{what}" for name in NAMES for what in ("x", "y", "confidence", "error")]
    assert header == ["file", "frame", "time", *each]
    values = np.array([[float(cell or "nan") for cell in row[3:]] for row in rows]).reshape(7, KEYPOINTS, 4)
    expected = np.concatenate([triples(poses), poses.expected_error[..., None]], axis=2)
    np.testing.assert_allclose(values, expected, atol=6e-4)
    labels = load_labels(tmp_path / "p.json")
    assert np.argwhere(~labels.visible).tolist() == [[2, 1]]
    np.testing.assert_allclose(labels.keypoints[labels.visible], poses.keypoints[labels.visible], atol=6e-4)
    found = json.loads((tmp_path / "p.json").read_text())["annotations"]
    np.testing.assert_allclose([each["keypoint_scores"] for each in found], poses.confidence, atol=1e-4)
    np.testing.assert_allclose([each["score"] for each in found], poses.confidence.mean(axis=1), atol=2e-4)
    assert found[2]["keypoints"][3:6] == [0, 0, 0] and found[2]["num_keypoints"] == 2
    assert found[2]["bbox"][2] == pytest.approx(np.ptp(poses.keypoints[2, [0, 2], 0]), abs=2e-3)


@pytest.mark.parametrize(("kind", "name"), [("dlc", "p.csv"), ("dlc", "p.h5"), ("sleap", "p.h5")])
def test_movement_reads_it(video, poses, tmp_path, kind, name):
    load_poses = pytest.importorskip("movement.io.load_poses", reason="movement, whose reader this is, is not there")
    if name == "p.h5":
        pytest.importorskip("tables", reason="DeepLabCut's .h5 files need the dlc extra")
    write(sure(video), **{kind: tmp_path / name})
    reader = {"dlc": load_poses.from_dlc_file, "sleap": load_poses.from_sleap_file}[kind]
    read = reader(tmp_path / name)
    assert read.position.shape == (7, 2, KEYPOINTS, 1) and read.coords["keypoints"].values.tolist() == NAMES
    np.testing.assert_allclose(read.position.values[..., 0].transpose(0, 2, 1), poses.keypoints, rtol=1e-6)
    np.testing.assert_allclose(read.confidence.values[..., 0], poses.confidence, rtol=1e-6)


def test_sleap_reads_it(video, poses, tmp_path):
    sleap_io = pytest.importorskip("sleap_io", reason="sleap-io, whose reader this is, is not there")
    write(sure(video), sleap=tmp_path / "p.h5")
    read = sleap_io.load_analysis_h5(str(tmp_path / "p.h5"))
    assert [node.name for node in read.skeletons[0].nodes] == NAMES and len(read) == 7
    assert read.skeletons[0].edge_inds == [(0, 1), (1, 2)]
    found = read.numpy(return_confidence=True)[:, 0]
    np.testing.assert_allclose(found[..., :2], poses.keypoints)
    seen = np.isfinite(found[..., 0])
    np.testing.assert_allclose(found[..., 2][seen], poses.confidence[seen])


class Corners(Finder):
    """Keypoints at the centres of the first and last pixel, and between them."""

    def estimate(self, images, iterations=1):
        return torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]).expand(len(images), -1, -1)


def test_0_0_is_the_centre_of_the_first_pixel(tmp_path):
    """In every format; what SLEAP's and DeepLabCut's own readers give is as it is in the file."""
    h5py = pytest.importorskip("h5py", reason="SLEAP's analysis files need the data extra")
    names = {"csv": "p.csv", "dlc": "d.csv", "sleap": "s.h5", "coco": "p.json", "npz": "p.npz"}
    write(estimate(Corners(), torch.zeros(1, 3, S, S)), **{kind: tmp_path / name for kind, name in names.items()})
    ours = [float(cell) for cell in [*csv.reader((tmp_path / "p.csv").open())][1][1:]]
    with h5py.File(tmp_path / "s.h5") as file:
        sleap = file["tracks"][0, :, :, 0].T
    corners = [[0, 0], [S - 1, S - 1], [0, S - 1]]
    for found in (
        np.reshape(ours, (3, 2)),
        read_dlc(tmp_path / "d.csv")[1][0, :, :2],
        sleap,
        load_labels(tmp_path / "p.json").keypoints[0],
        load_labels(tmp_path / "p.npz").keypoints[0],
    ):
        np.testing.assert_allclose(found, corners, atol=1e-12)


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ({"dlc": "p.json"}, "dlc writes DLC, for files that end in .csv or .h5, got .*; .json is for coco"),
        ({"dlc": "p"}, "dlc writes DLC"),
        ({"sleap": "p.slp"}, "sleap writes SLEAP, for files that end in .h5, got"),
        ({"npz": "p.labels"}, "npz writes NPZ, for files that end in .npz, got"),
        ({"csv": "p.h5"}, "csv writes CSV, for files that end in .csv, got .*; .h5 is for dlc or sleap"),
        ({"coco": "p.hdf5"}, "coco writes COCO, for files that end in .json, got"),
        ({"csv": "{}.csv"}, "csv writes CSV, all into one file; {} is for dlc and sleap"),
        ({"dlc": "{}.json"}, "dlc writes DLC, for files that end in .csv or .h5"),
        ({"dlc": "p.csv", "csv": "p.csv"}, "csv must be another file than dlc"),
    ],
)
def test_suffixes_of_other_formats_are_refused(images, tmp_path, outputs, sentence):
    with pytest.raises(ValueError, match=sentence):
        write(estimate(Finder(), images), **{kind: tmp_path / name for kind, name in outputs.items()})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("kind", "name"), [("dlc", "p.csv"), ("sleap", "p.h5")])
def test_a_folder_of_videos_is_no_single_track_but_for_one(clips, tmp_path, kind, name):
    sentence = f"{kind} files hold one video, or images alone, got a folder of more.*{name[1:]}$"
    with pytest.raises(ValueError, match=sentence):
        write(estimate(Finder(), clips), **{kind: tmp_path / name})
    assert not [*tmp_path.iterdir()]
    video = next(path for path in sorted(clips.iterdir()) if path.suffix == ".mp4")
    (tmp_path / "one").mkdir()
    shutil.copy(video, tmp_path / "one")
    count = write(estimate(Finder(), tmp_path / "one"), **{kind: tmp_path / name})
    assert count == write(estimate(Finder(), video), **{kind: tmp_path / f"alone{name}"})
    if name == "p.csv":
        assert (tmp_path / name).read_bytes() == (tmp_path / f"alone{name}").read_bytes()
    else:
        h5py = pytest.importorskip("h5py", reason="SLEAP's analysis files need the data extra")
        with h5py.File(tmp_path / name) as one, h5py.File(tmp_path / f"alone{name}") as other:
            np.testing.assert_array_equal(one["tracks"][()], other["tracks"][()])


def test_the_command(images, tmp_path, capsys):
    pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
    pytest.importorskip("accelerate", reason="training needs the train extra")
    from tiny import fails, run_steps

    from ppl_fast.cli import main
    from ppl_fast.training import load_model

    run, start = tmp_path / "run", ("estimate", tmp_path / "run", images, "--out")
    run_steps(images, run, 2)
    expected = collect(estimate(load_model(run), images)).keypoints
    for kind, name in (("npz", "p.npz"), ("coco", "p.json")):
        assert main([*map(str, start), str(tmp_path / name), "--format", kind]) == 0
        np.testing.assert_allclose(load_labels(tmp_path / name).keypoints, expected, atol=2e-3)
    assert main([*map(str, start), str(tmp_path / "p.csv"), "--format", "dlc", "--coco", str(tmp_path / "q.json")]) == 0
    assert next(csv.reader((tmp_path / "p.csv").open()))[0] == "scorer" and (tmp_path / "q.json").is_file()
    assert main([*map(str, start), str(tmp_path / "{}_d.csv"), "--format", "dlc"]) == 0
    assert f"wrote {tmp_path / 'images_d.csv'}" in capsys.readouterr().out and (tmp_path / "images_d.csv").is_file()
    out = tmp_path / "new.h5"
    assert "--out writes CSV, for files that end in .csv" in fails(capsys, *start, out)
    both = fails(capsys, *start, tmp_path / "n.json", "--format", "coco", "--coco", tmp_path / "m.json")
    assert "--coco writes what --format coco writes" in both
    assert "must be one of" in fails(capsys, *start, out, "--format", "feather")
    assert not out.exists()
