"""Named joints where they are used: `estimate` from Python, and the commands."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_cases import pictures, tiny
from PIL import Image
from video_files import encode

from ppl_fast.cli import main
from ppl_fast.commands.name import table
from ppl_fast.data import make_figures
from ppl_fast.inference import collect, estimate, write
from ppl_fast.inference.confidence import Calibration
from ppl_fast.inference.poses import Origins
from ppl_fast.inference.posing import Batch, Posing
from ppl_fast.naming import Labelled, Schedule, name_joints

QUICK = Schedule(steps=4, batch_size=4)
NAMES = ["nose", "tail", "paw"]


def labelled():
    joints = np.random.default_rng(1).uniform(-0.8, 0.8, (12, 3, 2))
    return Labelled(pictures(12), joints, np.ones((12, 3), bool), NAMES, [(0, 1)])


class TestEstimate:
    def test_named_joints_take_the_keypoints_place(self, tmp_path):
        model = tiny().eval()
        named = name_joints(model, labelled(), QUICK)
        images = pictures(3)
        poses = collect(estimate(model, images, joints=named))
        keypoints = model.estimate(images).double().numpy()
        assert np.allclose(poses.normalised, named(images, keypoints)) and poses.keypoints.shape == (3, 3, 2)
        schema = estimate(model, images, joints=named).schema
        assert schema.names == NAMES and schema.links.tolist() == [[0, 1]]
        write(estimate(model, images, joints=named), csv=tmp_path / "poses.csv")
        assert (tmp_path / "poses.csv").read_text().startswith("file,nose_x,nose_y,tail_x")

    def test_networks_see_what_the_last_round_filled_in(self):
        model = tiny().eval()
        named = replace(name_joints(model, labelled(), QUICK), shares=np.ones(3))
        images, visible = pictures(3), torch.zeros(3, 1, 32, 32, dtype=torch.bool)
        visible[..., :16] = True
        keypoints, filled = model.estimate_rounds(images, 2, visible)[-1]
        expected = named(filled, keypoints.double().numpy())
        assert not np.allclose(expected, named(images * visible, keypoints.double().numpy()), atol=1e-3)
        origins = Origins(names=["a", "b", "c"], sizes=np.full((3, 2), 32), frames=[None] * 3, times=[None] * 3)
        for confidence in (False, True):
            poses = Posing(model, 2, joints=named, confidence=confidence)(Batch(origins, images, visible))
            assert np.allclose(poses.normalised, expected, atol=1e-6)

    def test_confidence_is_that_of_the_keypoints_a_joint_is_made_of(self):
        model = tiny().eval()
        named = name_joints(model, labelled(), None)
        poses = collect(estimate(model, pictures(3), joints=named, confidence=True))
        plain = collect(estimate(model, pictures(3), confidence=True))
        assert np.allclose(poses.confidence, named.mixed(plain.confidence)) and poses.confidence.shape == (3, 3)
        assert np.allclose(named.mixed(np.full((2, 5), 0.3)), 0.3)

    def test_a_calibrated_joint_is_no_surer_than_it_was_right_where_it_was_left_out(self):
        """Keypoints are sure of themselves where joints do not follow from them."""
        model = tiny().eval()
        named = name_joints(model, labelled(), None)
        within, error = named.left_out
        of = list(named.report["joints"].values())
        assert within.tolist() == [each["within"] for each in of] and error.tolist() == [each["error"] for each in of]
        assert (within < 0.5).all() and (error > 0.1).all()  # labels by chance
        calibration = Calibration(
            names=["view"], usual=np.zeros((1, 5)), scale=np.ones((1, 5)), weights=np.ones(2), offsets=np.zeros(5),
            scores=np.array([0.0, 1.0]), errors=np.full(2, 0.03), likelihoods=np.full(2, 0.9), frames=20,
        )  # fmt: skip
        poses = collect(estimate(model, pictures(3), joints=named, confidence=calibration))
        assert np.allclose(poses.confidence, 0.9 * within)
        assert np.allclose(poses.expected_error, 32 * np.hypot(0.03, error))
        older = replace(named, report={})  # of before, and of joints that were never left out
        poses = collect(estimate(model, pictures(3), joints=older, confidence=calibration))
        assert np.allclose(poses.confidence, 0.9) and np.allclose(poses.expected_error, 32 * 0.03)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A saved model, and figures."""
    folder = tmp_path_factory.mktemp("named") / "run"
    tiny().save_pretrained(folder)
    figures = folder.with_name("figures")
    make_figures(figures, 8, size=32)
    return folder, figures


