"""What a model sees of an image: squashed, padded or cropped; and coordinates of the original that come back."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from properties import given, st
from tiny import draw_images, run_steps

from ppl_fast.cli import main
from ppl_fast.data import ImageFolder, Labels, from_pixels, open_set
from ppl_fast.data.boxes import GREY, seen, whole
from ppl_fast.data.coordinates import from_view, to_view
from ppl_fast.data.framing import views_of
from ppl_fast.inference import collect, estimate
from ppl_fast.options.footage import Framing
from ppl_fast.training import load_framing

SIDES = st.integers(8, 4000)


@given(
    size=st.tuples(SIDES, SIDES),
    side=st.integers(8, 512),
    fit=st.sampled_from(["pad", "crop"]),
    seed=st.integers(0, 99),
)
def test_coordinates_of_the_original_come_back(size, side, fit, seed):
    points = np.random.default_rng(seed).uniform(-10, 4010, (3, 5, 2))
    box = whole(size, fit)
    np.testing.assert_allclose(from_view(to_view(points, side, box), side, box), points, rtol=0, atol=1e-8)
    edges = to_view(np.array([[-0.5, -0.5], [size[0] - 0.5, size[1] - 0.5]]), side, box)  # outer corners
    outer = 1 + 1 / (side - 1)
    assert (np.abs(edges) <= outer + 1e-9).all() if fit == "pad" else (np.abs(edges) >= outer - 1e-9).all()


@given(
    centre=st.tuples(st.floats(-50, 500), st.floats(-50, 500)),
    sides=st.tuples(st.floats(1, 900), st.floats(1, 900)),
    angle=st.floats(-7, 7),
    side=st.integers(8, 256),
)
def test_coordinates_of_any_box_come_back(centre, sides, angle, side):
    box = np.array([*centre, *sides, angle])
    points = np.random.default_rng(0).uniform(0, 500, (4, 2))
    np.testing.assert_allclose(from_view(to_view(points, side, box), side, box), points, rtol=0, atol=1e-6)
    np.testing.assert_allclose(from_view(np.zeros((1, 2)), side, box)[0], np.array(centre) - 0.5, atol=1e-9)


def test_a_box_of_the_whole_image_is_the_image():
    """Where nothing is cut, both ways to coordinates agree."""
    points = np.random.default_rng(0).uniform(0, 60, (4, 2))
    box = np.array([32, 24, 64, 48, 0.0])
    np.testing.assert_allclose(to_view(points, 16, box), from_pixels(points, 16, (64, 48)), atol=1e-12)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))
    assert torch.equal(seen(image, box, 16), seen(image, None, 16))


SPOT = (40, 11)  # the bright patch of an image, by the outer corner of its first pixel


def spotted(size=(64, 24)) -> Image.Image:
    image = Image.new("RGB", size, (60, 60, 60))
    image.paste((250, 250, 250), (SPOT[0], SPOT[1], SPOT[0] + 4, SPOT[1] + 4))
    return image


@pytest.mark.parametrize(
    "box",
    [
        whole((64, 24), "pad"),
        whole((64, 24), "crop"),
        np.array([40, 12, 30, 30, 0.0]),
        np.array([40, 12, 30, 30, np.pi / 2]),
        np.array([42, 10, 26, 26, 0.7]),
        np.array([44, 14, 20, 40, -2.0]),
        np.array([41, 12, 12, 12, 0.3]),
    ],
)
@pytest.mark.parametrize("side", [32, 96])
def test_pixels_are_where_coordinates_say(box, side):
    """The bright patch lies in the view where its centre is mapped to."""
    pixels = seen(spotted(), box, side).float()[0].numpy()
    weight = (pixels - 60).clip(100) - 100
    y, x = np.mgrid[:side, :side]
    found = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    expected = to_view(np.array([[SPOT[0] + 1.5, SPOT[1] + 1.5]]), side, box)[0]
    np.testing.assert_allclose(found, (expected + 1) / 2 * (side - 1), atol=0.35)


def test_outside_is_grey_as_hidden_pixels_are():
    padded = seen(spotted(), whole((64, 24), "pad"), 64)
    assert (padded[:, :20] == GREY[0]).all() and (padded[:, 44:] == GREY[0]).all()
    assert padded[0, 31, 41] == 250 and padded[0, 25, 5] == 60
    assert (seen(spotted(), np.full(5, np.nan), 16) == GREY[0]).all()
    assert (seen(spotted(), np.array([500, 12, 20, 20, 0.4]), 16) == GREY[0]).all()


@pytest.mark.parametrize("box", [[0, 0, 0, 5, 0], [0, 0, 5, 1e9, 0], [1e9, 0, 5, 5, 0], [0, 0, 5, 5, np.inf]])
def test_boxes_beyond_reason(box):
    with pytest.raises(ValueError, match="a box must have sides of up to 1024 pixels at such a place"):
        seen(spotted(), np.array(box, float), 16)


def test_folders_are_seen_alike_with_and_without_cache(tmp_path):
    draw_images(tmp_path / "images", 3)
    views = views_of(Framing("crop"), tmp_path, [], {})
    plain, cached = (ImageFolder(tmp_path / "images", 16, views=views, cache=cache) for cache in ("no", "memory"))
    assert all(torch.equal(plain[i], cached[i]) for i in range(3))
    assert plain.boxes.tolist() == [[20, 15, 30, 30, 0]] * 3
    assert torch.equal(plain[0], open_set(tmp_path / "images", 16, framing=Framing("crop")).dataset[0])
    assert not torch.equal(plain[0], ImageFolder(tmp_path / "images", 16)[0])
    with pytest.raises(ValueError, match="Framing: fit must be one of squash, pad, crop, got 'stretch'"):
        Framing("stretch")


class Bright(torch.nn.Module):
    """Finds the brightest pixel."""

    config = {"image_size": 32, "num_keypoints": 1}
    links = torch.zeros(0, 2, dtype=torch.int64)

    def link_weights(self):
        return torch.zeros(0)

    def estimate(self, images, iterations=1):
        flat = images.mean(1).flatten(1).argmax(1)
        return torch.stack([flat % 32, flat // 32], dim=1)[:, None] / 31 * 2 - 1


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_poses_are_in_pixels_of_the_original(tmp_path, fit):
    spotted().save(tmp_path / "a.png")
    found = collect(estimate(Bright(), tmp_path, framing=Framing(fit)))
    np.testing.assert_allclose(found.keypoints[0, 0], [SPOT[0] + 1.5, SPOT[1] + 1.5], atol=2.1)
    assert found.sizes.tolist() == [[64, 24]]


def test_a_run_keeps_its_framing_for_estimate_and_evaluate(tmp_path, capsys):
    draw_images(tmp_path / "images", 6)
    labels = Labels([f"{i}.png" for i in range(6)], np.full((6, 2, 2), 12.0), np.ones((6, 2), bool), ["a", "b"], [])
    labels.save(tmp_path / "images" / "keypoints.npz")
    model = run_steps(tmp_path / "images", tmp_path / "run", 3, fit="pad")
    for path in ("run", "run/model", "run/checkpoints/step_0000003"):
        assert load_framing(tmp_path / path) == Framing("pad")
    model.save_pretrained(tmp_path / "alone")
    assert load_framing(tmp_path / "alone") == Framing("squash")
    out = tmp_path / "poses.csv"
    assert main(["estimate", str(tmp_path / "run"), str(tmp_path / "images"), "--out", str(out)]) == 0
    rows = list(csv.reader(out.open()))[1:]
    expected = collect(estimate(model, tmp_path / "images", framing=Framing("pad"))).keypoints
    np.testing.assert_allclose(np.array([row[1:] for row in rows], float), expected.reshape(6, -1), atol=1e-3)
    assert not np.allclose(expected, collect(estimate(model, tmp_path / "images")).keypoints, atol=0.1)
    arguments = ["evaluate", str(tmp_path / "run"), str(tmp_path / "images"), "--occlusion-images", "0"]
    assert main(arguments) == 0
    notes = json.loads((tmp_path / "run" / "evaluation.json").read_text())["notes"]
    assert any("the model sees parts" in note for note in notes)
    assert any("sides, 40 pixels in the mean" in note for note in notes)
    (tmp_path / "run" / "config.yaml").write_text("train: 3\n")
    with pytest.raises(ValueError, match="config.yaml: train must be a mapping of options, got 3"):
        load_framing(tmp_path / "run")
