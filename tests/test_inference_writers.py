"""Files of poses by format."""

import csv
import json
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")

from inference_cases import KEYPOINTS, Counted, Finder
from PIL import Image

from ppl_fast._files import readable
from ppl_fast.data import ImageFolder, load_labels
from ppl_fast.inference import FORMATS, Estimation, collect, estimate, write
from ppl_fast.inference.writers import fitting


def test_what_was_taken_already_is_not_written(tmp_path):
    images = torch.zeros(3, 3, 32, 32)
    for begin in (next, list, Estimation.close):
        poses = estimate(Finder(), images, batch_size=2)
        assert write(estimate(Finder(), images), csv=tmp_path / "p.csv") == 3
        begin(poses)
        with pytest.raises(ValueError, match="write: poses must be an estimation that nothing was taken of yet"):
            write(poses, csv=tmp_path / "p.csv")
        assert len((tmp_path / "p.csv").read_text().splitlines()) == 4


def test_estimates_leave_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    collect(estimate(Finder(), torch.zeros(3, 3, 32, 32)))
    assert torch.equal(torch.rand(2), expected)


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
    (code,) = (block for block in re.findall("```python\n(.*?)```", page, re.DOTALL) if "FORMATS[" in block)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(images)
    monkeypatch.setattr("ppl_fast.inference.writers.FORMATS", FORMATS.copy())
    monkeypatch.setattr("ppl_fast.inference.FORMATS", sys.modules["ppl_fast.inference.writers"].FORMATS)
    exec(code, {"write": write, "estimate": estimate, "model": Finder()})
    with np.load("poses.npz") as saved:
        np.testing.assert_array_equal(saved["keypoints"], collect(estimate(Finder(), images)).keypoints)


ODD_NAMES = [
    os.fsdecode(b"caf\xe9.png"),
    "cafe\N{COMBINING ACUTE ACCENT}.png",
    " two  words .png",
    'line\nbreak, and "quotes".png',
    "l" * 251 + ".png",
    "\N{GREEK SMALL LETTER ALPHA}" * 125 + ".png",
]


def test_odd_names_in_every_format(tmp_path):
    """Bytes that are no UTF-8, decomposed accents, spaces, line breaks, and as long as the file system takes."""
    (tmp_path / "in").mkdir()
    for number, name in enumerate(ODD_NAMES):
        pixels = np.full((30, 40, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "first.png")
        try:
            (tmp_path / "first.png").rename(tmp_path / "in" / name)
        except OSError:
            pytest.skip(f"the file system does not take the name {name!r}")
    names = ImageFolder(tmp_path / "in", 32).paths
    assert sorted(ODD_NAMES) == names
    outputs = {"csv": tmp_path / "p.csv", "coco": tmp_path / "p.json", "overlay": tmp_path / "o"}
    assert write(estimate(Finder(), tmp_path / "in"), **outputs) == len(names)
    with outputs["csv"].open(encoding="utf-8", newline="") as file:
        assert [row[0] for row in csv.reader(file)][1:] == [readable(name) for name in names]
    assert load_labels(outputs["coco"]).files == names
    drawn = os.listdir(outputs["overlay"])
    assert len(drawn) == len(names) and all(name.endswith(".png.png") for name in drawn)
    assert {f"{name}.png" for name in names if len(os.fsencode(name)) < 190} <= {*drawn}
    assert not ImageFolder(tmp_path, 32).paths or all("in/" in path for path in ImageFolder(tmp_path, 32).paths)


def test_shortened_names_stay_apart():
    one, other = (fitting(f"deep/{'a' * 120}{letter}{'b' * 120}.mp4.mp4") for letter in "xy")
    assert one != other and one.startswith("deep/aaa") and one.endswith("bbb.mp4.mp4")
    assert len(one.encode()) < 255 - 40 and fitting("deep/walk.mp4.mp4") == "deep/walk.mp4.mp4"


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ({"csv": "p.csv", "coco": "./p.csv"}, "coco must be another file than csv, got .* for both"),
        ({"csv": "drawn", "overlay": "sub/../drawn"}, "overlay must be another file than csv"),
        ({"csv": "link.csv", "coco": "target"}, "coco must be another file than csv"),
        ({"csv": "p.json"}, "csv writes CSV, for files that end in .csv"),
        ({"csv": "p.csv.gz"}, "csv writes CSV"),
        ({"coco": "p.CSV"}, "coco writes COCO, for files that end in .json"),
        ({"overlay": "drawn.mp4"}, "overlay must name a folder for a folder of images"),
    ],
)
def test_outputs_that_fit_neither_each_other_nor_their_names(images, tmp_path, outputs, sentence):
    (tmp_path / "link.csv").symlink_to("target")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match=sentence):
        write(estimate(Finder(), images), **{kind: f"{tmp_path}/{name}" for kind, name in outputs.items()})
    assert sorted(os.listdir(tmp_path)) == ["link.csv", "sub"]


def test_outputs_without_a_suffix_or_with_a_further_one_are_taken(images, tmp_path):
    write(estimate(Finder(), images), csv=tmp_path / "poses", coco=tmp_path / "poses.labels")
    write(estimate(Finder(), images), csv=os.devnull, coco=os.devnull)
    assert sorted(os.listdir(tmp_path)) == ["poses", "poses.labels"]


def test_the_overlay_of_one_image(images, tmp_path):
    write(estimate(Finder(), images / "0.png"), overlay=tmp_path / "one.png")
    write(estimate(Finder(), images / "0.png"), overlay=tmp_path / "drawn")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "drawn/0.png.png").read_bytes()
    with pytest.raises(ValueError, match="overlay must end in .png for an image"):
        write(estimate(Finder(), images / "0.png"), overlay=tmp_path / "one.jpg")


def test_overlays_among_the_originals_are_not_estimated_again(clips, tmp_path):
    shutil.copytree(clips, tmp_path / "in")
    counts = [write(estimate(Finder(), tmp_path / "in"), overlay=tmp_path / "in" / "drawn") for _ in range(2)]
    assert counts == [26, 26]
    media = estimate(Finder(), tmp_path / "in").media
    assert media.report.startswith("2 videos\n14 images") and "(an overlay)" in media.report and not media.skipped
