"""Files of poses by format."""

import csv
import json
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")

from inference_cases import KEYPOINTS, Counted, Finder

from ppl_fast.data import load_labels
from ppl_fast.inference import FORMATS, collect, estimate, write


def test_files_by_format(clips, tmp_path):
    outputs = {"csv": tmp_path / "p.csv", "coco": tmp_path / "p.json", "overlay": tmp_path / "drawn"}
    assert write(estimate(Finder(), clips, batch_size=4), **outputs) == 26
    poses = collect(estimate(Finder(), clips, batch_size=4))
    header, *rows = csv.reader(outputs["csv"].open())
    assert header[:5] == ["file", "frame", "time", "keypoint_00_x", "keypoint_00_y"]
    assert [row[:2] for row in rows] == [
        [name, "" if frame is None else str(frame)] for name, frame in zip(poses.names, poses.frames, strict=True)
    ]
    np.testing.assert_allclose(np.array([row[3:] for row in rows], float), poses.keypoints.reshape(26, -1), atol=6e-4)
    labels = load_labels(outputs["coco"])
    assert labels.files == poses.unique_names and labels.skeleton == [(0, 1), (1, 2)]
    drawn = {str(path.relative_to(tmp_path / "drawn")) for path in (tmp_path / "drawn").rglob("*") if path.is_file()}
    assert drawn == {f"{name}.{'mp4' if name.endswith(('.mp4', '.avi')) else 'png'}" for name in poses.names}
    assert write(estimate(Finder(), clips / "clip3.mp4"), overlay=tmp_path / "one.mkv", csv=None) == 7
    assert sorted(os.listdir(tmp_path)) == ["drawn", "one.mkv", "p.csv", "p.json"]


def test_files_of_images_alone_have_no_frames(images, tmp_path):
    write(estimate(Finder(), images), csv=tmp_path / "p.csv")
    assert next(csv.reader((tmp_path / "p.csv").open()))[:2] == ["file", "keypoint_00_x"]


def test_an_interrupted_estimation_leaves_no_files(clips, tmp_path, monkeypatch):
    estimated = []

    def interrupted(self, images, iterations=1):
        estimated.append(len(images))
        if sum(estimated) > 20:  # within the first video, after all images
            raise KeyboardInterrupt
        return torch.zeros(len(images), KEYPOINTS, 2)

    monkeypatch.setattr(Finder, "estimate", interrupted)
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "mine.txt").touch()
    outputs = {"csv": tmp_path / "p.csv", "coco": tmp_path / "p.json", "overlay": tmp_path / "drawn"}
    with pytest.raises(KeyboardInterrupt):
        write(estimate(Finder(), clips, batch_size=4), **outputs)
    assert sum(estimated) > 20
    assert os.listdir(tmp_path) == ["drawn"] and os.listdir(tmp_path / "drawn") == ["mine.txt"]


def test_a_further_format_is_one_function(images, tmp_path, monkeypatch):
    @contextmanager
    def counts(path, schema):
        numbers = []
        yield lambda poses: numbers.append(len(poses))
        path.write_text(json.dumps([numbers, schema.links.tolist()]))

    monkeypatch.setitem(FORMATS, "counts", counts)
    write(estimate(Finder(), images, batch_size=4), counts=tmp_path / "counts.json")
    assert json.loads((tmp_path / "counts.json").read_text()) == [[4, 4, 2], [[0, 1], [1, 2]]]


def test_outputs_are_refused_before_any_work(clips, tmp_path):
    video = clips / "clip3.mp4"
    before = video.read_bytes()
    dataset = Counted(3)
    with pytest.raises(TypeError, match="unknown format 'ccsv'; did you mean 'csv'"):
        write(estimate(Finder(), dataset), ccsv=tmp_path / "p.csv")
    with pytest.raises(FileNotFoundError, match="the folder .*nowhere is missing"):
        write(estimate(Finder(), dataset), csv=tmp_path / "nowhere" / "p.csv")
    assert dataset.loaded == 0
    with pytest.raises(ValueError, match="csv must not be the input itself"):
        write(estimate(Finder(), video), csv=video)
    with pytest.raises(ValueError, match="must end in .mkv, .mov, .mp4 to be written as a video"):
        write(estimate(Finder(), video), overlay=tmp_path / "drawn")
    assert video.read_bytes() == before and not os.listdir(tmp_path)


def test_the_format_of_the_documentation(images, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "inference.md").read_text()
    code = re.findall("```python\n(.*?)```", page, re.DOTALL)[-1]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(images)
    monkeypatch.setattr("ppl_fast.inference.writers.FORMATS", FORMATS.copy())
    monkeypatch.setattr("ppl_fast.inference.FORMATS", sys.modules["ppl_fast.inference.writers"].FORMATS)
    exec(code, {"write": write, "estimate": estimate, "model": Finder()})
    with np.load("poses.npz") as saved:
        np.testing.assert_array_equal(saved["keypoints"], collect(estimate(Finder(), images)).keypoints)
