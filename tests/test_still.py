"""The background that the frames of a static camera agree on."""

import numpy as np
import pytest

pytest.importorskip("PIL", reason="images need the data extra")
pytest.importorskip("scipy", reason="finding what moves needs the data extra")

from PIL import Image
from scipy import ndimage

from ppl_fast.data.moving import animal, background
from ppl_fast.data.still import LEAST_LEVEL, agreed


def test_the_background_is_what_frames_agree_on():
    """An animal that lies at one place in more than half of the frames, each time in another light, is none of it."""
    rng = np.random.default_rng(0)
    frames = np.full((30, 8, 8, 3), 100, np.uint8)
    frames[:17, 2:5, 2:5] = rng.integers(150, 255, (17, 3, 3, 1))
    frames = rng.permutation(frames)
    assert np.median(frames, axis=0)[3, 3, 0] > 140
    np.testing.assert_array_equal(agreed(frames).pixels, 100)


def _animal_in(frames: np.ndarray, rests: float, coat: list[int], rng: np.random.Generator) -> np.ndarray:
    """Draw one that is anywhere, and at one place for a share of the time; its pixels (n, h, w)."""
    there = np.zeros(frames.shape[:3], bool)
    for i, (frame, own) in enumerate(zip(frames, there, strict=True)):
        row, column = (28, 34) if i < rests * len(frames) else rng.integers((0, 0), (40, 44))
        place = np.s_[row : row + 8, column : column + 12]
        own[place] = True
        frame[place] = np.repeat(coat, 12 // len(coat))[:, None]
    return there


@pytest.mark.parametrize("coat", [[40], [230, 30]])
@pytest.mark.parametrize("rests", [0.0, 0.5, 0.7, 0.9])
def test_an_animal_that_rests_for_most_of_the_time_is_no_background(rests, coat):
    """Nor is the floor beside it, which it walks over; it may be of two colours."""
    rng = np.random.default_rng(0)
    floor = np.kron(rng.integers(110, 150, (6, 7, 1)), np.ones((8, 8, 1)))  # tiles
    frames = np.broadcast_to(floor, (80, 48, 56, 3)).copy()
    there = _animal_in(frames, rests, coat, rng)
    frames += rng.normal(scale=1.5, size=frames.shape)
    frames = frames.clip(0, 255).astype(np.uint8)
    still = agreed(frames)
    assert np.abs(still.pixels - floor).max() < LEAST_LEVEL
    found = np.stack([animal(frame, still, 0.4, 1) for frame in frames])
    assert (found & there).sum() > 0.9 * (found | there).sum()


def test_an_animal_that_rests_in_two_lights_is_no_background():
    frames = np.full((64, 32, 32, 3), 120, np.uint8)
    frames[:30, 10:20, 10:20], frames[30:58, 10:20, 10:20] = 30, 190
    np.testing.assert_array_equal(agreed(frames).pixels, 120)


def test_what_passes_beside_what_rests_is_no_background():
    """Both are brighter at times: a body that rests and what is behind it, and a wall that arms are raised before."""
    frames = np.full((64, 48, 48, 3), 150, np.uint8)
    frames[:50, 18:40, 16:30] = 60
    frames[20:32, 8:18, 12:34] = 225
    np.testing.assert_array_equal(agreed(frames).pixels, 150)


def test_what_always_stays_is_background():
    """A thing with an outline that is never away; and one that is away for a moment alone."""
    frames = np.full((64, 32, 32, 3), 120, np.uint8)
    frames[:, 4:12, 4:12] = 60
    frames[:62, 18:26, 18:26] = 200
    np.testing.assert_array_equal(agreed(frames).pixels, frames[0])


def test_a_camera_that_is_a_little_off_moves_no_animal():
    """Its edges differ, and a clock in the picture does not move along; a camera that stays is left in peace."""
    rng = np.random.default_rng(0)
    scene = np.full((120, 180, 3), 40, np.float32)
    scene[20:100, 30:150] = 180  # a dish
    scene[rng.integers(30, 90, 40), rng.integers(40, 140, 40)] = 120
    scene = ndimage.gaussian_filter(scene, (1, 1, 0))
    frames, there = [], []
    for i in range(64):
        off = 3 * np.sin(i / 9), 3 * np.cos(i / 13)
        frame = ndimage.shift(scene, (*off, 0), order=1)[10:-10, 10:-10]
        row, column = rng.integers(25, 65), rng.integers(35, 115)
        own = np.zeros(frame.shape[:2], bool)
        own[row : row + 9, column : column + 18] = True
        frame[own], frame[-5:, 4:20] = 90, 250
        frames.append(frame.clip(0, 255).astype(np.uint8))
        there.append(own)
    still = background(map(Image.fromarray, frames))
    assert still.shaken
    for frame, own in zip(frames, there, strict=True):
        found = animal(frame, still)
        assert (found & own).sum() > 0.8 * own.sum() and found.sum() < 3 * own.sum()
    assert not background([Image.fromarray(frames[0])] * 20).shaken


@pytest.mark.parametrize("times", [False, True])
def test_a_lamp_that_changes_is_no_noise(times):
    """It adds to all of the frame alike, or goes out, whereupon all of it is half as light."""
    rng = np.random.default_rng(0)
    room = rng.integers(40, 200, (32, 32, 3))
    light = np.round(25 * np.sin(np.arange(40))).astype(int)[:, None, None, None]
    lit = room * np.where(light > 0, 1, 0.5) if times else room + light
    frames = np.clip(lit + rng.integers(-1, 2, (40, 32, 32, 3)), 0, 255).astype(np.uint8)
    still = agreed(frames)
    assert still.level == LEAST_LEVEL and still.stays
    off = (still.pixels - room * (still.pixels.mean() / room.mean() if times else 1)).reshape(-1, 3)
    assert np.ptp(off, axis=0).max() < 5  # the same moment of the lamp everywhere
    frames[7, 10:20, 10:20] = 255 - frames[7, 10:20, 10:20]
    assert animal(frames[7], still, 0.4, 1).sum() >= 60 and animal(frames[8], still, 0.4, 1) is None
