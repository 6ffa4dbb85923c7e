"""Videos as cameras, phones, recorders and tools make them: every frame, and no whole file called cut short."""

import io
import struct
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("av", reason="videos need the video extra")

import av
from video_files import CODECS, FURTHER_CODECS, SIZE, bar_at, cut, drawn, encode, record

from ppl_fast.data.clips import ClipFolder
from ppl_fast.data.kinds import VIDEO_SUFFIXES
from ppl_fast.data.video import Video
from ppl_fast.data.video_writer import video_writer

SUFFIXES = [suffix for suffix, codec in (CODECS | FURTHER_CODECS).items() if codec in av.codecs_available]


def bars(path) -> list[int]:
    return [bar_at(frame.image) for frame in Video(path).frames()]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_container(tmp_path, suffix):
    """Also those without timestamps (h264), with them from another start than 0 (ts, mpg), and without durations."""
    path = record(tmp_path / f"a.{suffix}")
    video = Video(path)
    frames = list(video.frames())
    assert [bar_at(frame.image) for frame in frames] == list(range(12)) and video.size == SIZE
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(12) / 25, atol=1e-3)
    np.testing.assert_allclose([frame.duration for frame in frames], 1 / 25, atol=1e-3)
    assert path.suffix in VIDEO_SUFFIXES and len(ClipFolder(path, 16)) == 12
    for i in (11, 3):
        assert np.array_equal(video.image(i, frames[i].pts), frames[i].image)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm", "ts", "avi"])
def test_sound_that_goes_on_after_the_picture(tmp_path, suffix):
    assert bars(record(tmp_path / f"a.{suffix}", sound=2)) == list(range(12))
    if suffix in ("mkv", "webm"):  # no longer sound excuses a film that ends too early
        path = record(tmp_path / f"b.{suffix}", count=50, sound=2.2)
        with pytest.raises(ValueError, match="was cut short: it ends after"):
            list(Video(cut(path, 0.5)).frames())


def test_sound_that_goes_on_where_the_file_has_one_duration_for_all(tmp_path):
    """Matroska's tags are optional: what is left is the end of the sound."""
    path = record(tmp_path / "a.mkv", count=25, sound=3)
    data = path.read_bytes()
    assert data.count(b"DURATION") == 2
    path.write_bytes(data.replace(b"DURATION", b"NOTHING_"))
    assert len(list(Video(path).frames())) == 25
    with pytest.raises(ValueError, match=r"cut short: it ends after [012]\.\d+ of 3\.\d+ s"):
        list(Video(cut(path, 0.7)).frames())


@pytest.mark.parametrize("suffix", [s for s in SUFFIXES if s not in ("h264", "gif")])
def test_late_start(tmp_path, suffix):
    """Recorders start the sound first; parts of longer recordings keep their times."""
    assert bars(record(tmp_path / f"a.{suffix}", late=100))[-12:] == list(range(12))  # AVI repeats the first frame
    if suffix in ("mkv", "mp4"):
        frames = list(Video(record(tmp_path / f"b.{suffix}", late=100, sound=3)).frames())
        assert len(frames) == 12 and frames[0].time == 0


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_last_frame_that_stays(tmp_path, suffix):
    """Variable rate: screen recordings, slide shows. The overlay stays as long."""
    video = Video(record(tmp_path / f"a.{suffix}", last=Fraction(2)))
    frames = list(video.frames())
    assert [bar_at(frame.image) for frame in frames] == list(range(12))
    assert frames[-1].duration == 2 and frames[-2].duration == pytest.approx(0.04)
    like = video.size, video.rate, video.tick, video.aspect
    with video_writer(tmp_path / f"b.{suffix}", *like) as write:
        for frame in frames:
            write(frame.image, frame.time, frame.duration)
    copy = list(Video(tmp_path / f"b.{suffix}").frames())
    assert [(f.time, f.duration) for f in copy] == [(f.time, f.duration) for f in frames]
    assert Video(tmp_path / f"b.{suffix}").rate == video.rate


