"""benchmarks/arena.py: its project is one that the commands read, and its errors are distances to what was drawn."""

import csv

import numpy as np
import pytest

pytest.importorskip("av", reason="videos need the video extra")

import arena

from ppl_fast.data import open_set


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(arena, "VIDEOS", 1)
    monkeypatch.setattr(arena, "FRAMES", 10)
    monkeypatch.setattr(arena, "LABELLED", 3)
    np.savez(tmp_path / "truth.npz", **arena.draw_project(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_labels_are_the_truth_but_for_the_hand(project):
    opened = open_set(project, 32, split="fit")
    assert opened.labels.names == list(arena.JOINTS)
    with np.load(project / "truth.npz") as drawn:
        true = np.array(drawn["mouse0"])
    for file, points in zip(opened.labels.files, opened.labels.keypoints, strict=True):
        assert 0.1 < np.linalg.norm(points - true[int(file[-8:-4])], axis=1).mean() < 3


@pytest.mark.slow
def test_errors_are_pixels_from_the_truth_where_nobody_labelled(project):
    with np.load(project / "truth.npz") as drawn:
        true = np.array(drawn["mouse0"])
    header = [f"{joint}_{axis}" for joint in arena.JOINTS for axis in "xy"]
    with open(project / "poses.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "frame", "time", *header])
        for number, points in enumerate(true):
            moved = points + np.array([3.0, 4.0]) * (np.arange(len(points)) == 2)[:, None]
            writer.writerow(["mouse0.mp4", number, 0, *("" if number == 0 else value for value in moved.ravel())])
    found = arena.errors(project / "poses.csv", project, project / "truth.npz")
    zeroth = not (project / "labeled-data/mouse0/img0000.png").exists()
    assert found["frames"] == 7 - zeroth and found["without a pose"] == zeroth
    assert found["worst joint"] == found["by joint"]["right ear"] == pytest.approx(5)
    assert found["mean"] == pytest.approx(5 / len(arena.JOINTS))
