"""Clips: the data set of frames."""

import os
import pickle

import pytest
import torch

pytest.importorskip("av", reason="videos need the video extra")

from video_files import SIZE, bar_at, cut, encode

from ppl_fast.data import ImageFolder, open_set
from ppl_fast.data.clips import ClipFolder
from ppl_fast.data.video import Video
from ppl_fast.options.footage import Framing


def test_clips_of_folders_and_videos_in_natural_order(clips):
    dataset = ClipFolder(clips, 16)
    assert dataset.clip_names == ["clip2", "clip3.mp4", "clip10", "far/b.avi"]
    assert dataset.clips == [0] * 11 + [1] * 7 + [2] * 3 + [3] * 5
    assert dataset.paths[:11] == [f"clip2/{i}.png" for i in range(11)]
    assert dataset.paths[11:18] == [f"clip3.mp4/{i:06d}" for i in range(7)]
    assert dataset.original_sizes == [SIZE] * 21 + [(64, 48)] * 5
    assert len(dataset) == len(set(dataset.paths)) == 26
    assert [bar_at(dataset.original(i)) for i in range(18)] == [*range(11), *range(7)]
    assert dataset.skipped == [] and dataset.ignored == ["notes.doc"]
    assert "26 images" in dataset.report() and "frames of 4 clips" in dataset.report()


def test_frames_of_videos_are_what_the_same_images_would_be(clips, tmp_path):
    for frame in Video(clips / "clip3.mp4").frames():
        frame.image.save(tmp_path / f"{frame.number}.png")
    images, frames = ImageFolder(tmp_path, 16), ClipFolder(clips / "clip3.mp4", 16)
    assert len(images) == len(frames) == 7
    for i in range(7):
        assert torch.equal(images[i], frames[i])
        assert frames[i].dtype == torch.float32 and frames[i].shape == (3, 16, 16)


def test_large_frames_of_videos_come_reduced(tmp_path, monkeypatch):
    """As the same images would be, but for a level or two of 255; originals are whole, and so is what is cut."""
    asked, frames = [], Video.frames
    monkeypatch.setattr(Video, "frames", lambda self, *how: asked.append(how[-1]) or frames(self, *how))
    encode(tmp_path / "clips/a.mp4", count=3, size=(336, 144))
    small = ClipFolder(tmp_path / "clips", 16)
    assert asked == [16] and small.original(2).size == (336, 144)
    for number in range(3):
        (tmp_path / "images").mkdir(exist_ok=True)
        small.original(number).save(tmp_path / f"images/{number}.png")
    images = ImageFolder(tmp_path / "images", 16)
    assert max((images[i] - small[i]).abs().mean() for i in range(3)) < 2 / 127.5
    asked.clear()
    open_set(tmp_path / "clips", 16, framing=Framing("pad"))
    assert asked == [None]


def test_every_nth_frame_of_each_clip(clips):
    dataset = ClipFolder(clips, 16, every=3)
    assert dataset.clips == [0] * 4 + [1] * 3 + [2] + [3] * 2
    assert [bar_at(dataset.original(i)) for i in range(7)] == [0, 3, 6, 9, 0, 3, 6]


def test_cache_pickle_and_loading_processes_give_the_same_frames(clips):
    mapped, cached = ClipFolder(clips, 16), ClipFolder(clips, 16, cache="memory")
    expected = torch.stack([mapped[i] for i in range(26)])
    assert torch.equal(expected, torch.stack([cached[i] for i in range(26)]))
    pickled = pickle.dumps(mapped)
    assert len(pickled) < 26 * 3 * 16 * 16
    assert torch.equal(expected, torch.stack([pickle.loads(pickled)[i] for i in range(26)]))
    loader = torch.utils.data.DataLoader(mapped, batch_size=13, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(expected, torch.cat(list(loader)))
    assert torch.equal(expected[12], mapped[12])  # the file outlives the processes


def test_temporary_file_goes_with_the_data_set(clips, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dataset = ClipFolder(clips, 16)
    dataset[12]
    assert len(os.listdir(tmp_path)) == 1
    del dataset
    assert os.listdir(tmp_path) == []
    cached = ClipFolder(clips, 16, cache="memory")
    assert not any(files for _, _, files in os.walk(tmp_path))
    assert cached[12].shape == (3, 16, 16)


def test_unusable_videos_are_skipped_with_reasons_or_refused(tmp_path):
    for i in range(4):
        encode(tmp_path / f"good{i}.mp4", count=3)
    cut(encode(tmp_path / "cut.webm", count=40))
    (tmp_path / "text.mp4").write_text("no video")
    dataset = ClipFolder(tmp_path, 16, max_bad_share=0.5)
    assert dataset.clip_names == [f"good{i}.mp4" for i in range(4)] and len(dataset) == 12
    assert "was cut short" in dict(dataset.skipped)["cut.webm"]
    assert "could not be decoded" in dict(dataset.skipped)["text.mp4"] and "text.mp4" in dataset.report()
    assert [bar_at(dataset.original(i)) for i in range(3, 6)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"2 of 6 videos are unusable, at most a share of 0.1"):
        ClipFolder(tmp_path, 16)


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected images .* or videos .* in .*, got none"):
        ClipFolder(tmp_path, 16)
    with pytest.raises(ValueError, match="nowhere is missing; expected a folder of images"):
        ClipFolder(tmp_path / "nowhere", 16)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="a.txt is another file"):
        ClipFolder(tmp_path / "a.txt", 16)
    with pytest.raises(ValueError, match="image_size must be an integer of at least 8, got 4"):
        ClipFolder(tmp_path, 4)
    with pytest.raises(ValueError, match="every must be an integer of at least 1, got 0"):
        ClipFolder(tmp_path, 16, every=0)


def test_a_folder_with_videos_is_a_folder_of_clips(tmp_path):
    encode(tmp_path / "a.mp4", 3)
    found = open_set(tmp_path, 32)
    assert isinstance(found.dataset, ClipFolder) and found.dataset.clips == [0, 0, 0] and found.labels is None
    assert len(open_set(tmp_path / "a.mp4", 32).dataset) == 3
