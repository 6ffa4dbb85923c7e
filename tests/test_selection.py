"""Which frames of long videos are taken: spread or by difference, by seed, while the video is read once."""

import numpy as np
import pytest

pytest.importorskip("av", reason="videos need the video extra")


from PIL import Image
from properties import given, st
from video_files import bar_at, drawn, encode

from ppl_fast.data.clips import ClipFolder
from ppl_fast.data.selection import Thinning
from ppl_fast.data.video import Video
from ppl_fast.options.footage import Selection

GREY = Image.new("RGB", (8, 8))


def thinned(count, selection, image=lambda number: GREY):
    """The numbers of the frames that are chosen of `count`, and how many places were needed."""
    thinning, held = Thinning(selection, "walk.mp4"), {}
    for number in range(count):
        place = thinning.place(image(number))
        if place is not None:
            held[place] = number
    return [held[place] for place in thinning.chosen()], thinning.places


@given(
    count=st.integers(1, 400),
    frames=st.integers(0, 40),
    seed=st.integers(0, 9),
    by=st.sampled_from(["spread", "difference"]),
)
def test_as_many_as_asked_for_in_order_and_few_are_held(count, frames, seed, by):
    selection = Selection(frames=frames, by=by, seed=seed)
    found, places = thinned(count, selection)
    assert len(found) == (min(frames, count) or count) and found == sorted(set(found)) and found[-1] < count
    assert places <= (2 * frames or count)
    assert thinned(count, selection)[0] == found


def test_spread_frames_come_from_every_stretch_and_the_seed_moves_them():
    found = np.array(thinned(1000, Selection(frames=10))[0])
    assert (np.abs(found - (np.arange(10) * 100 + 50)) <= 150).all() and np.diff(found).max() <= 250
    assert found.tolist() != thinned(1000, Selection(frames=10, seed=1))[0]


def test_still_stretches_do_not_dominate():
    """Of 1,000 frames only 100 move."""

    def image(number):
        return Image.fromarray(drawn(np.clip(number - 600, 0, 100) // 5 % 12))

    spread = thinned(1000, Selection(frames=20), image)[0]
    by_difference = thinned(1000, Selection(frames=20, by="difference"), image)[0]
    assert sum(600 <= number <= 700 for number in spread) <= 5
    assert sum(600 <= number <= 700 for number in by_difference) >= 14


def test_frames_of_a_folder_of_videos(tmp_path, monkeypatch):
    encode(tmp_path / "walk.mp4", count=30)
    encode(tmp_path / "run.mp4", count=4)
    read, frames = [], Video.frames
    monkeypatch.setattr(Video, "frames", lambda self, *given: read.append(self.path.name) or frames(self, *given))
    dataset = ClipFolder(tmp_path, 16, choice=Selection(every=2, frames=5, seed=3))
    assert read == ["run.mp4", "walk.mp4"]  # once each
    assert dataset.clips == [0] * 2 + [1] * 5 and dataset.paths[:2] == ["run.mp4/000000", "run.mp4/000002"]
    numbers = [int(path[-6:]) for path in dataset.paths[2:]]
    assert all(number % 2 == 0 for number in numbers)
    assert [bar_at(dataset.original(2 + i)) for i in range(5)] == [number % 12 for number in numbers]
    whole = ClipFolder(tmp_path, 16)
    for i, path in enumerate(dataset.paths):
        assert (dataset[i] == whole[whole.paths.index(path)]).all()
    assert ClipFolder(tmp_path, 16, choice=Selection(every=2, frames=5, seed=3)).paths == dataset.paths


def test_named_frames_alone(tmp_path):
    encode(tmp_path / "walk.mp4", count=12)
    dataset = ClipFolder(tmp_path, 16, choice=Selection(only={"walk.mp4/000007", "walk.mp4/000003", "a.png"}))
    assert dataset.paths == ["walk.mp4/000003", "walk.mp4/000007"] and bar_at(dataset.original(1)) == 7


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, "Selection: every must be an integer of at least 1, got 0"),
        ({"frames": -1}, "Selection: frames must be an integer of at least 0, got -1"),
        ({"by": "chance"}, "Selection: by must be one of spread, difference, got 'chance'"),
    ],
)
def test_what_is_no_selection(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Selection(**options)
