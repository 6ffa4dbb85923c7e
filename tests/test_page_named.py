"""Named joints and their confidence on the page: what it holds, and in a headless Chromium every control of them."""

import copy
import shutil

import numpy as np
import pytest
from page_cases import MARKS, attribute, choose, count, dots, finished_run, text, texts

pytest.importorskip("scipy", reason="fitting joints needs scipy")

from ppl_fast.cli import main
from ppl_fast.inference import collect as collected
from ppl_fast.inference import estimate
from ppl_fast.models import KeypointModel
from ppl_fast.naming import Labelled, NamedJoints, load_joints, name_joints
from ppl_fast.page import collect
from ppl_fast.training import load_model

pytest_plugins = ["page_browser"]
NAMES = ["nose", "tail <b>", "paw"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """A run whose joints are means of its keypoints, with two bones."""
    out = finished_run(tmp_path_factory.mktemp("runs") / "named", images)
    model = load_model(out).eval()
    pictures = np.random.default_rng(0).random((12, 3, 32, 32), np.float32) * 2 - 1
    import torch

    pictures = torch.from_numpy(pictures)
    found = model.estimate(pictures).double().numpy()
    joints = np.stack([found[:, 2 * i : 2 * i + 2].mean(axis=1) for i in range(3)], axis=1)
    labelled = Labelled(pictures, joints, np.ones((12, 3), bool), NAMES, [(0, 1), (1, 2)])
    name_joints(model, labelled, None).save(out / "model")
    return out


@pytest.fixture(scope="module")
def data(run, clips):
    return collect(run, clips, frames=13).data


def test_the_page_holds_what_estimate_gives(run, images):
    data = collect(run, images).data
    model = load_model(run).eval()
    named = load_joints(run / "model", model)
    expected = collected(estimate(model, images, joints=named, confidence=True))
    keypoints = collected(estimate(model, images, confidence=True))
    shown = data["poses"]["pictures"]
    assert data["joints"]["names"] == NAMES and data["joints"]["links"] == [[0, 1], [1, 2]]
    assert [measure["key"] for measure in data["poses"]["measures"]] == ["confidence", "memory"]
    assert "Not calibrated" in data["poses"]["measures"][0]["about"]
    np.testing.assert_allclose([p["joints"]["points"] for p in shown], expected.keypoints, atol=0.01)
    np.testing.assert_allclose([p["points"] for p in shown], keypoints.keypoints, atol=0.01)
    sure = [p["joints"]["measures"]["confidence"] for p in shown]
    np.testing.assert_allclose(sure, expected.confidence, atol=1e-4)
    np.testing.assert_allclose([p["measures"]["confidence"] for p in shown], keypoints.confidence, atol=1e-4)


def test_keypoints_that_are_joints_bear_their_names(run, tmp_path):
    """In the prior and the memory as in poses; the joints that were learned from keypoints are none of these."""
    assert collect(run).data["names"] is None
    shutil.copytree(run, tmp_path / "trained")
    NamedJoints.first(NAMES, [(0, 1)], 6).save(tmp_path / "trained/model")
    found = collect(tmp_path / "trained").data
    assert found["names"] == found["joints"]["names"] == NAMES and len(found["colours"]) == 6


def test_what_shows_nothing_is_left_out_of_named_poses_too(run, images, tmp_path):
    from PIL import Image

    from ppl_fast.options.footage import Framing

    first = sorted(path.name for path in images.iterdir() if path.suffix == ".png")[0]
    width, height = Image.open(images / first).size
    (tmp_path / "boxes.csv").write_text(f"file,x,y,width,height\n{first},0,0,{width},{height}\n")
    shown = collect(run, images, framing=Framing(crop=str(tmp_path / "boxes.csv"))).data["poses"]["pictures"]
    assert [picture["name"] for picture in shown] == [first]


def gone(page, part):
    return page.value(f"getComputedStyle(document.getElementById('{part}')).display === 'none'")


class TestControls:
    pytestmark = MARKS

    def test_joints_come_first_with_their_names(self, page, data):
        first = data["poses"]["pictures"][0]["joints"]
        np.testing.assert_allclose(dots(page, "picture"), first["points"], atol=1e-3)
        assert texts(page, "#picture .keypoint title") == [f"{i}: {name}" for i, name in enumerate(NAMES)]
        assert count(page, "#picture .pose line") == 2
        sure = first["measures"]["confidence"]
        expected = [f"{i} {name} {sure[i]:.2f}" for i, name in enumerate(NAMES)]
        assert texts(page, "#joints button") == expected
        assert texts(page, "#points thead th") == ["joint", "x", "y", "confidence"]
        assert "3 named joints from 6 keypoints" in text(page, "facts")

    def test_keypoints_instead(self, page, data):
        choose(page, "shown-parts", "key")
        first = data["poses"]["pictures"][0]
        np.testing.assert_allclose(dots(page, "picture"), first["points"], atol=1e-3)
        assert gone(page, "joints-control") and not gone(page, "recalled-control")
        assert texts(page, "#points tbody tr:last-child td:last-child") == [f"{first['measures']['confidence'][5]:.4f}"]
        page.click("#recalled")
        assert count(page, "#picture .dashed") == 1
        choose(page, "shown-parts", "named")
        assert len(dots(page, "picture")) == 3 and count(page, "#picture .dashed") == 0
        assert gone(page, "recalled-control") and not gone(page, "joints-control")

    def test_the_track_is_below_the_picture_and_a_click_jumps(self, page, data):
        places = "['picture', 'track'].map(id => document.getElementById(id).getBoundingClientRect())"
        above, below = page.value(f"{places}.map(b => [b.top, b.bottom])")
        assert below[0] >= above[1]
        page.click("#track", across=0.7)
        here = [picture for picture in data["poses"]["pictures"] if picture["clip"] == 0]
        assert text(page, "frame-value") == "5 of 7"
        mean = np.mean(here[4]["joints"]["measures"]["confidence"])
        assert f"confidence {mean:.4f}" in text(page, "picture-caption")

    def test_the_least_certain_come_first(self, page, data):
        order = sorted(data["poses"]["pictures"], key=lambda p: np.mean(p["joints"]["measures"]["confidence"]))
        assert text(page, "least-title") == "Least certain first"
        assert texts(page, "#least b") == [f"{np.mean(p['joints']['measures']['confidence']):.4f}" for p in order[:12]]
        page.click("#least li:nth-child(2) button")
        np.testing.assert_allclose(dots(page, "picture"), order[1]["joints"]["points"], atol=1e-3)

    def test_one_joint_is_picked_out_in_picture_track_and_list(self, page, data):
        page.focus("#joints li:nth-child(2) button")
        page.press("Enter")
        assert attribute(page, "#joints li:nth-child(2) button", "aria-pressed") == "true"
        assert count(page, "#picture .keypoint.faded") == 2 and count(page, "#picture line.faded") == 0
        assert "Confidence of tail <b>, up to" in text(page, "track-caption")
        alone = sorted(p["joints"]["measures"]["confidence"][1] for p in data["poses"]["pictures"])
        assert texts(page, "#least b") == [f"{value:.4f}" for value in alone[:12]]
        page.press("Enter")
        assert count(page, "#picture .faded") == 0 and "Confidence, up to" in text(page, "track-caption")

    def test_the_distance_to_the_memory_is_the_keypoints(self, page, data):
        choose(page, "measure", "Dist")
        assert text(page, "least-title") == "Least plausible first"
        first = np.mean(data["poses"]["pictures"][0]["measures"]["memory"])
        assert f"distance to the memory {first:.4f}" in text(page, "picture-caption")
        assert texts(page, "#points thead th") == ["joint", "x", "y"]

    def test_one_joint_that_is_not_known_is_not_drawn(self, show, data):
        some = copy.deepcopy(data)
        some["poses"]["pictures"][0]["joints"]["points"][1] = [None, None]
        page = show(some)
        assert len(dots(page, "picture")) == 2 and count(page, "#picture .pose line") == 0

    @pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (360, "light")])
    def test_it_fits_the_window(self, show, data, width, scheme):
        page = show(data, width=width, scheme=scheme)
        assert page.value("document.documentElement.scrollWidth") <= width


def test_the_command_reads_the_model_once(run, tmp_path, monkeypatch):
    read, original = [], KeypointModel.from_pretrained.__func__

    def counted(cls, directory, **options):
        read.append(directory)
        return original(cls, directory, **options)

    monkeypatch.setattr(KeypointModel, "from_pretrained", classmethod(counted))
    assert main(["view", str(run), "--out", str(tmp_path / "page.html"), "--device", "cpu"]) == 0
    assert len(read) == 1 and "nose" in (tmp_path / "page.html").read_text()
