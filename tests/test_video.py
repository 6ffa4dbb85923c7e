"""Videos: reading and writing."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason="videos need the video extra")

import av
from video_files import CODECS, SIZE, bar_at, cut, drawn, encode

from ppl_fast.data.video import Video
from ppl_fast.data.video_writer import video_writer


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


@pytest.mark.parametrize("signs", [None, (0, 1, -1, 0)])
def test_frames_that_will_be_small_come_reduced(tmp_path, signs):
    """To twice the side or little more; what they become is what the whole would, but for rounding."""
    a, b, c, d = (value << 16 for value in signs or (1, 0, 0, 1))
    matrix = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    video = Video(encode(tmp_path / "a.mp4", count=3, size=(336, 144), matrix=matrix))
    for size, reduced in ((16, (84, 36)), (20, (112, 48)), (36, (168, 72)), (37, (336, 144))):
        for frame in video.frames(size=size):
            image = frame.image
            assert frame.whole().size == video.size
            assert image.size == (reduced if signs is None else reduced[::-1])
            squares = [
                np.asarray(each.resize((size, size), Image.Resampling.BILINEAR), int) for each in (image, frame.whole())
            ]
            assert np.abs(np.subtract(*squares)).mean() < 2


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
    monkeypatch.setattr(module, "_upright", lambda raw, size: decoded.append(raw.pts) or upright(raw, size))
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


@pytest.mark.slow
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
