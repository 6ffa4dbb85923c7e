"""Videos and clips: reading and writing, the data set of frames, references within a clip, and poses of a video."""

import csv
import os
import pickle
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("av", reason="videos need the video extra")
pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

import av
from tiny import fails, run_steps

from ppl_fast.cli import main
from ppl_fast.data import ImageFolder, load_labels, open_set
from ppl_fast.data.clips import ClipFolder
from ppl_fast.data.video import Video, video_writer
from ppl_fast.training import load_model

CODECS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "avi": "mpeg4", "webm": "libvpx"}
SIZE = (48, 32)


def drawn(number: int, size=SIZE) -> np.ndarray:
    """uint8 (H, W, 3): grey, a bright bar at 4 * number, and a red patch at the top left."""
    image = np.full((size[1], size[0], 3), 60, np.uint8)
    image[:, 4 * number % size[0] :][:, :4] = 230
    image[:8, :8] = (220, 30, 30)
    return image


def bar_at(image: Image.Image) -> int:
    """The number that a frame was `drawn` with, up to the bar's period of 12."""
    return int(np.asarray(image, int)[16:].sum(axis=(0, 2)).reshape(-1, 4).sum(axis=1).argmax())


def encode(path, count=12, rate=25, size=SIZE, times=None, matrix=None, metadata=None):
    """A video of `drawn` frames, a key frame every fifth; ``times`` in ticks of 1 / rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = *size, "yuv420p", 5
        stream.bit_rate = 4_000_000
        if matrix:
            stream.set_display_matrix(matrix)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(drawn(i, size), format="rgb24")
            frame.pts = times[i] if times else i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


# Reading


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_in_order_with_their_times(tmp_path, suffix):
    video = Video(encode(tmp_path / f"a.{suffix}", rate=Fraction(30000, 1001) if suffix == "mp4" else 25))
    frames = list(video.frames())
    assert [frame.number for frame in frames] == list(range(12)) and video.length == 12
    assert [bar_at(frame.image) for frame in frames] == list(range(12))
    rate = Fraction(30000, 1001) if suffix == "mp4" else 25
    assert video.rate == rate and video.size == SIZE
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / float(rate), atol=1e-9)
    assert np.abs(np.asarray(frames[3].image, int) - drawn(3)).mean() < 8  # lossy, but the same colours


def test_uneven_times_and_every_nth_frame(tmp_path):
    times = [0, 1, 2, 5, 9, 10, 11, 20, 21, 22, 23, 30]
    frames = list(Video(encode(tmp_path / "a.mp4", times=times)).frames(every=3))
    assert [frame.number for frame in frames] == [0, 3, 6, 9] == [bar_at(frame.image) for frame in frames]
    np.testing.assert_allclose([frame.time for frame in frames], [0, 5 / 25, 11 / 25, 22 / 25])


TURNS = {  # display matrix a, b, c, d -> what makes `drawn` upright
    (1, 0, 0, 1): lambda image: image,
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: np.rot90(image, 2).transpose(1, 0, 2),
}


@pytest.mark.parametrize("signs", TURNS)
def test_rotated_and_mirrored_videos_become_upright(tmp_path, signs):
    a, b, c, d = (value << 16 for value in signs)
    video = Video(encode(tmp_path / "a.mp4", count=1, matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30)))
    expected = TURNS[signs](drawn(0))
    frame = next(video.frames())
    assert video.size == frame.image.size == expected.shape[1::-1]
    assert np.abs(np.asarray(frame.image, int) - expected).mean() < 8


@pytest.mark.parametrize("suffix", CODECS)
def test_any_frame_by_seeking(tmp_path, suffix):
    video = Video(encode(tmp_path / f"a.{suffix}"))
    frames = list(video.frames())
    for i in (11, 0, 7, 4, 5):
        assert np.array_equal(video.image(i, frames[i].pts), frames[i].image)
    assert np.array_equal(video.image(6, None), frames[6].image)


def test_frames_are_decoded_as_they_are_asked_for(tmp_path, monkeypatch):
    """All frames at once would be what a long video cannot afford."""
    decoded = []
    video = Video(encode(tmp_path / "a.mp4"))
    from ppl_fast.data import video as module

    upright = module._upright
    monkeypatch.setattr(module, "_upright", lambda raw: decoded.append(raw.pts) or upright(raw))
    frames = video.frames()
    assert decoded == []
    next(frames)
    next(frames)
    assert len(decoded) == 2


def test_what_is_no_video_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.mp4 does not exist"):
        Video(tmp_path / "gone.mp4")
    for name, content in (("empty.mp4", b""), ("text.avi", b"no video " * 100)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} could not be decoded as a video: Invalid data"):
            Video(tmp_path / name)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match="sound.mp4 has no video stream"):
        Video(tmp_path / "sound.mp4")


@pytest.mark.parametrize("suffix", CODECS)
def test_truncated_videos_are_found(tmp_path, suffix):
    path = cut(encode(tmp_path / f"a.{suffix}", count=50), 0.6)
    # The index of MP4 and MOV is at the end; the others open, and end too early.
    reason = "could not be decoded as a video" if suffix in ("mp4", "mov") else "was cut short: it ends after"
    with pytest.raises(ValueError, match=rf"a\.{suffix} {reason}"):
        list(Video(path).frames())


def test_missing_extra_names_the_command(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from ppl_fast.data.clips import ClipFolder\n"
        f"try: ClipFolder({str(tmp_path)!r}, 16)\n"
        "except ImportError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "videos need av, which is not installed: pip install 'ppl_fast[video]'\n"


# Writing


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_written_video_has_the_frames_times_and_rate_of_its_source(tmp_path, suffix):
    source = Video(encode(tmp_path / "a.webm" if suffix == "mkv" else tmp_path / "a.mp4", times=[*range(11), 17]))
    with video_writer(tmp_path / f"b.{suffix}", source.size, source.rate, source.tick) as write:
        for frame in source.frames():
            write(frame.image, frame.time)
    copy = Video(tmp_path / f"b.{suffix}")
    for before, after in zip(source.frames(), copy.frames(), strict=True):
        assert after.time == pytest.approx(before.time, abs=1e-9)
        assert np.abs(np.asarray(after.image, int) - np.asarray(before.image)).mean() < 4
    assert copy.size == source.size and copy.rate == source.rate
    with av.open(str(copy.path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")


def test_colours_are_kept_and_named(tmp_path):
    colours = [(220, 30, 30), (30, 200, 60), (40, 60, 210), (240, 240, 240)]
    image = np.repeat(np.array([colours], np.uint8), 16, axis=1).repeat(32, axis=0)
    with video_writer(tmp_path / "a.mp4", (64, 32), Fraction(25), Fraction(1, 25)) as write:
        write(Image.fromarray(image), 0)
    found = np.asarray(next(Video(tmp_path / "a.mp4").frames()).image)
    np.testing.assert_allclose(found[16, 8::16].astype(int), colours, atol=4)  # another matrix would be 20 off
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (1, 1)


def test_odd_sizes_and_the_encoder_without_h264(tmp_path, monkeypatch):
    for name, codecs in (("h264", av.codecs_available), ("mpeg4", {"mpeg4"})):
        monkeypatch.setattr(av, "codecs_available", codecs)
        with video_writer(tmp_path / "a.mp4", (33, 17), Fraction(24000, 1001), Fraction(1, 90_000)) as write:
            for i in range(5):
                write(Image.fromarray(drawn(i, (33, 17))), i * 1001 / 24000)
        video = Video(tmp_path / "a.mp4")
        assert video.size == (33, 17)
        times = [frame.time for frame in video.frames()]
        np.testing.assert_allclose(times, np.arange(5) * 1001 / 24000, atol=1 / 60_000)
        with av.open(str(tmp_path / "a.mp4")) as container:
            assert container.streams.video[0].codec_context.name == name


def test_interrupted_writing_leaves_the_old_file(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"old")
    with (
        pytest.raises(KeyboardInterrupt),
        video_writer(tmp_path / "a.mp4", SIZE, Fraction(25), Fraction(1, 25)) as write,
    ):
        write(Image.fromarray(drawn(0)), 0)
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a.mp4"] and (tmp_path / "a.mp4").read_bytes() == b"old"
    with pytest.raises(ValueError, match=r"a\.webm must end in \.mkv, \.mov, \.mp4"):
        video_writer(tmp_path / "a.webm", SIZE, Fraction(25), Fraction(1, 25)).__enter__()


# Clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two folders of frames, numbered without leading zeros, and two videos."""
    root = tmp_path_factory.mktemp("clips")
    for clip, count in (("clip2", 11), ("clip10", 3)):
        (root / clip).mkdir()
        for i in range(count):
            Image.fromarray(drawn(i)).save(root / clip / f"{i}.png")
    encode(root / "clip3.mp4", count=7)
    encode(root / "far" / "b.avi", count=5, size=(64, 48))
    (root / "notes.doc").write_text("x")
    return root


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


