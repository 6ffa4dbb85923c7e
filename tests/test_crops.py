"""Boxes around an animal: from files, or found; seen in training and estimation alike; poses in the full frame."""

import csv
import json

import numpy as np
import pytest
import torch

pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("scipy", reason="finding what moves needs the data extra")

from crop_cases import LENGTH, SIZE, drawn, film, moving_views, path
from PIL import Image
from tiny import fails, run_steps

from ppl_fast.cli import main
from ppl_fast.data import load_labels, open_set
from ppl_fast.data.box_files import Row, read_boxes, write_boxes
from ppl_fast.data.boxes import seen
from ppl_fast.data.framing import views_of
from ppl_fast.data.video import Video
from ppl_fast.inference import collect, estimate, write
from ppl_fast.options.footage import Framing
from ppl_fast.training import TrainConfig, load_framing

COUNT, EMPTY = 80, range(30, 42)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """A folder with a video of a walk of which twelve frames are empty."""
    folder = tmp_path_factory.mktemp("footage")
    film(folder / "walk.mp4", COUNT, EMPTY)
    return folder


def test_what_moves_is_found_where_it_is_and_not_where_it_is_not(footage):
    views, missed = moving_views(footage), []
    assert views.report[0].startswith("walk.mp4: an animal moves in 68 of 80 frames")
    assert "none in 30, 31, 32 and others" in views.report[0]
    for number in range(COUNT):
        box = views.box(f"walk.mp4/{number:06d}", SIZE)
        assert views.shows(f"walk.mp4/{number:06d}") == (number not in EMPTY)
        if number in EMPTY:
            assert np.isnan(box).all()
            continue
        missed.append(np.linalg.norm(box[:2] - path(number, COUNT)[0]))
        assert box[4] == 0 and LENGTH * 1.2 < box[2] == box[3] < LENGTH * 1.8
    assert np.median(missed) < 1 and max(missed) < 4  # smoothing lags at the ends of a stretch


def test_boxes_are_turned_along_the_body_the_way_that_it_moves(footage):
    views, errors = moving_views(footage, turn=True), []
    for number in set(range(COUNT)) - set(EMPTY):
        angle = views.box(f"walk.mp4/{number:06d}", SIZE)[4] - path(number, COUNT)[1]
        errors.append(abs((angle + np.pi) % (2 * np.pi) - np.pi))
    assert np.median(errors) < 0.1 and max(errors) < 0.5
    red = []
    for frame in Video(footage / "walk.mp4").frames(every=8):
        if frame.number not in EMPTY:
            pixels = seen(frame.image, views.box(f"walk.mp4/{frame.number:06d}", SIZE), 32).float()
            red.append((pixels[0] - pixels[1]).clip(min=60).sub(60).sum(0).argmax().item())
    assert min(red) > 16  # the head is on the right in all of them


def test_lamps_and_noise_are_no_animal(tmp_path):
    """A scene that flickers, without anything in it."""
    for number in range(12):
        pixels = drawn(None, 0, number).astype(int) + (number % 3) * 12
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{number}.png")
    with pytest.raises(ValueError, match="moving has boxes for none of the images and videos"):
        moving_views(tmp_path)


def test_images_of_a_folder_are_a_clip_without_time(tmp_path):
    for number in range(12):
        Image.fromarray(drawn(*path(number * 7, 80), number)).save(tmp_path / f"{number}.png")
    views = moving_views(tmp_path, turn=True)
    for number in range(12):
        box = views.box(f"{number}.png", SIZE)
        centre, heading = path(number * 7, 80)
        assert np.linalg.norm(box[:2] - centre) < 2
        assert abs(np.sin(box[4] - heading)) < 0.2  # which way it looks cannot be told
    for number in range(5, 12):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(ValueError, match="what moves cannot be told in 5 images .*--crop FILE takes boxes from a file"):
        moving_views(tmp_path)


