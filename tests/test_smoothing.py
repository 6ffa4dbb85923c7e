"""Smooth tracks: against a truth that is known, and through the files."""

import csv
import json

import numpy as np
import pytest

pytest.importorskip("PIL", reason="images need the data extra")
pytest.importorskip("scipy", reason="smoothing needs the data extra")

from inference_cases import KEYPOINTS, Finder, S

from ppl_fast.data import from_pixels, load_labels
from ppl_fast.inference import collect, estimate, write
from ppl_fast.inference.smoothing import smooth

N = 400
TIMES = np.arange(N) / 25


def track(seed=0):
    """A truth (n, 3, 2), what was estimated of it, and how far that is expected to be off."""
    rng = np.random.default_rng(seed)
    phase = np.arange(3)
    x = 30 * np.sin(1.2 * TIMES[:, None] + phase) + 10 * np.sin(4 * TIMES[:, None])
    truth = np.stack([x, 20 * np.cos(2 * TIMES[:, None] + phase)], axis=2) + 100
    error = rng.uniform(0.5, 4, (N, 3))
    return truth, truth + rng.normal(size=truth.shape) * error[..., None], error


def rms(difference):
    return np.sqrt(np.square(difference).mean())


def test_a_track_comes_near_the_truth_and_weights_help():
    truth, found, error = track()
    weighted, filled = smooth(TIMES, found, 1 / error, error)
    assert not filled.any()
    even, _ = smooth(TIMES, found, np.ones_like(error))
    assert rms(weighted - truth) < 0.3 * rms(found - truth) and rms(weighted - truth) < 0.85 * rms(even - truth)
    by_confidence, _ = smooth(TIMES, found, 0.5 / error)  # without a calibration
    np.testing.assert_allclose(by_confidence, weighted)


def test_nothing_is_delayed_or_flattened():
    truth, found, _ = track()
    clean, _ = smooth(TIMES, truth, np.ones((N, 3)))
    assert np.abs(clean - truth).max() < 1e-2
    still = np.full((N, 3, 2), 7.0)
    np.testing.assert_allclose(smooth(TIMES, still, np.ones((N, 3)))[0], still)
    smoothed = smooth(TIMES, found, np.ones((N, 3)))[0]
    shifts = [rms(np.roll(smoothed, shift, axis=0)[20:-20] - truth[20:-20]) for shift in range(-5, 6)]
    assert int(np.argmin(shifts)) == 5


def test_uneven_times():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.02, 0.06, N))
    truth = np.stack([30 * np.sin(2 * times), 20 * np.cos(times)], axis=1)[:, None]
    found = truth + rng.normal(size=truth.shape)
    assert rms(smooth(times, found, np.ones((N, 1)))[0] - truth) < 0.45
    still = np.where(np.arange(N) < 50, 1.0, times)  # a clock that stands: frames are counted instead
    assert rms(smooth(still, found, np.ones((N, 1)))[0] - truth) < 0.55


def test_gaps_by_a_clock_that_stands():
    _, found, error = track()
    sure = 1 / error
    sure[100:110, 0] = sure[200:240, 1] = 0.01
    for times, count in ((np.maximum(TIMES, 1), 10), (np.zeros(N), 0), (np.full(N, np.nan), 0)):
        filled = smooth(times, found, sure, error)[1]
        assert filled[100:110, 0].sum() == count == filled.sum()


def test_gaps_are_filled_and_marked():
    truth, found, error = track()
    sure = 1 / error
    gap = np.zeros((N, 3), bool)
    gap[100:110, 0] = gap[200:203, 1] = True
    for lost in (np.where(gap[..., None], found + 300, found), np.where(gap[..., None], np.nan, found)):
        kept, filled = smooth(TIMES, lost, np.where(gap, 0.01, sure), np.where(gap, 100, error))
        np.testing.assert_array_equal(filled, gap)
        assert rms((kept - truth)[gap]) < 1.5 and np.abs((kept - truth)[~gap]).max() < 4


def test_long_gaps_and_ends_stay_as_they_are():
    _, found, error = track()
    sure = 1 / error
    gap = np.zeros((N, 3), bool)
    gap[100:113, 0] = gap[:4, 1] = gap[-2:, 1] = True  # 12 frames are half a second
    sure[gap] = 0.01
    kept, filled = smooth(TIMES, found, sure, error)
    assert not filled.any()
    np.testing.assert_array_equal(kept[gap], found[gap])
    assert (kept[~gap] != found[~gap]).all()
    _, filled = smooth(TIMES, found, sure, error, longest_gap=1)
    np.testing.assert_array_equal(np.flatnonzero(filled[:, 0]), np.arange(100, 113))


@pytest.mark.parametrize("n", [0, 1, 4, 5, 9, 12])
def test_short_videos(n):
    _, found, error = track()
    kept, filled = smooth(TIMES[:n], found[:n], 1 / error[:n], error[:n])
    assert kept.shape == (n, 3, 2) and np.isfinite(kept).all() and not filled.any()
    assert (n < 5) == np.array_equal(kept, found[:n])


def test_a_keypoint_that_is_never_there_stays_missing():
    _, found, error = track()
    found[:, 1] = np.nan
    kept, filled = smooth(TIMES, found, 1 / error, error)
    assert np.isnan(kept[:, 1]).all() and np.isfinite(kept[:, [0, 2]]).all() and not filled.any()


