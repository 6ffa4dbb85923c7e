"""Projects of DeepLabCut, Lightning Pose and SLEAP as they are: footage to train on, labelled frames to measure on."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("scipy", reason="matching needs the data extra")

import yaml
from label_cases import csv_text, slp
from PIL import Image
from tiny import MODEL, TRAIN, fails
from video_files import drawn, encode

from ppl_fast import ExtendedPPL
from ppl_fast.cli import main
from ppl_fast.data import ImageFolder, open_set
from ppl_fast.data.box_files import Row, matched
from ppl_fast.data.clips import ClipFolder
from ppl_fast.options.footage import Selection

FOOTAGE = Path(__file__).parents[2] / "shared" / "footage" / "mirror-mouse-example"


def project(root: Path) -> Path:
    """A DeepLabCut project: two videos, five labelled frames of one of them, and what its program drew and left."""
    rows = {}
    for number in range(5):
        path = root / "labeled-data" / "walk" / f"img{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn(number)).save(path)
        rows[f"labeled-data/walk/img{number}.png"] = [4 * number + 1, 20, 4, 4]
    (root / "labeled-data" / "walk" / "CollectedData_me.csv").write_text(csv_text(rows))
    for name in ("walk", "run", "walk_labeled", "walkDLC_snapshot_labeled"):
        encode(root / "videos" / f"{name}.mp4", count=6)
    for folder in ("labeled-data/walk_labeled", "evaluation-results/plots", "training-datasets"):
        (root / folder).mkdir(parents=True)
        Image.fromarray(drawn(3)).save(root / folder / "a.png")
    Image.fromarray(drawn(3)).save(root / "logo.png")
    (root / "config.yaml").write_text("Task: walk\nscorer: me\nskeleton:\n- [nose, tail]\n")
    return root


@pytest.fixture
def run(tmp_path):
    """A model that was not trained."""
    ExtendedPPL(**MODEL).save_pretrained(tmp_path / "run" / "model")
    return tmp_path / "run"


def test_a_project_is_its_labelled_frames_and_videos(tmp_path):
    root = project(tmp_path / "project")
    found = open_set(root, 16).dataset
    assert found.clip_names == ["labeled-data/walk", "videos/run.mp4", "videos/walk.mp4"] and len(found) == 17
    drawn_by_it = [entry for entry in found.ignored if "drawn by" in entry]
    assert len(drawn_by_it) == 3 and "ignored 3" in found.report()
    assert open_set(root, 16, choice=Selection(every=3, frames=1)).dataset.clips == [0, 0, 1, 2]
    assert len(ImageFolder(root, 16)) == 5


def test_it_is_measured_on_its_labelled_frames(tmp_path):
    found = open_set(project(tmp_path / "project"), 16, split="test")
    assert found.dataset.paths == [f"labeled-data/walk/img{number}.png" for number in range(5)]
    assert [len(part) for part in found.labels.match(found.dataset.paths)] == [5, 5]
    assert found.labels.skeleton == [(0, 1)]


@pytest.mark.parametrize("left", ["labels", "labels and videos"])
def test_labels_whose_images_are_not_there(tmp_path, left):
    root = project(tmp_path / "project")
    for path in [*root.rglob("*.png"), *(root.rglob("*.mp4") if left == "labels" else ())]:
        path.unlink()
    with pytest.raises(ValueError, match=r"labels are of 5 images, such as .*img0.png, and .*project has no image"):
        open_set(root, 16, split="test")
    if left == "labels":
        with pytest.raises(ValueError, match=r"labels are of 5 images"):
            open_set(root, 16)


def test_labelled_frames_of_videos_are_decoded_alone(tmp_path):
    encode(tmp_path / "clips" / "walk.mp4", count=40)
    encode(tmp_path / "clips" / "run.mp4", count=4)
    points = [[[4 * number + 1, 20, True], [4, 4, True]] for number in (0, 10, 20)]
    slp(tmp_path / "clips" / "labels.slp", points)  # of frames 0, 10 and 20
    found = open_set(tmp_path, 16, split="test", labels=tmp_path / "clips" / "labels.slp")
    assert found.dataset.paths == [f"clips/walk.mp4/{number:06d}" for number in (0, 10, 20)]
    assert found.labels.files == found.dataset.paths
    assert len(open_set(tmp_path / "clips", 16, split="test").dataset) == 3
    assert isinstance(open_set(tmp_path / "clips", 16).dataset, ClipFolder)
    slp(tmp_path / "clips" / "labels.slp", points, name="jump.mp4")
    with pytest.raises(ValueError, match="labels are of other videos than those in .*: of jump.mp4, and not of run"):
        open_set(tmp_path / "clips", 16, split="test")


def test_train_and_evaluate_take_a_project(tmp_path, capsys):
    root, out = project(tmp_path / "project"), tmp_path / "out"
    options = {"architecture": "extended-ppl", "model": MODEL, "train": TRAIN | {"steps": 2}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(options))
    arguments = ["--every", "2", "--frames", "2", "--frames-by", "difference"]
    assert main(["train", str(root), "--out", str(out), "--config", str(tmp_path / "tiny.yaml"), *arguments]) == 0
    assert "7 images in" in capsys.readouterr().out  # every second of five and of six, of these two of each video
    kept = yaml.safe_load((out / "config.yaml").read_text())["train"]
    assert (kept["every"], kept["frames"], kept["frames_by"]) == (2, 2, "difference")
    assert main(["evaluate", str(out), str(root), "--occlusion-images", "0"]) == 0
    measured = json.loads((out / "evaluation.json").read_text())
    assert measured["images"] == {"train": 4, "test": 1}
    assert set(measured["regression"]["per_joint"]) == {"nose", "tail"}


def test_individuals_and_labels_elsewhere(tmp_path, run, capsys):
    root, labels = project(tmp_path / "project"), tmp_path / "labels.csv"
    rows = {f"labeled-data/walk/img{number}.png": [4 * number + 1, 20, 9, 9] for number in range(5)}
    labels.write_text(csv_text(rows, parts=("nose",), individuals=("a", "b")))
    arguments = ["evaluate", run, root, "--labels", labels, "--occlusion-images", "0"]
    assert "it holds several individuals (a, b); name the one to take (--individual)" in fails(capsys, *arguments)
    assert main([str(argument) for argument in (*arguments, "--individual", "a")]) == 0
    assert set(json.loads((run / "evaluation.json").read_text())["regression"]["per_joint"]) == {"nose"}
    for option, what in (("--labels", "other labels"), ("--individual", "individual")):
        sentence = fails(capsys, "evaluate", run, f"cub:{tmp_path}", option, "a")
        assert f"is a published data set, which takes no {what}" in sentence
    sentence = fails(capsys, "train", f"cub:{tmp_path}", "--out", tmp_path / "no", "--every", "2")
    assert "is a published data set, which takes no choice of frames" in sentence and not (tmp_path / "no").exists()


@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="the example footage is not beside the tree")
def test_the_example_project():
    found = open_set(FOOTAGE, 32, choice=Selection(frames=20, by="difference"))
    assert found.dataset.clip_names == ["labeled-data", "videos/test_vid.mp4"] and len(found.dataset) == 113
    measured = open_set(FOOTAGE, 32, split="test")
    images, rows = measured.labels.match(measured.dataset.paths)
    assert len(rows) == 90 and set(measured.dataset.original_sizes) == {(396, 406)}
    assert (measured.labels.keypoints[rows][measured.labels.visible[rows]] < np.array([396, 406])).all()


def test_boxes_of_a_project_fit_a_folder_of_it():
    box = np.array([8.0, 8, 4, 4, 0])
    rows = [Row("labeled-data/walk/a.png", None, box), Row("videos/walk.mp4", 3, box), Row("videos/run.mp4", None, box)]
    videos = {name: Path(name) for name in ("walk.mp4", "run.mp4", "swim.mp4")}
    assert matched(rows, [], videos) == ({}, {"walk.mp4": {3: box}, "run.mp4": {None: box}})
    assert matched(rows, ["walk/a.png", "run/a.png"], {}) == ({"walk/a.png": box}, {})
    frames = [Row("videos/walk.mp4/000004", None, box), Row("b.png", None, box)]
    assert matched(frames, [], videos) == ({}, {"walk.mp4": {4: box}})
    several = [Row(f"day{day}/walk.mp4", None, box) for day in (1, 2)]
    assert matched(several, [], videos) == ({}, {})
