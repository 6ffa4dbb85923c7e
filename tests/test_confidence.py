"""Confidence: what models tell, what labels make of it, and how it reaches the files."""

import csv
import json
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")

from ppl_fast import PPL, AutoLink
from ppl_fast.evaluation._calibration import fit, measure, surer_half
from ppl_fast.inference import Calibration, collect, estimate, load_calibration
from ppl_fast.inference.confidence import UNIFORM, features, gather, in_pixels, uncalibrated
from ppl_fast.models import KeypointModel
from ppl_fast.models.checkpoint import CALIBRATION, digest_of_weights
from ppl_fast.models.regressor import concentration

SMALL = {"num_keypoints": 4, "image_size": 32, "translator": "light", "translator_base": 4, "translator_levels": 3}


def ppl():
    memory = {"memory_banks": 4, "memory_width": 16, "memory_hidden": 16, "memory_layers": 1}
    return PPL(**SMALL, **memory, regressor_base=4).eval()


def autolink():
    return AutoLink(**SMALL, detector_size=32, detector_base=4).eval()


class Bright(KeypointModel):
    """Two keypoints, where it is bright."""

    def __init__(self):
        super().__init__(num_keypoints=2, image_size=32)

    def estimate(self, images, iterations=1, visible=None):
        light = (images.mean(dim=1) + 1).flatten(1)
        at = torch.linspace(-1, 1, 32)
        return (light / light.sum(dim=1, keepdim=True) @ torch.cartesian_prod(at, at).flip(1))[:, None].expand(
            -1, 2, -1
        )


@pytest.mark.parametrize("model", [ppl, autolink])
@pytest.mark.parametrize("iterations", [1, 2])
def test_gathering_changes_no_keypoint(model, iterations):
    model, images = model(), torch.rand(3, 3, 32, 32) * 2 - 1
    iterations = iterations if model.iterative else 1
    visible = torch.rand(3, 1, 32, 32) > 0.5
    for given in (None, visible):
        keypoints, evidence = gather(model, images, iterations, given)
        assert torch.equal(keypoints, model.estimate(images, iterations, given))
        assert all(each.shape == (3, 4) and each.dtype == np.float64 for each in evidence.values())
        assert {*evidence} == {"spread", "flatness", "view", "rounds"} | ({"recall"} if model.iterative else set())
        assert (evidence["rounds"] > 0).any() == (iterations > 1)
    assert not model.training and KeypointModel.evidence(model, images, keypoints) == {}


def test_the_evidence_of_ppl():
    model, images = ppl(), torch.rand(2, 3, 32, 32)
    keypoints = model.estimate(images)
    found, attention = model.evidence(images, keypoints), model.regressor.attention(images)
    torch.testing.assert_close(attention.sum(dim=(2, 3)), torch.ones(2, 4))
    torch.testing.assert_close(found["flatness"], -attention.amax(dim=(2, 3)).log())
    torch.testing.assert_close(found["recall"], (model.memory(keypoints)[0] - keypoints).norm(dim=2))
    detected = autolink()
    torch.testing.assert_close(
        detected.evidence(images, keypoints)["flatness"], -detected.detect(images)[1].amax(dim=(2, 3)).log()
    )


def test_concentration():
    maps = torch.zeros(1, 3, 64, 64)
    maps[0, 0, 10, 20] = 1  # one cell
    maps[0, 1, 5, 0] = maps[0, 1, 5, 63] = 0.5  # the ends of a row, at -1 and +1
    maps[0, 2] = 1 / 64**2
    spread, flatness = (concentration(maps)[name][0] for name in ("spread", "flatness"))
    torch.testing.assert_close(spread, torch.tensor([0, 1, UNIFORM * (65 / 63) ** 0.5]), atol=1e-3, rtol=0)
    torch.testing.assert_close(flatness, torch.tensor([1, 0.5, 1 / 64**2]).log().neg())


def test_a_keypoint_that_moves_with_the_image_agrees_with_its_view():
    images = torch.full((2, 3, 32, 32), -1.0)
    images[0, :, 10:13, 12:15] = 1  # moves with its place
    images[1, :, :, 30:] = 1  # leaves the image
    view = gather(Bright(), images)[1]["view"][:, 0]
    assert view[0] < 1e-6 < 0.01 < view[1]