def test_labelled_frames_are_seen_before_the_background_of_their_video(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "labeled-data" / "walk").mkdir(parents=True)
    film(tmp_path / "videos" / "walk.mp4", 40)
    for number in range(3):
        Image.fromarray(drawn(*path(number * 7, 80), number)).save(tmp_path / "labeled-data" / "walk" / f"{number}.png")
    box = moving_views(tmp_path).box("labeled-data/walk/1.png", SIZE)
    assert np.linalg.norm(box[:2] - path(7, 80)[0]) < 2


def test_overlays_of_images_without_an_animal_are_the_images(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(12):
        Image.fromarray(drawn(*(path(number * 7, 80) if number != 4 else (None, 0)), number)).save(
            tmp_path / "in" / f"{number}.png"
        )
    poses = estimate(Bright(), tmp_path / "in", framing=Framing(crop="moving"))
    assert write(poses, overlay=tmp_path / "out", csv=tmp_path / "a.csv") == 12
    empty, other = (np.asarray(Image.open(tmp_path / "out" / f"{number}.png.png")) for number in (4, 5))
    plain = np.asarray(Image.open(tmp_path / "in" / "4.png").resize(empty.shape[1::-1], Image.Resampling.BICUBIC))
    assert np.array_equal(empty, plain) and empty.shape == other.shape
    assert [row for row in csv.reader((tmp_path / "a.csv").open()) if row[0] == "4.png"] == [["4.png", "", "", "", ""]]


@pytest.mark.slow
def test_a_damaged_video_has_no_boxes_and_stops_no_others(footage, tmp_path):
    (tmp_path / "walk.mp4").write_bytes((footage / "walk.mp4").read_bytes())
    (tmp_path / "cut.mp4").write_bytes((footage / "walk.mp4").read_bytes()[:9000])
    dataset = open_set(tmp_path, 16, framing=Framing(crop="moving"), max_bad_share=0.5).dataset
    assert len(dataset) == 68 and [name for name, _ in dataset.skipped] == ["cut.mp4"]
    assert "cut.mp4: nothing is found in it: " in dataset.report()
    with pytest.raises(
        ValueError, match=r"boxes for none of the images and videos in .*; cut.mp4: nothing is found in"
    ):
        open_set(tmp_path / "cut.mp4", 16, framing=Framing(crop="moving"))


def test_files_of_boxes(tmp_path):
    (tmp_path / "boxes.csv").write_text(
        "file,frame,x,y,width,height,angle,note\nwalk.mp4,3,10,20,30,40,,a\nrun.mp4,,0,0,64,48,90,b\na.png,,1,2,3,4,0,c\n"
        "other.mp4/000007,,5,5,10,10,0,d\n"
    )
    rows = read_boxes(tmp_path / "boxes.csv")
    assert [row[:2] for row in rows] == [
        ("walk.mp4", 3),
        ("run.mp4", None),
        ("a.png", None),
        ("other.mp4/000007", None),
    ]
    assert rows[0].box.tolist() == [25, 40, 30, 40, 0] and rows[1].box.tolist() == [32, 24, 64, 48, np.pi / 2]
    write_boxes(tmp_path / "again.csv", rows)
    again = read_boxes(tmp_path / "again.csv")
    assert [row[:2] for row in again] == [row[:2] for row in rows]
    np.testing.assert_allclose([row.box for row in again], [row.box for row in rows], rtol=1e-5)
    videos = {f"clips/{name}.mp4": tmp_path for name in ("walk", "run")} | {"other.mp4": tmp_path}
    views = views_of(Framing(crop=str(tmp_path / "boxes.csv"), margin=0.5), tmp_path, ["a.png", "b.png"], videos)
    assert views.box("a.png", (9, 9)).tolist() == [2.5, 4, 6, 6, 0]
    assert views.box("other.mp4/000007", SIZE).tolist() == [10, 10, 15, 15, 0]
    assert not views.shows("b.png") and not views.shows("other.mp4/000008")
    assert views.report == [f"boxes of {tmp_path / 'boxes.csv'}: for 1 of 2 images and frames of 1 of 3 videos"]
    alone = views_of(
        Framing(crop=str(tmp_path / "boxes.csv")), tmp_path, [], {"walk.mp4": tmp_path, "run.mp4": tmp_path}
    )
    assert alone.shows("walk.mp4/000003") and not alone.shows("walk.mp4/000004") and alone.shows("run.mp4/000099")


def test_boxes_of_coco(tmp_path):
    boxes = [
        {"image_id": 1, "bbox": [1, 2, 3, 4]},
        {"image_id": 1, "bbox": [10, 20, 8, 8]},
        {"image_id": 2, "bbox": []},
    ]
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": boxes}))
    (row,) = read_boxes(tmp_path / "a.json")
    assert row.file == "a.png" and row.box.tolist() == [14, 24, 8, 8, 0]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.csv", "", "its first row must name the columns file, x, y, width, height"),
        ("a.csv", "file,x,y\n", "width, height is not there"),
        ("a.csv", "file,x,y,width,height\n", "it holds no box"),
        ("a.csv", "file,x,y,width,height\na.png,1,2,3\n", "must have 5 cells"),
        ("a.csv", "file,x,y,width,height\na.png,1,2,3,4,5\n", "must have 5 cells"),
        ("a.csv", "file,x,y,width,height\na.png,1,2,x,4\n", "could not convert"),
        ("a.csv", "file,x,y,width,height\na.png,1,2,0,4\n", "the box of a.png must have a width and a height"),
        ("a.csv", "file,x,y,width,height\na.png,nan,2,3,4\n", "the box of a.png must have a width and a height"),
        ("a.csv", "file,frame,x,y,width,height\na.mp4,half,1,2,3,4\n", "invalid literal"),
        ("a.json", "[1]", "list indices"),
        ("a.json", '{"annotations": []}', "lacks 'images'"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "bbox": [1]}]}', "a bbox must be four numbers"),
        ("none.csv", None, "there is none; the word moving stands for what moves"),
    ],
)
def test_what_is_no_file_of_boxes(tmp_path, name, text, sentence):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_boxes(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name} is no valid file of boxes: ")


