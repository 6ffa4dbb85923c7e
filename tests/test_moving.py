"""What moves before a static camera: what differs from the background that frames agree on."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")
pytest.importorskip("scipy", reason="finding what moves needs the data extra")

from PIL import Image

from ppl_fast.data import ImageFolder, make_figures, moving
from ppl_fast.data.moving_subjects import MovingSubjects
from ppl_fast.data.order import video_of
from ppl_fast.data.still import Background
from ppl_fast.data.subjects import UNKNOWN, SubjectMasks


def test_what_moves_before_a_static_camera(tmp_path):
    make_figures(tmp_path / "set/room", 60, size=64, masks=tmp_path / "masks/room")
    make_figures(tmp_path / "few", 3, size=64)
    (tmp_path / "few").rename(tmp_path / "set/few")
    images = ImageFolder(tmp_path / "set", 64)
    subjects, masks = MovingSubjects(images), SubjectMasks(tmp_path / "masks", images)
    known = [i for i in range(len(images)) if subjects[i].min() >= 0]
    assert subjects.known == len(known) >= 57 and f"{len(known)} of 63" in subjects.report
    assert "--crop moving" not in subjects.report
    assert all(torch.equal(subjects[i], torch.full((1, 64, 64), UNKNOWN)) for i in range(3))  # of too few images
    found, true = (torch.stack([each[i] for i in known]) >= 0.5 for each in (subjects, masks))
    assert ((found & true).sum() / (found | true).sum()) > 0.8
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(ValueError, match="nothing moves"):
        MovingSubjects(ImageFolder(tmp_path / "black.png", 64))


def test_each_folder_has_its_own_background(tmp_path):
    """Whatever follows a dot in its name."""
    for day, still in (("rat.day1", 90), ("rat.day2", 200)):
        for i in range(12):
            pixels = np.full((64, 64), still, np.uint8)
            pixels[4 * i : 4 * i + 16, 20:36] = 250
            (tmp_path / day).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / day / f"{i:02d}.png")
    subjects = MovingSubjects(ImageFolder(tmp_path, 64))
    assert "they have 2 backgrounds" in subjects.report
    for i, found in enumerate(subjects):
        assert found.sum() > 200 and found[0, 4 * (i % 12) : 4 * (i % 12) + 16, 20:36].sum() > 0.8 * found.sum()


def test_a_folder_of_frames_is_of_the_one_video_of_its_name():
    videos = ["videos/walk.mp4", "videos/m1.cropped.mp4", "a/cam.mp4", "b/cam.avi"]
    assert video_of("labeled-data/walk", videos) == "videos/walk.mp4"
    assert video_of("labeled-data/m1.cropped", videos) == "videos/m1.cropped.mp4"
    assert video_of("labeled-data/cam", videos) is video_of("labeled-data/m1", videos) is video_of(".", videos) is None


def test_what_is_far_larger_or_smaller_than_most_is_no_animal():
    areas = np.array([100.0, 120, 90, 700, np.nan, 110, 5000, 9])
    assert moving.usual(areas).tolist() == [True, True, True, True, False, True, False, False]
    assert not moving.usual(np.full(3, np.nan)).any() and moving.usual(np.empty(0)).shape == (0,)


def swimming(turning: np.ndarray, speed=3.0) -> tuple[moving.Track, np.ndarray]:
    """A fish that bends where it turns, seen as round there and as turned the other way; and how it heads."""
    heading = np.cumsum(turning)
    centre = np.cumsum(speed * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
    round_ = np.abs(turning) > 0.2
    seen = np.where(round_, -heading, heading)
    axis = np.where(round_, 0.05, 0.7)[:, None] * np.stack([np.cos(2 * seen), np.sin(2 * seen)], axis=1)
    count = len(turning)
    return moving.Track(centre, np.full(count, 20.0), np.full(count, 200.0), axis), heading


def test_a_box_leads_the_way_that_the_animal_moves_after_each_bend():
    turning = np.zeros(400)
    for bend in (50, 120, 130, 300):
        turning[bend : bend + 8] = math.pi / 8
    track, heading = swimming(turning)
    track.centre[200:280] = track.centre[200]  # it rests, and goes on
    track.centre[280:] += track.centre[279] - track.centre[280]
    angles = moving.boxes(track, 25.0, turn=True)[:, 4]
    wrong = np.cos(angles - heading) < 0
    assert wrong.sum() < 25 and not wrong[np.convolve(turning, np.ones(13), "same") == 0].any()


@pytest.mark.parametrize("steps, turns", [(10, False), (60, True)])
def test_a_few_steps_backwards_are_no_turn(steps, turns):
    track, _ = swimming(np.zeros(200))
    pace = np.where(np.arange(200) // 1 < 100, 3.0, -3.0)
    pace[100 + steps :] = 3.0
    track.centre[:, 0] = np.cumsum(pace)
    turned = np.cos(moving.boxes(track, 25.0, turn=True)[:, 4]) < 0
    assert turned[105 : 95 + steps].any() == turns and not turned[:90].any() and not turned[-20:].any()


def test_a_subject_that_is_small_is_better_cropped(tmp_path):
    for i in range(12):
        pixels = np.full((64, 64), 90, np.uint8)
        pixels[5 * i % 50 : 5 * i % 50 + 6, 4 * i : 4 * i + 13] = 250
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    report = MovingSubjects(ImageFolder(tmp_path, 64)).report
    assert "12 of 12" in report and re.search(r"moves reaches over (19|2\d)% of the image's.*--crop moving", report), (
        report
    )


def test_a_shadow_is_no_animal():
    still = Background(np.full((32, 32, 3), (120, 100, 80), np.float32), 16.0)
    frame = still.pixels.astype(np.uint8).copy()
    frame[20:28, 4:30] = (90, 75, 60)
    frame[4:20, 14:18] = (60, 100, 140)
    with_shadow, without = (moving.animal(frame, still, 0.4, 1, shadow) for shadow in (True, False))
    assert with_shadow[24, 6] and with_shadow[10, 15] and with_shadow.sum() > 250
    assert not without[24, 6] and without[10, 15] and 60 <= without.sum() <= 110


def test_a_part_that_is_seen_apart_is_of_the_subject():
    """A paw in a mirror is; a speck is not, nor is either of the animal that a crop follows."""
    still = Background(np.full((32, 32, 3), 60, np.float32), 16.0)
    frame = np.full((32, 32, 3), 60, np.uint8)
    frame[2:14, 4:24] = 200
    frame[20:26, 8:14] = 120
    frame[28:30, 28:30] = 90
    alone, all_parts = (moving.animal(frame, still, 0.4, 1, True, least_part=least) for least in (1.0, 0.05))
    assert alone[8, 10] and not alone[23, 10]
    assert all_parts[8, 10] and all_parts[23, 10] and not all_parts[28:30, 28:30].any()


@pytest.mark.parametrize("difficulty, told", [("lab", True), ("wild", False)])
def test_auto_draws_to_what_moves_where_the_background_stays(tmp_path, difficulty, told):
    pytest.importorskip("accelerate", reason="training needs the train extra")
    from ppl_fast.training.setup import subject_masks

    make_figures(tmp_path / "set", 40, size=64, difficulty=difficulty)
    images, config = ImageFolder(tmp_path / "set", 64), SimpleNamespace(masks="auto")
    drawn, undrawn = (SimpleNamespace(settings=SimpleNamespace(coverage_weight=weight)) for weight in (1.0, 0.0))
    masks, text = subject_masks(config, drawn, images)
    assert (masks is not None) == told and ("something moves in" if told else "nothing moves in") in text
    assert subject_masks(config, undrawn, images) == (None, "")