def test_edit_list_that_shows_a_part(tmp_path):
    """Phones trim without encoding anew: what is cut off stays in the file, and no player shows it."""
    path = record(tmp_path / "a.mp4", count=25, options={"bf": "0"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # version, flags and number of entries
    assert struct.unpack(">Ii", data[at : at + 8]) == (1000, 0)
    data[at : at + 8] = struct.pack(">Ii", 400, 512 * 5)  # 0.4 s from the sixth frame on
    path.write_bytes(data)
    frames = list(Video(path).frames())
    assert [bar_at(frame.image) for frame in frames] == [i % 12 for i in range(5, 15)]
    assert frames[0].time == 0


def test_film_beside_a_cover_picture(tmp_path):
    path = with_cover(encode(tmp_path / "film.mp4"))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2 and container.streams.video[0].codec_context.name == "mjpeg"
    assert Video(path).size == SIZE and bars(path) == list(range(12))
    sound = with_cover(record(tmp_path / "song.mp4", count=0, sound=1))
    with pytest.raises(ValueError, match=r"song\.mp4 has no video stream"):
        Video(sound)


def test_the_default_film_of_two(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        for number, size in enumerate([(64, 48), SIZE]):
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.disposition = av.stream.Disposition.default if number else av.stream.Disposition.dub
        for i in range(12):
            for stream in container.streams.video:
                size = stream.width, stream.height
                frame = av.VideoFrame.from_ndarray(drawn(i, size), format="rgb24")
                frame.pts = i
                container.mux(stream.encode(frame))
        for stream in container.streams.video:
            container.mux(stream.encode(None))
    assert Video(path).size == SIZE and bars(path) == list(range(12))


def test_subtitles_that_outlast_the_film(tmp_path):
    path = record(tmp_path / "a.mkv", subtitle=4)
    with av.open(str(path)) as container:
        assert [s.type for s in container.streams] == ["video", "subtitle"] and container.duration == 4_000_000
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"NOTHING_"))
    assert bars(path) == list(range(12))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_pixels_that_are_not_square(tmp_path, suffix, turned):
    matrix = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30) if turned else None
    video = Video(record(tmp_path / f"a.{'mp4' if turned else suffix}", aspect=Fraction(64, 45), matrix=matrix))
    size, aspect = ((32, 48), Fraction(45, 64)) if turned else (SIZE, Fraction(64, 45))
    assert (video.size, video.aspect) == (size, aspect)
    with video_writer(tmp_path / f"b.{suffix}", video.size, video.rate, video.tick, video.aspect) as write:
        for frame in video.frames():
            write(frame.image, frame.time)
    copy = Video(tmp_path / f"b.{suffix}")
    assert (copy.size, copy.aspect) == (size, aspect)


def test_ten_bit_colours(tmp_path):
    frames = list(Video(record(tmp_path / "a.mp4", pix_fmt="yuv420p10le")).frames())
    assert [bar_at(frame.image) for frame in frames] == list(range(12))
    assert np.abs(np.asarray(frames[3].image, int) - drawn(3)).mean() < 8


def test_rotation_that_was_rounded(tmp_path):
    matrix = (3, 65536, 0, -65536, -2, 0, 0, 0, 1 << 30)
    assert Video(record(tmp_path / "a.mp4", matrix=matrix)).size == SIZE[::-1]


def test_a_recording_that_begins_between_key_frames(tmp_path):
    path = record(tmp_path / "a.ts", count=84, options={"bf": "0", "g": "36", "x264-params": "scenecut=0"})
    data = path.read_bytes()
    path.write_bytes(data[188 * round(len(data) * 0.2 / 188) :])
    assert bars(path) == [i % 12 for i in range(36, 84)]  # from the second key frame on


def test_a_clock_that_starts_again(tmp_path):
    """Parts of a recording put end to end: times go on, every frame is found again, and an overlay can be written."""
    parts = [record(tmp_path / f"{i}.ts", options={"bf": "0"}).read_bytes() for i in range(2)]
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    video = Video(tmp_path / "a.ts")
    frames = list(video.frames())
    assert [bar_at(frame.image) for frame in frames] == [*range(12), *range(12)]
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(24) / 25, atol=1e-3)
    assert np.array_equal(video.image(20, frames[20].pts), frames[20].image)
    with video_writer(tmp_path / "b.mp4", video.size, video.rate, video.tick) as write:
        for frame in frames:
            write(frame.image, frame.time)
    assert [round(frame.time, 3) for frame in Video(tmp_path / "b.mp4").frames()] == [i / 25 for i in range(24)]


def test_frames_at_one_time_are_written_one_after_the_other(tmp_path):
    with video_writer(tmp_path / "a.mp4", SIZE, Fraction(25), Fraction(1, 25)) as write:
        for i, time in enumerate((0, 0.04, 0.04, 0.05)):
            write(Image.fromarray(drawn(i)), time)
    frames = list(Video(tmp_path / "a.mp4").frames())
    assert [bar_at(f.image) for f in frames] == [0, 1, 2, 3] and [f.time for f in frames] == [0, 0.04, 0.08, 0.12]


def with_cover(path):
    """The MP4 file with an album's cover in its tags, which FFmpeg gives as the first video stream."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(picture, "JPEG")
    cover = atom(b"covr", atom(b"data", struct.pack(">II", 13, 0) + picture.getvalue()))
    handler = atom(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    tags = atom(b"udta", atom(b"meta", bytes(4) + handler + atom(b"ilst", cover)))
    data = path.read_bytes()
    begin = data.rindex(b"moov") - 4  # the index lies at the end
    body = data[begin + 8 :]
    header = struct.unpack(">I", body[:4])[0]
    path.write_bytes(data[:begin] + atom(b"moov", body[:header] + tags + body[header:]))
    return path


def atom(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + kind + body