def test_uncalibrated_scores():
    evidence = {name: np.array([[0.0, 0.1]]) for name in ("view", "rounds", "recall")}
    np.testing.assert_allclose(uncalibrated(evidence), [[1, np.exp(-3)]])
    wide = {**evidence, "spread": np.array([[UNIFORM / 2, 2]])}
    np.testing.assert_allclose(uncalibrated(wide), [[0.5, 0]])


def simulated(seed, n=400, keypoints=5):
    """Errors whose size the evidence tells, in units of its own for each keypoint, and evidence that tells nothing."""
    rng = np.random.default_rng(seed)
    found = {}
    for kind, level in (("whole", 0.02), ("hidden", 0.08)):
        sigma = level * np.exp(0.5 * rng.normal(size=(n, keypoints)))
        errors = np.linalg.norm(rng.normal(size=(n, keypoints, 2)) * sigma[..., None], axis=2)
        own = np.arange(1, keypoints + 1)
        telling = own * np.log(sigma) + 10 * own
        found[kind] = {"telling": telling, "idle": rng.normal(size=(n, keypoints))}, errors
    return found


def test_a_calibration_tells_errors():
    calibration = fit(simulated(0))
    assert calibration.weights[0] > 5 * calibration.weights[[1, 3]].max()
    for kind, (evidence, errors) in simulated(1).items():
        likelihood, expected = calibration.judge(evidence)
        order = expected.ravel().argsort()
        for part in np.array_split(order, 4):  # right not only on average
            assert expected.ravel()[part].mean() == pytest.approx(errors.ravel()[part].mean(), rel=0.15), kind
            assert likelihood.ravel()[part].mean() == pytest.approx((errors.ravel()[part] < 0.05).mean(), abs=0.08)
        found = measure(calibration, {kind: (evidence, errors)})[kind]
        assert found["sure"] < 0.65 * found["rest"]
        assert (found["sure"] + found["rest"]) / 2 == pytest.approx(found["error"])
    evidence = simulated(1)["whole"][0]
    worse = {"telling": evidence["telling"] + 1, "idle": evidence["idle"]}
    assert (calibration.judge(worse)[1] >= calibration.judge(evidence)[1]).all()
    assert (calibration.judge(worse)[0] <= calibration.judge(evidence)[0]).all()
    sizes = np.full((400, 2), (60, 80))
    errors = calibration.judge(evidence)[1]
    np.testing.assert_allclose(in_pixels(errors, sizes), errors * 50 * 2**0.5)


def test_the_surer_half():
    assert surer_half(np.array([[3, 1], [2, 0]]), np.array([[1.0, 5.0], [2.0, 6.0]])) == (1.5, 5.5)


def test_features_are_distances_from_the_usual():
    evidence = {"a": np.array([[1.0, 4.0], [3.0, 4.0]])}
    found = features(evidence, ["a"], np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]]))
    np.testing.assert_array_equal(found, [[[0, 1], [2, 1]], [[1, 1.5], [2, 1.5]]])
    with pytest.raises(ValueError, match="evidence must have b, got none of the kind b"):
        features(evidence, ["b"], np.zeros((1, 2)), np.ones((1, 2)))


