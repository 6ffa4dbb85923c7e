"""Masks, pages, names and confidence where a model sees parts of images: all of it speaks of the full frame."""

import csv
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("scipy", reason="finding what moves needs the data extra")

from crop_cases import film
from label_cases import csv_text
from PIL import Image
from test_masks import RNG, S, Seeing, save, square
from test_projects import project
from tiny import MODEL, fails

from ppl_fast import ExtendedPPL
from ppl_fast.cli import main
from ppl_fast.data.box_files import Row, write_boxes
from ppl_fast.data.boxes import GREY, NOTHING, seen, whole
from ppl_fast.data.mask import visible_after_resizing
from ppl_fast.inference import collect, estimate, write
from ppl_fast.inference.poses import Origins
from ppl_fast.options.footage import Framing
from ppl_fast.page import collect as collect_page
from ppl_fast.training import load_model

BOXES = {
    "padded": whole((40, 30), "pad"),
    "in the middle": whole((40, 30), "crop"),
    "enlarged": np.array([12.3, 9.1, 13.7, 13.7, 0.0]),
    "turned": np.array([18.0, 14.0, 26.0, 26.0, 0.6]),
    "turned, over the edge": np.array([6.0, 25.0, 70.0, 70.0, -2.0]),
}


@pytest.fixture
def run(tmp_path):
    """A model that was not trained."""
    ExtendedPPL(**MODEL).save_pretrained(tmp_path / "run" / "model")
    return tmp_path / "run"


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_a_mask_is_cut_and_fitted_as_its_image_is(box):
    hidden = RNG.random((30, 40)) < 0.02
    pixels = RNG.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    shown = visible_after_resizing(hidden, S, box)[0].numpy()
    first = seen(Image.fromarray(pixels), box, S).numpy()
    changed = np.zeros((S, S), bool)
    for low, high in ((0, 255), (255, 0)):
        repainted = pixels.copy()
        repainted[hidden] = np.where(pixels[hidden] > 127, low, high)
        changed |= (seen(Image.fromarray(repainted), box, S).numpy() != first).any(axis=0)
    assert not (changed & shown).any()
    assert changed.sum() > 0.8 * (~shown).sum() > 0


def test_what_lies_outside_of_an_image_is_not_hidden():
    box = whole((40, 30), "pad")
    shown = visible_after_resizing(np.ones((30, 40), bool), S, box)[0].numpy()
    outside = (seen(Image.new("RGB", (40, 30)), box, S).numpy() == GREY[0]).all(axis=0)
    assert outside.any() and (shown == outside).all()
    assert visible_after_resizing(np.ones((30, 40), bool), S, NOTHING).all()


@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("by", ["image", "colour"])
def test_what_is_hidden_does_not_matter_to_a_part(tmp_path, fit, by):
    mask, poses = save(tmp_path / "mask.png", square()), []
    pixels = RNG.integers(0, 200, (30, 40, 3), dtype=np.uint8)
    hidden = square() > 0
    for shade in (0, 200) if by == "image" else (220, 228):
        pixels[hidden] = shade
        save(tmp_path / "in/a.png", pixels)
        model, given = Seeing(), mask if by == "image" else (224, 224, 224)
        poses.append(collect(estimate(model, tmp_path / "in", masks=given, framing=Framing(fit))).keypoints)
    np.testing.assert_array_equal(*poses)
    expected = visible_after_resizing(hidden, S, whole((40, 30), fit))[0].numpy()
    assert (model.visible == expected).all() and not expected.all()


def test_expected_errors_are_in_pixels_of_the_full_frame(tmp_path):
    at = {"names": ["a", "b"], "frames": [None] * 2, "times": [None] * 2, "sizes": np.array([[40, 30]] * 2)}
    assert (Origins(**at).seen_sizes == [40, 30]).all()
    boxes = np.array([[20, 15, 12, 12, 0.3], NOTHING])
    np.testing.assert_array_equal(Origins(**at, boxes=boxes).seen_sizes, [[12, 12], [np.nan, np.nan]])
    placed = Origins(**at, boxes=boxes).in_pixels(np.zeros((2, 3, 2)), 16)
    np.testing.assert_allclose(placed[0], [[19.5, 14.5]] * 3)
    assert np.isnan(placed[1]).all()


@pytest.mark.parametrize("names", [None, ["nose", "tail"]])
def test_overlays_where_nothing_is_seen_have_no_labels(tmp_path, names):
    class Named:
        skeleton = [(0, 1)]

        def __init__(self):
            self.names = names

        def __call__(self, images, keypoints):
            return keypoints[:, :2]

        def mixed(self, values):
            return values[:, :2]

    for name in "ab":
        save(tmp_path / f"in/{name}.png", RNG.integers(0, 255, (256, 300, 3), dtype=np.uint8))
    write_boxes(tmp_path / "boxes.csv", [Row("a.png", None, np.array([60, 60, 50, 50, 0.0]))])
    framing = Framing(crop=str(tmp_path / "boxes.csv"))
    poses = estimate(Seeing(), tmp_path / "in", framing=framing, joints=Named() if names else None)
    assert write(poses, overlay=tmp_path / "out") == 2
    same = {
        name: np.array_equal(
            *(np.asarray(Image.open(tmp_path / path)) for path in (f"in/{name}.png", f"out/{name}.png.png"))
        )
        for name in "ab"
    }
    assert same == {"a": False, "b": True}


