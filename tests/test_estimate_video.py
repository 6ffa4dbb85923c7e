"""Poses of videos: `ppl-fast estimate`."""

import csv
import os

import numpy as np
import pytest

pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import fails
from video_files import SIZE, cut, encode

from ppl_fast.cli import main
from ppl_fast.data import ImageFolder, load_labels
from ppl_fast.data.video import Video
from ppl_fast.training import load_model


def rows(path) -> list[list[str]]:
    return list(csv.reader(path.open()))


def test_poses_of_a_video_are_those_of_its_frames(run, tmp_path):
    video = Video(encode(tmp_path / "walk.mp4", times=[*range(11), 14]))
    (tmp_path / "frames").mkdir()
    for frame in video.frames():
        frame.image.save(tmp_path / "frames" / f"{frame.number:02d}.png")
    options = ["--batch-size", "5", "--iterations", "2", "--device", "cpu"]
    outputs = [f"--{key}={tmp_path / 'out' / name}" for key, name in (("out", "v.csv"), ("coco", "v.json"))]
    overlay = tmp_path / "out" / "v.mp4"
    assert main(["estimate", str(run), str(video.path), *outputs, f"--overlay={overlay}", *options]) == 0
    assert main(["estimate", str(run), str(tmp_path / "frames"), f"--out={tmp_path / 'i.csv'}", *options]) == 0
    header, *found = rows(tmp_path / "out" / "v.csv")
    names, *expected = rows(tmp_path / "i.csv")
    assert header == ["file", "frame", "time", *names[1:]]
    assert [row[:3] for row in found] == [["walk.mp4", str(f.number), f"{f.time:.6f}"] for f in video.frames()]
    assert [row[3:] for row in found] == [row[1:] for row in expected]
    labels = load_labels(tmp_path / "out" / "v.json")
    assert labels.files == [f"walk.mp4/{i:06d}" for i in range(12)]
    np.testing.assert_allclose(labels.keypoints.reshape(12, -1), np.array([row[3:] for row in found], float))

    drawn_on = Video(overlay)
    assert (drawn_on.size, drawn_on.rate, drawn_on.length) == (SIZE, video.rate, 12)
    weights = load_model(run).link_weights()
    assert (weights > 0).any()
    for before, after in zip(video.frames(), drawn_on.frames(), strict=True):
        assert after.time == pytest.approx(before.time)
        assert np.abs(np.asarray(after.image, int) - np.asarray(before.image)).max() > 60  # something was drawn
    assert sorted(os.listdir(tmp_path / "out")) == ["v.csv", "v.json", "v.mp4"]


def test_poses_of_images_and_videos_in_one_folder(run, clips, tmp_path, capsys):
    arguments = ["estimate", run, clips, "--out", tmp_path / "p.csv", "--overlay", tmp_path / "o", "--batch-size", 4]
    assert main([str(argument) for argument in arguments]) == 0
    found = rows(tmp_path / "p.csv")[1:]
    assert [row[0] for row in found if row[1] == ""] == ImageFolder(clips, 32).paths
    assert [row[:2] for row in found if row[0] == "clip3.mp4"] == [["clip3.mp4", str(i)] for i in range(7)]
    assert Video(tmp_path / "o/far/b.avi.mp4").length == 5 and Video(tmp_path / "o/far/b.avi.mp4").size == (64, 48)
    assert (tmp_path / "o/clip2/7.png.png").is_file()
    assert "clip3.mp4" not in capsys.readouterr().out.partition("ignored")[2]


def test_bad_videos_and_outputs_are_one_sentence_and_leave_nothing(run, tmp_path, capsys):
    video = encode(tmp_path / "in" / "a.mp4")
    half = cut(encode(tmp_path / "in" / "half.mkv", count=50), 0.6)
    (tmp_path / "in" / "text.mp4").write_text("no video")
    out, overlay = tmp_path / "p.csv", tmp_path / "o.mp4"
    for path, message in ((half, "half.mkv"), (tmp_path / "in" / "text.mp4", "could not be decoded as a video")):
        assert message in fails(capsys, "estimate", run, path, "--out", out, "--overlay", overlay)
    assert "1 of 3 videos are unusable" in fails(capsys, "estimate", run, tmp_path / "in", "--out", out)
    broken_off = fails(capsys, "estimate", run, tmp_path / "in", "--out", out, "--max-bad-share", 0.4)
    assert "half.mkv was cut short" in broken_off
    assert "must end in .mkv, .mov, .mp4" in fails(
        capsys, "estimate", run, video, "--out", out, "--overlay", tmp_path / "o"
    )
    before = video.read_bytes()
    assert "--overlay must not be the input" in fails(capsys, "estimate", run, video, "--out", out, "--overlay", video)
    assert "--out must not be the input" in fails(capsys, "estimate", run, video, "--out", video)
    assert video.read_bytes() == before
    assert os.listdir(tmp_path) == ["in"]


def test_interruption_leaves_nothing(run, tmp_path, monkeypatch, capsys):
    video = encode(tmp_path / "a.mp4")
    model = type(load_model(run))
    estimate, calls = model.estimate, []

    def interrupted(self, images, **options):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return estimate(self, images, **options)

    monkeypatch.setattr(model, "estimate", interrupted)
    arguments = [run, video, "--out", tmp_path / "p.csv", "--overlay", tmp_path / "o.mp4", "--batch-size", 5]
    assert main(["estimate", *map(str, arguments)]) == 130
    assert calls == [5, 5] and os.listdir(tmp_path) == ["a.mp4"]