class Bright(torch.nn.Module):
    """Finds the middle of what is bright, and the middle of what is red."""

    config = {"image_size": 48, "num_keypoints": 2}
    links = torch.tensor([[0, 1]])

    def link_weights(self):
        return torch.ones(1)

    def estimate(self, images, iterations=1):
        red = (images[:, 0] - images[:, 1]).clamp(min=0.7) - 0.7
        bright = images.mean(1).clamp(min=0.5) - 0.5 + red
        at = torch.linspace(-1, 1, 48)
        weights = torch.stack([bright, red], dim=1) + 1e-9
        return torch.stack([(weights.sum(dim) * at).sum(-1) / weights.sum((2, 3)) for dim in (2, 3)], dim=2)


@pytest.mark.parametrize("turn", [pytest.param(False, marks=pytest.mark.slow), True])
def test_poses_come_back_in_pixels_of_the_full_frame(footage, turn, tmp_path):
    poses = collect(estimate(Bright(), footage, framing=Framing(crop="moving", turn=turn), batch_size=7))
    assert len(poses) == COUNT and np.isnan(poses.keypoints[list(EMPTY)]).all()
    assert np.isnan(poses.normalised[list(EMPTY)]).all()
    for number in set(range(0, COUNT, 5)) - set(EMPTY):
        centre, heading = path(number, COUNT)
        head = centre + 10 * np.array([np.cos(heading), np.sin(heading)])
        assert np.linalg.norm(poses.keypoints[number, 0] + 0.5 - centre) < 3
        assert np.linalg.norm(poses.keypoints[number, 1] + 0.5 - head) < 3
    source = footage / "walk.mp4"
    files = {"csv": tmp_path / "a.csv", "coco": tmp_path / "a.json", "overlay": tmp_path / "a.mp4"}
    assert write(estimate(Bright(), source, framing=Framing(crop="moving", turn=turn)), **files) == COUNT
    rows = list(csv.reader(files["csv"].open()))[1:]
    assert [row[1] for row in rows if row[3] == ""] == [str(number) for number in EMPTY]
    assert len(load_labels(files["coco"])) == COUNT - len(EMPTY)
    assert len(list(Video(files["overlay"]).frames())) == COUNT