class Blinking(Finder):
    """Is not sure of the middle frame of seven, where the first keypoint is far off."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def estimate_rounds(self, images, iterations=1, visible=None):
        keypoints = self.estimate(images)
        rows = range(self.count, self.count + len(images))
        self.count += len(images)
        self.off = np.array([[i == 3, False, False] for i in rows])
        keypoints[:, 0, 0] += torch_like(keypoints, self.off[:, 0] * 0.4)
        return [(keypoints, images)]

    def evidence(self, images, keypoints):
        return {"spread": torch_like(keypoints, self.off * 0.8)}


def torch_like(tensor, values):
    return tensor.new_tensor(np.asarray(values, dtype=np.float64))


@pytest.mark.parametrize("batch_size", [2, 100])
def test_a_video_through_the_files(clips, tmp_path, batch_size):
    pytest.importorskip("matplotlib", reason="overlays need the viz extra")
    from ppl_fast.data.video import Video

    video = clips / "clip3.mp4"
    plain, raw = collect(estimate(Blinking(), video, confidence=True)), collect(estimate(Finder(), video))
    found = collect(estimate(Blinking(), video, smooth=True, batch_size=batch_size))
    expected, filled = smooth(np.array(plain.times), plain.keypoints, plain.confidence)
    assert np.argwhere(filled).tolist() == [[3, 0]]
    np.testing.assert_array_equal(found.filled, filled)
    np.testing.assert_allclose(found.keypoints, expected)
    np.testing.assert_allclose(found.normalised, from_pixels(expected, S, plain.sizes))
    assert np.abs(found.keypoints - raw.keypoints)[3, 0, 0] < np.abs(plain.keypoints - raw.keypoints)[3, 0, 0] / 4
    assert (found.names, found.frames, found.times) == (plain.names, plain.frames, plain.times)

    outputs = {kind: tmp_path / name for kind, name in (("csv", "p.csv"), ("coco", "p.json"), ("npz", "p.npz"))}
    drawn = tmp_path / "o.mp4"
    assert write(estimate(Blinking(), video, smooth=True, batch_size=batch_size), **outputs, overlay=drawn) == 7
    header, *rows = csv.reader(outputs["csv"].open())
    assert header[3:7] == [f"keypoint_00_{what}" for what in ("x", "y", "confidence", "filled")]
    assert [float(row[6]) for row in rows] == [0, 0, 0, 1, 0, 0, 0]
    annotations = json.loads(outputs["coco"].read_text())["annotations"]
    assert [each["keypoints"][2] for each in annotations] == [2, 2, 2, 1, 2, 2, 2]
    assert load_labels(outputs["coco"]).visible.all()
    with np.load(outputs["npz"]) as saved:
        np.testing.assert_array_equal(saved["filled"], filled)
    write(estimate(Blinking(), video, batch_size=batch_size), overlay=tmp_path / "plain.mp4")
    same = [
        np.abs(np.asarray(one.image, int) - np.asarray(other.image)).mean()
        for one, other in zip(Video(drawn).frames(), Video(tmp_path / "plain.mp4").frames(), strict=True)
    ]
    assert max(same) < 12  # the same pictures, under poses that differ a little


def test_pictures_are_decoded_when_asked_for(clips, monkeypatch):
    from ppl_fast.data.video import Video

    opened, frames = [], Video.frames
    originals = [np.asarray(frame.image) for frame in Video(clips / "clip3.mp4").frames()]
    monkeypatch.setattr(Video, "frames", lambda self, **how: (opened.append(self), frames(self, **how))[1])
    batches = list(estimate(Blinking(), clips / "clip3.mp4", smooth=True, batch_size=3))
    assert [len(poses) for poses in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.asarray(batches[1].image(2)), originals[5])
    np.testing.assert_array_equal(np.asarray(batches[1].image(0)), originals[3])
    np.testing.assert_array_equal(np.asarray(batches[2].image(0)), originals[6])
    with pytest.raises(ValueError, match="batch by batch, in order"):
        batches[0].image(0)
    assert [len(poses.durations) for poses in batches] == [3, 3, 1]


def test_images_beside_videos_are_left_alone(clips):
    found = list(estimate(Steady(), clips, smooth=True, batch_size=4))
    plain = list(estimate(Steady(), clips, confidence=True, batch_size=4))
    for poses, before in zip(found, plain, strict=True):
        assert poses.filled.shape == (len(poses), KEYPOINTS) and not poses.filled.any()
        assert np.array_equal(poses.keypoints, before.keypoints) == (poses.video is None)


class Steady(Finder):
    def estimate_rounds(self, images, iterations=1, visible=None):
        return [(self.estimate(images), images)]

    def evidence(self, images, keypoints):
        return {}


def test_the_command(clips, tmp_path, capsys):
    pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
    pytest.importorskip("accelerate", reason="training needs the train extra")
    from tiny import draw_images, run_steps

    from ppl_fast.cli import main
    from ppl_fast.training import load_model

    run, video = tmp_path / "run", clips / "clip3.mp4"
    run_steps(draw_images(tmp_path / "images"), run, 2)
    assert (
        main(["estimate", str(run), str(video), "--out", str(tmp_path / "p.npz"), "--format", "npz", "--smooth"]) == 0
    )
    expected = collect(estimate(load_model(run), video, smooth=True))
    with np.load(tmp_path / "p.npz") as saved:
        np.testing.assert_allclose(saved["keypoints"], expected.keypoints, atol=1e-3)
        np.testing.assert_array_equal(saved["filled"], expected.filled)