@pytest.mark.slow
def test_a_page_shows_the_full_frames_and_leaves_out_those_without_an_animal(run, tmp_path):
    (tmp_path / "clips").mkdir()
    film(tmp_path / "clips" / "walk.mp4", count=40, empty=range(8, 20))
    framing = Framing(crop="moving")
    page = collect_page(run, tmp_path / "clips", frames=40, framing=framing)
    shown = page.data["poses"]["pictures"]
    poses = collect(estimate(load_model(run).eval(), tmp_path / "clips", framing=framing))
    there = np.flatnonzero(np.isfinite(poses.keypoints).all(axis=(1, 2)))
    assert 20 < len(there) < 35 and [entry["frame"] for entry in shown] == there.tolist()
    np.testing.assert_allclose([entry["points"] for entry in shown], poses.keypoints[there], atol=6e-3)
    assert page.skipped == [("walk.mp4", f"{40 - len(there)} of what was chosen of it show no animal")]
    boxes = poses.boxes[there]
    for entry, box in zip(shown, boxes, strict=True):  # the memory's pose lies in the box as the keypoints do
        assert (np.abs(np.array(entry["recalled"]) + 0.5 - box[:2]) <= box[2]).all()
    rounds = page.data["rounds"]["pictures"]
    assert rounds and {each["name"] for each in rounds} <= {f"walk.mp4/{number:06d}" for number in there}
    assert page.data["rounds"]["size"] == MODEL["image_size"]
    thinned = collect_page(run, tmp_path / "clips", frames=10, framing=framing).data["poses"]["pictures"]
    assert 0 < len(thinned) < 10 and {entry["frame"] % 4 for entry in thinned} == {0}


def test_a_page_and_a_run_that_pads_see_alike(run, tmp_path, capsys):
    save(tmp_path / "in/a.png", RNG.integers(0, 255, (30, 40, 3), dtype=np.uint8))
    (run / "config.yaml").write_text("train:\n  fit: pad\n")
    expected = collect(estimate(load_model(run).eval(), tmp_path / "in", framing=Framing("pad"))).keypoints
    squashed = collect(estimate(load_model(run).eval(), tmp_path / "in")).keypoints
    (entry,) = collect_page(run, tmp_path / "in").data["poses"]["pictures"]
    np.testing.assert_allclose([entry["points"]], expected, atol=6e-3)
    assert np.abs(expected - squashed).max() > 0.1
    arguments = ["view", run, tmp_path / "in", "--out", tmp_path / "a.html", "--crop", tmp_path / "none.csv"]
    assert "none.csv is no valid file of boxes" in fails(capsys, *arguments)
    assert main([str(argument) for argument in arguments[:-2]]) == 0
    mask = save(tmp_path / "mask.png", square())
    poses = ["estimate", run, tmp_path / "in", "--out", tmp_path / "a.csv", "--mask", mask]
    assert main([str(argument) for argument in poses]) == 0
    masked = collect(estimate(load_model(run).eval(), tmp_path / "in", masks=mask, framing=Framing("pad"))).keypoints
    (row,) = list(csv.reader((tmp_path / "a.csv").open()))[1:]
    np.testing.assert_allclose(np.array(row[1:], float), masked.ravel(), atol=2e-3)


def test_names_and_calibrations_come_from_a_project(run, tmp_path, capsys):
    root, labels = project(tmp_path / "project"), tmp_path / "labels.csv"
    arguments = ["name", run, root, "--network", "false", "--max-missing-share", "0"]
    assert main([str(argument) for argument in arguments]) == 0
    assert "5 labelled images are few" in capsys.readouterr().out
    assert json.loads((run / "model" / "joints.json").read_text())["names"] == ["nose", "tail"]
    rows = {f"labeled-data/walk/img{number}.png": [4 * number + 1, 20, 9, 9] for number in range(5)}
    labels.write_text(csv_text(rows, parts=("ear",), individuals=("a", "b")))
    assert "name the one to take (--individual)" in fails(capsys, *arguments, "--labels", labels)
    more = ["--labels", labels, "--individual", "b", "--suggest", "2", "--of", root, "--out", tmp_path / "next"]
    assert main([str(argument) for argument in (*arguments, *more)]) == 0
    assert json.loads((run / "model" / "joints.json").read_text())["names"] == ["ear"]
    assert len(list((tmp_path / "next").rglob("*.png"))) == 2
    assert "labels must be of at least 20 images, got 5" in fails(capsys, "calibrate", run, root)
    shutil.rmtree(root / "labeled-data")
    assert "name: expected labels" in fails(capsys, "name", run, root)


@pytest.mark.parametrize("command", ["name", "calibrate", "evaluate"])
def test_labelled_images_are_seen_as_the_run_was_trained(command, run, tmp_path, monkeypatch, capsys):
    given = []

    def opened(command, spec, size, options, framing, split="fit"):
        given.append(framing)
        raise ValueError("enough")

    (run / "config.yaml").write_text("train:\n  crop: moving\n  crop_turn: true\n")
    for module in ("name", "calibrate", "evaluate"):
        monkeypatch.setattr(f"ppl_fast.commands.{module}.open_labelled", opened)
    assert "enough" in fails(capsys, command, run, tmp_path)
    assert given == [Framing(crop="moving", turn=True)]