def test_every_nth_frame_of_each_clip(clips):
    dataset = ClipFolder(clips, 16, every=3)
    assert dataset.clips == [0] * 4 + [1] * 3 + [2] + [3] * 2
    assert [bar_at(dataset.original(i)) for i in range(7)] == [0, 3, 6, 9, 0, 3, 6]


def test_cache_pickle_and_loading_processes_give_the_same_frames(clips):
    mapped, cached = ClipFolder(clips, 16), ClipFolder(clips, 16, cache=True)
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
    cached = ClipFolder(clips, 16, cache=True)
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
    with pytest.raises(ValueError, match="image_size must be an integer from 8 on, got 4"):
        ClipFolder(tmp_path, 4)
    with pytest.raises(ValueError, match="every must be an integer of at least 1, got 0"):
        ClipFolder(tmp_path, 16, every=0)


# Poses


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    run_steps(images, out, 3)
    return out


def rows(path) -> list[list[str]]:
    return list(csv.reader(path.open()))


def test_poses_of_a_video_are_those_of_its_frames(run, tmp_path):
    video = Video(encode(tmp_path / "walk.mp4", times=[*range(11), 14]))
    (tmp_path / "frames").mkdir()
    for frame in video.frames():
        frame.image.save(tmp_path / "frames" / f"{frame.number:02d}.png")
    options = ["--batch-size", "5", "--iterations", "2", "--device", "cpu"]
    outputs = [f"--{key}={tmp_path / 'out' / name}" for key, name in (("out", "v.csv"), ("coco", "v.json"))]
    overlay = tmp_path / "out" / "v.mp4"
    assert main(["estimate", str(run), str(video.path), *outputs, f"--overlay={overlay}", *options]) == 0
    assert main(["estimate", str(run), str(tmp_path / "frames"), f"--out={tmp_path / 'i.csv'}", *options]) == 0
    header, *found = rows(tmp_path / "out" / "v.csv")
    names, *expected = rows(tmp_path / "i.csv")
    assert header == ["file", "frame", "time", *names[1:]]
    assert [row[:3] for row in found] == [["walk.mp4", str(f.number), f"{f.time:.6f}"] for f in video.frames()]
    assert [row[3:] for row in found] == [row[1:] for row in expected]
    labels = load_labels(tmp_path / "out" / "v.json")
    assert labels.files == [f"walk.mp4/{i:06d}" for i in range(12)]
    np.testing.assert_allclose(labels.keypoints.reshape(12, -1), np.array([row[3:] for row in found], float))

    drawn_on = Video(overlay)
    assert (drawn_on.size, drawn_on.rate, drawn_on.length) == (SIZE, video.rate, 12)
    weights = load_model(run).link_weights()
    assert (weights > 0).any()
    for before, after in zip(video.frames(), drawn_on.frames(), strict=True):
        assert after.time == pytest.approx(before.time)
        assert np.abs(np.asarray(after.image, int) - np.asarray(before.image)).max() > 60  # something was drawn
    assert sorted(os.listdir(tmp_path / "out")) == ["v.csv", "v.json", "v.mp4"]