@pytest.fixture
def saved(tmp_path):
    """A calibration of five keypoints beside weights."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    assert load_calibration(tmp_path, 5) is None
    fitted = fit(simulated(0), {"whole": {"error": 0.1}})
    Calibration(**{**vars(fitted), "model": digest_of_weights(tmp_path)}).save(tmp_path / CALIBRATION)
    return tmp_path


def test_a_calibration_is_kept(saved):
    read, fitted = load_calibration(saved, 5), fit(simulated(0))
    evidence = simulated(1)["hidden"][0]
    np.testing.assert_array_equal(read.judge(evidence), fitted.judge(evidence))
    assert read.held_out == {"whole": {"error": 0.1}} and read.frames == 400


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "it is of another format"),
        ({"within": 0.1}, "it is of another format"),
        ({"errors": [2, 1]}, "errors must be finite numbers of shape"),
        ({"weights": [-1, 0, 0, 0]}, "weights not negative"),
        ({"offsets": [0.0, float("nan"), 0, 0, 0]}, "offsets must be finite numbers"),
        ({"scale": "text"}, "could not convert string to float"),
        ({"names": None}, "is damaged"),
        ({"model": "other"}, "is of other weights than those beside it"),
    ],
)
def test_damaged_calibrations_are_refused(saved, change, sentence):
    data = json.loads((saved / CALIBRATION).read_text())
    (saved / CALIBRATION).write_text(json.dumps(data | change))
    with pytest.raises(ValueError, match=f"calibration .*{sentence}.*make it anew by ppl-fast calibrate"):
        load_calibration(saved, 5)


def test_a_calibration_of_no_weights_in_particular(saved):
    """As `calibrate` gives it in Python."""
    fit(simulated(0)).save(saved / CALIBRATION)
    assert load_calibration(str(saved), 5).model == ""


def test_calibrations_of_other_models_are_refused(saved):
    with pytest.raises(ValueError, match="it has 5 keypoints, the model 4"):
        load_calibration(saved, 4)
    (saved / CALIBRATION).write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        load_calibration(saved, 5)


def test_confidence_is_a_bool_or_a_calibration():
    with pytest.raises(TypeError, match="confidence must be a bool or a Calibration, got str"):
        estimate(Bright(), torch.zeros(1, 3, 32, 32), confidence="confidence.json")


def test_frames_are_told_apart_by_their_mean():
    from confidence import above

    assert above(np.array([[0.5, 0.7], [0.1, 0.1]]), np.array([[0.2, 0.2], [0.6, 0.6]])) == (1 + 0.5) / 4


@pytest.mark.slow
def test_the_commands(tmp_path, capsys, monkeypatch):
    pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
    pytest.importorskip("accelerate", reason="training needs the train extra")
    pytest.importorskip("scipy", reason="calibration needs the data extra")
    from tiny import fails, run_steps

    from ppl_fast.cli import main
    from ppl_fast.data import load_labels, make_figures
    from ppl_fast.models import optimize
    from ppl_fast.training import load_model

    images, run = tmp_path / "figures", tmp_path / "run"
    make_figures(images, 24, size=32)
    run_steps(images, run, 2)
    start = ["estimate", str(run), str(images), "--out", str(tmp_path / "p.csv")]

    def cells():
        return np.array([row[1:] for row in csv.reader((tmp_path / "p.csv").open())][1:], float)

    capsys.readouterr()
    assert main([*start, "--format", "dlc"]) == 0
    assert "confidence is not calibrated" in capsys.readouterr().out
    rows = [*csv.reader((tmp_path / "p.csv").open())][3:]
    model = optimize(load_model(run))  # as the command does, whose rounding is another
    expected = collect(estimate(model, images, confidence=True))
    np.testing.assert_allclose(np.array([row[3::3] for row in rows], float), expected.confidence, rtol=1e-5)
    assert expected.expected_error is None and ((expected.confidence >= 0) & (expected.confidence <= 1)).all()
    assert main(start) == 0 and cells().shape == (24, 12)  # CSV has none unless it is asked for

    assert main(["calibrate", str(run), str(images)]) == 0
    said = capsys.readouterr().out
    assert "of 24 labelled images" in said and "half hidden, told: error" in said
    calibration = load_calibration(run / "model", 6)
    assert calibration.frames == 24 and {*calibration.held_out} == {"whole", "told", "hidden"}
    assert main([*start, "--confidence", "true"]) == 0
    assert "not calibrated" not in capsys.readouterr().out
    found = collect(estimate(model, images, confidence=calibration))
    values = np.stack([*found.keypoints.transpose(2, 0, 1), found.confidence, found.expected_error], axis=2)
    np.testing.assert_allclose(cells().reshape(24, 6, 4), values, atol=2e-3)
    assert 0 < found.expected_error.mean() < 32

    import confidence as benchmark

    monkeypatch.setattr(
        sys, "argv", ["confidence", *map(str, (run, images, images)), "--out", str(tmp_path / "c.json")]
    )
    benchmark.main()
    measured, said = json.loads((tmp_path / "c.json").read_text()), capsys.readouterr().out
    assert measured["frames"] == [24, 24] and 0 <= measured["without"]["calibrated"] <= 1
    assert f"| whole | {measured['whole']['error']:.4f} | " in said and "without the subject: less likely" in said

    load_labels(images).select(range(19)).save(tmp_path / "few.npz")
    few = fails(capsys, "calibrate", run, images, "--labels", tmp_path / "few.npz")
    assert "labels must be of at least 20 images, got 19" in few
    run_steps(images, run, 4, resume=True)
    assert "of other weights" in fails(capsys, *start, "--confidence", "true")