@pytest.mark.slow
def test_a_run_keeps_its_boxes_and_shows_them(footage, tmp_path, capsys):
    out = tmp_path / "run"
    model = run_steps(footage, out, 2, crop="moving", crop_turn=True, every=4, picture_every=2)
    said = capsys.readouterr().out
    assert "17 images in" in said and "an animal moves in 68 of 80 frames" in said
    assert load_framing(out) == Framing(crop="moving", turn=True)
    kept = read_boxes(out / "boxes.csv")
    assert len(kept) == 68 and Image.open(out / "boxes.png").size[0] > 800
    again = views_of(Framing(crop=str(out / "boxes.csv")), footage, [], {"walk.mp4": footage / "walk.mp4"})
    np.testing.assert_allclose(
        again.box("walk.mp4/000000", SIZE), moving_views(footage, turn=True).box("walk.mp4/000000", SIZE), rtol=1e-5
    )
    files = ["--out", str(tmp_path / "poses.csv"), "--boxes", str(tmp_path / "seen.csv")]
    assert main(["estimate", str(out), str(footage / "walk.mp4"), *files]) == 0
    told = capsys.readouterr().out
    assert "an animal moves in 68 of 80 frames" in told and "wrote 68 boxes to" in told
    assert (tmp_path / "seen.csv").read_bytes() == (out / "boxes.csv").read_bytes()
    assert main(["estimate", str(out), str(footage / "walk.mp4"), *files[:3], files[1]]) == 2
    assert "--boxes must be another file than --out" in capsys.readouterr().err
    rows = list(csv.reader((tmp_path / "poses.csv").open()))[1:]
    expected = collect(estimate(model, footage, framing=load_framing(out))).keypoints[0]
    np.testing.assert_allclose(np.array(rows[0][3:], float), expected.ravel(), atol=2e-3)


@pytest.mark.slow
def test_boxes_from_a_file_are_named_anew_for_other_images(footage, tmp_path, capsys):
    write_boxes(tmp_path / "boxes.csv", [Row("walk.mp4", None, np.array([80, 60, 100, 100, 0.0]))])
    run_steps(footage, tmp_path / "run", 1, crop=str(tmp_path / "boxes.csv"), every=20)
    arguments = ["estimate", tmp_path / "run", footage, "--out", tmp_path / "a.csv"]
    sentence = fails(capsys, *arguments)
    assert "was trained on boxes from the file" in sentence and "--crop names the file" in sentence
    assert main([str(argument) for argument in (*arguments, "--crop", tmp_path / "boxes.csv")]) == 0
    assert main([str(argument) for argument in (*arguments, "--crop", "moving")]) == 0
    (tmp_path / "other.csv").write_text("file,x,y,width,height\nrun.mp4,1,2,3,4\n")
    sentence = fails(capsys, *arguments, "--crop", tmp_path / "other.csv")
    assert "other.csv has boxes for none of the images and videos" in sentence


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"margin": -1}, "margin must lie between 0 and 10, got -1"),
        ({"turn": True}, "turn needs crop moving, got crop None"),
        ({"turn": True, "crop": "a.csv"}, "turn needs crop moving, got crop a.csv"),
    ],
)
def test_what_is_no_framing(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Framing(**options)


def test_a_run_needs_boxes_that_can_be_turned():
    with pytest.raises(ValueError, match="TrainConfig: crop_turn needs crop moving, got crop None"):
        TrainConfig(crop_turn=True)


def test_frames_without_an_animal_are_not_trained_on(footage):
    dataset = open_set(footage, 16, framing=Framing(crop="moving")).dataset
    assert len(dataset) == 68 and dataset.boxes.shape == (68, 5) and len(dataset.paths) == 68
    assert np.isfinite(dataset.boxes).all() and "walk.mp4/000030" not in dataset.paths