def test_poses_of_images_and_videos_in_one_folder(run, clips, tmp_path, capsys):
    arguments = ["estimate", run, clips, "--out", tmp_path / "p.csv", "--overlay", tmp_path / "o", "--batch-size", 4]
    assert main([str(argument) for argument in arguments]) == 0
    found = rows(tmp_path / "p.csv")[1:]
    assert [row[0] for row in found if row[1] == ""] == ImageFolder(clips, 32).paths
    assert [row[:2] for row in found if row[0] == "clip3.mp4"] == [["clip3.mp4", str(i)] for i in range(7)]
    assert Video(tmp_path / "o/far/b.avi.mp4").length == 5 and Video(tmp_path / "o/far/b.avi.mp4").size == (64, 48)
    assert (tmp_path / "o/clip2/7.png.png").is_file()
    assert "clip3.mp4" not in capsys.readouterr().out.partition("ignored")[2]


def test_bad_videos_and_outputs_are_one_sentence_and_leave_nothing(run, tmp_path, capsys):
    video = encode(tmp_path / "in" / "a.mp4")
    half = cut(encode(tmp_path / "in" / "half.mkv", count=50), 0.6)
    (tmp_path / "in" / "text.mp4").write_text("no video")
    out, overlay = tmp_path / "p.csv", tmp_path / "o.mp4"
    for path, message in ((half, "half.mkv"), (tmp_path / "in" / "text.mp4", "could not be decoded as a video")):
        assert message in fails(capsys, "estimate", run, path, "--out", out, "--overlay", overlay)
    assert "1 of 3 videos are unusable" in fails(capsys, "estimate", run, tmp_path / "in", "--out", out)
    broken_off = fails(capsys, "estimate", run, tmp_path / "in", "--out", out, "--max-bad-share", 0.4)
    assert "half.mkv was cut short" in broken_off
    assert "must end in .mkv, .mov, .mp4" in fails(
        capsys, "estimate", run, video, "--out", out, "--overlay", tmp_path / "o"
    )
    before = video.read_bytes()
    assert "--overlay must not be the input" in fails(capsys, "estimate", run, video, "--out", out, "--overlay", video)
    assert "--out must not be the input" in fails(capsys, "estimate", run, video, "--out", video)
    assert video.read_bytes() == before
    assert os.listdir(tmp_path) == ["in"]


def test_interruption_leaves_nothing(run, tmp_path, monkeypatch, capsys):
    video = encode(tmp_path / "a.mp4")
    model = type(load_model(run))
    estimate, calls = model.estimate, []

    def interrupted(self, images, **options):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return estimate(self, images, **options)

    monkeypatch.setattr(model, "estimate", interrupted)
    arguments = [run, video, "--out", tmp_path / "p.csv", "--overlay", tmp_path / "o.mp4", "--batch-size", 5]
    assert main(["estimate", *map(str, arguments)]) == 130
    assert calls == [5, 5] and os.listdir(tmp_path) == ["a.mp4"]


def test_a_folder_with_videos_is_a_folder_of_clips(tmp_path):
    encode(tmp_path / "a.mp4", 3)
    found = open_set(tmp_path, 32)
    assert isinstance(found.dataset, ClipFolder) and found.dataset.clips == [0, 0, 0] and found.labels is None
    assert len(open_set(tmp_path / "a.mp4", 32).dataset) == 3