class TestCommand:
    @pytest.mark.slow
    def test_from_labels_to_a_table_of_joints(self, run, tmp_path, capsys):
        folder, figures = run
        few = tmp_path / "few"
        make_figures(few, 6, size=32, seed=5)
        options = ["--steps", "2", "--suggest", "3", "--of", str(figures), "--out", str(tmp_path / "next")]
        assert main(["name", str(folder), str(few), *options]) == 0
        printed = capsys.readouterr().out
        assert (
            "left_hand" in printed and "6 labelled images are few" in printed and "3 images worth labelling" in printed
        )
        assert len(list((tmp_path / "next" / "labeled-data" / "figures").glob("*.png"))) == 3
        assert main(["estimate", str(folder), str(figures), "--out", str(tmp_path / "poses.csv")]) == 0
        assert "8 poses of 15 joints" in capsys.readouterr().out
        assert main(["estimate", str(folder), str(figures), "--out", str(tmp_path / "raw.csv"), "--keypoints"]) == 0
        assert "8 poses of 5 keypoints" in capsys.readouterr().out
        assert main(["evaluate", str(folder), str(few), "--occlusion-images", "0"]) == 0
        printed = capsys.readouterr().out
        assert "named joints, as ppl-fast name has kept them" in printed
        assert "note: of images that named joints were learned from, their error is smaller" in printed
        measured = json.loads((folder / "evaluation.json").read_text())["named"]
        assert measured["per_joint"].keys() >= {"left_hand", "head"} and 0 < measured["value"] < 1

    def test_suggestions_leave_the_joints_that_are_by_these_labels(self, run, tmp_path, capsys):
        """Networks take minutes, and no labels have come since."""
        few, folder = tmp_path / "few", tmp_path / "run"
        make_figures(few, 6, size=32, seed=5)
        shutil.copytree(run[0], folder)
        begin = ["name", str(folder), str(few), "--steps", "2"]
        suggest = ["--suggest", "2", "--of", str(run[1]), "--out", str(tmp_path / "next"), "--network", "false"]
        assert main(begin) == 0 and "wrote" in capsys.readouterr().out
        before = (folder / "joints.safetensors").read_bytes()
        assert main([*begin, *suggest]) == 0 and "are by these labels, and stay" in capsys.readouterr().out
        assert (folder / "joints.safetensors").read_bytes() == before
        make_figures(tmp_path / "more", 7, size=32, seed=6)
        assert main(["name", str(folder), str(tmp_path / "more"), *suggest[:-2], "--steps", "1"]) == 0
        assert (folder / "joints.safetensors").read_bytes() != before

    def test_one_clip_tells_little_of_others(self):
        known = replace(labelled(), clips=["walk.mp4"] * 12)
        assert "all labels are of one clip" in table(name_joints(tiny().eval(), known, None).report)
        other = replace(known, clips=["walk.mp4"] * 11 + ["run.mp4"])
        assert "of one clip" not in table(name_joints(tiny().eval(), other, None).report)

    def test_says_where_joints_follow_the_animal_and_tell_nothing_of_its_pose(self, monkeypatch):
        """Keypoints at the animal's place alone, of a pose that turns: far better than the mean pose, and useless."""
        rng = np.random.default_rng(4)
        turn, place = rng.uniform(0, 2 * np.pi, (30, 1)), rng.uniform(-0.7, 0.7, (30, 1, 2))
        joints = place + np.stack([np.cos(turn), np.sin(turn)], axis=-1) * np.array([[-0.2], [0.0], [0.2]])
        monkeypatch.setattr("ppl_fast.naming.fitting.predict", lambda *_, **__: place + np.zeros((1, 5, 1)))
        report = name_joints(tiny(), Labelled(pictures(30), joints, np.ones((30, 3), bool), NAMES), None).report
        assert report["error"] < 0.5 * report["mean_pose"] and 0.06 < report["placed_mean_pose"] < 0.08
        assert "where it is, not how it stands. Where it is small" in table(report)
        assert "not how it stands. See in the run's boxes.png" in table(report, cropped=True)
        assert "not how it stands" not in table(report | {"error": 0.8 * report["placed_mean_pose"]})

    def test_errors_are_those_on_clips_that_nobody_labelled(self, monkeypatch):
        """Keypoints tell joints up to what is each clip's own, which frames of the same clip give away."""
        rng = np.random.default_rng(5)
        clips = np.repeat(np.arange(6), 5)
        own, joints = rng.normal(0, 0.3, (6, 3, 2))[clips], rng.normal(0, 0.1, (30, 3, 2))
        points = np.concatenate([joints + own, rng.normal(0, 1, (6, 2, 2))[clips]], axis=1)
        monkeypatch.setattr("ppl_fast.naming.fitting.predict", lambda *_, **__: points)
        labelled = Labelled(pictures(30), joints, np.ones((30, 3), bool), NAMES, clips=[str(clip) for clip in clips])
        found, mixed = (name_joints(tiny(), each, None).report for each in (labelled, replace(labelled, clips=())))
        assert "its fold of whole clips, of which there are 6" in table(found) and "clips" not in table(mixed)
        assert found["clips"] == 6 and mixed["clips"] is None and found["error"] > 1.1 * mixed["error"]

    @pytest.mark.parametrize("command", ["name", "calibrate", "train"])
    def test_where_nothing_can_be_written_no_work_is_done(self, run, tmp_path, command, monkeypatch, capsys):
        """Said before images are looked for, which here are none."""
        monkeypatch.setattr(os, "access", lambda *_: False)
        images = str(tmp_path / "nowhere")
        new = ["train", images, "--out", str(tmp_path / "a" / "new"), "--preset", "small"]
        assert main(new if command == "train" else [command, str(run[0]), images]) == 2
        place = tmp_path if command == "train" else run[0]
        assert f"output folder {place} is not writable" in capsys.readouterr().err
        assert not (tmp_path / "a").exists()

    def test_suggested_frames_lie_by_video(self, run, tmp_path, capsys):
        """As in labeled-data of a project: a frame without its video could not be found again."""
        pytest.importorskip("av", reason="videos need the video extra")
        for name, size in (
            ("walk.mp4", (48, 32)),
            ("run.mp4", (32, 48)),
            ("a/cam.mp4", (40, 32)),
            ("b/cam.mp4", (32, 40)),
        ):
            encode(tmp_path / "videos" / name, count=5, size=size)
        few = tmp_path / "few"
        make_figures(few, 4, size=32, seed=5)
        options = ["--network", "false", "--suggest", "18", "--of", tmp_path / "videos", "--out", tmp_path / "next"]
        assert main(["name", *map(str, (run[0], few, *options))]) == 0
        written = sorted(path.relative_to(tmp_path / "next").as_posix() for path in (tmp_path / "next").rglob("*.png"))
        assert len(written) > 4 and str(len(written)) + " images worth" in capsys.readouterr().out
        assert all(
            re.fullmatch(r"labeled-data/(walk|run|a_cam.mp4|b_cam.mp4)/\d{3}_00000[0-4].png", name) for name in written
        ), written
        assert {name.split("/")[1] for name in written} == {"walk", "run", "a_cam.mp4", "b_cam.mp4"}

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--steps", "0"], "--steps must be at least 1, got 0"),
            (["--suggest", "2"], "--suggest needs --of IMAGES, to choose from, and --out DIR, to write to"),
        ],
    )
    def test_wrong_options_are_one_sentence(self, run, options, sentence, capsys):
        assert main(["name", *map(str, run), *options]) == 2
        assert capsys.readouterr().err == f"ppl-fast: error: {sentence}\n"

    def test_images_without_labels(self, run, tmp_path, capsys):
        (tmp_path / "bare").mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / "bare" / "a.png")
        assert main(["name", str(run[0]), str(tmp_path / "bare")]) == 2
        assert "expected labels" in capsys.readouterr().err
