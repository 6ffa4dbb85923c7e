"""Backgrounds of images that have several, or that a camera shifts."""

import numpy as np
import pytest
import torch

pytest.importorskip("PIL", reason="images need the data extra")
pytest.importorskip("scipy", reason="finding what moves needs the data extra")

from ppl_fast.data import ImageFolder, make_figures
from ppl_fast.data.moving_subjects import MovingSubjects
from ppl_fast.data.scenes import REACH, Scenes
from ppl_fast.data.subjects import SubjectMasks

SIZE = 48


def rooms(count, side=SIZE * 2):
    """Backgrounds with edges both ways, larger than an image."""
    rng = np.random.default_rng(1)
    return [
        np.clip(rng.integers(60, 200, (side // 8, side // 8, 3)).repeat(8, axis=0).repeat(8, axis=1), 0, 255)
        for _ in range(count)
    ]


def seen(room, row, column, number):
    """An image of a room from a place on, in front of which an animal of its own colours is at one of many places."""
    rng = np.random.default_rng(number)
    image = (room[row : row + SIZE, column : column + SIZE] + rng.integers(-2, 3, (SIZE, SIZE, 3))).astype(np.uint8)
    y, x = rng.integers(4, 30, 2)
    image[y : y + 14, x : x + 14] = rng.integers(0, 255, 3)
    return image


@pytest.mark.slow
def test_figures_before_several_shifted_backgrounds(tmp_path):
    make_figures(tmp_path / "set", 150, size=64, difficulty="studio", masks=tmp_path / "masks")
    images = ImageFolder(tmp_path / "set", 64)
    subjects, masks = MovingSubjects(images), SubjectMasks(tmp_path / "masks", images)
    assert "150 images" in subjects.report and "they have 6 backgrounds" in subjects.report
    known = [i for i in range(len(images)) if subjects[i].min() >= 0]
    assert len(known) >= 147
    found, true = (torch.stack([each[i] for i in known]) >= 0.5 for each in (subjects, masks))
    assert ((found & true).sum() / (found | true).sum()) > 0.8


def test_a_camera_that_shifts_sees_one_background():
    (room,) = rooms(1)
    reach, rng = int(REACH * SIZE), np.random.default_rng(0)
    places = reach + rng.integers(-reach // 2, reach // 2 + 1, (60, 2))
    clip = np.stack([seen(room, *place, number) for number, place in enumerate(places)])
    scenes = Scenes(clip)
    assert len(scenes) == 1
    for image, (row, column) in zip(clip, places, strict=True):
        still = scenes.behind(image)
        assert np.median(np.abs(still.pixels - room[row : row + SIZE, column : column + SIZE])) < 2


def test_few_images_of_another_room_are_told_apart():
    first, other, third = rooms(3)
    clip = np.stack([seen(other if number % 5 == 3 else first, 20, 20, number) for number in range(60)])
    scenes = Scenes(clip)
    assert len(scenes) == 2
    for image, room in ((clip[0], first), (clip[3], other)):
        assert np.median(np.abs(scenes.behind(image).pixels - room[20 : 20 + SIZE, 20 : 20 + SIZE])) < 2
    assert scenes.behind(seen(third, 20, 20, 99)) is None


def test_a_large_animal_leaves_the_background_that_stays():
    (room,) = rooms(1)
    clip = np.stack([seen(room, 0, 0, number) for number in range(30)])
    scenes = Scenes(clip)
    large = clip[0].copy()
    large[: SIZE // 2] = np.random.default_rng(3).integers(0, 255, large[: SIZE // 2].shape)
    assert scenes.behind(large) is scenes.behind(clip[0]) is not None
    large[SIZE // 3 :] = np.random.default_rng(4).integers(0, 255, large[SIZE // 3 :].shape)
    assert scenes.behind(large) is None


def test_what_has_nothing_in_common_has_no_background():
    images = np.stack([seen(room, 0, 0, number) for number, room in enumerate(rooms(40))])
    scenes = Scenes(images)
    assert not scenes and scenes.behind(images[0]) is None and not Scenes(images[:3])
