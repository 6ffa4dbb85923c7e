"""Videos made to harm: those that name other files, of enormous frames, of names that are addresses."""

import os
import shutil

import pytest

pytest.importorskip("av", reason="videos need the video extra")

import av
from tiny import MODEL, fails
from video_files import SIZE, encode

from ppl_fast.data import ClipFolder
from ppl_fast.data.video import Video
from ppl_fast.inference import open_source

PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile other.mp4\n",
    "itself": "ffconcat version 1.0\nfile list.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>other.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_is_no_video(tmp_path, kind):
    encode(tmp_path / "other.mp4")
    (tmp_path / "list.mp4").write_text(PLAYLISTS[kind])
    with pytest.raises(ValueError, match=r"list\.mp4 could not be decoded as a video"):
        Video(tmp_path / "list.mp4")


@pytest.mark.parametrize("name", ["http:a.mp4", "pipe:0.mp4", "concat:a.mp4", "a%03d.mp4", "-a.mp4", "caf\udce9.mp4"])
def test_names_that_ffmpeg_reads_otherwise(tmp_path, monkeypatch, name):
    try:
        shutil.copy(encode(tmp_path / "whole.mp4"), tmp_path / name)
    except OSError:
        pytest.skip(f"this file system has no {name!r}")
    monkeypatch.chdir(tmp_path)
    assert len(list(Video(name).frames())) == 12


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match=r"video .*a\.mp4: not a regular file, but a named pipe"):
        Video(tmp_path / "a.mp4")
    encode(tmp_path / "b.mp4")
    assert ClipFolder(tmp_path, 16, max_bad_share=0.5).clip_names == ["b.mp4"]


def test_a_limit_on_the_pixels_of_a_frame(tmp_path):
    encode(tmp_path / "a.mp4")
    encode(tmp_path / "large.mp4", size=(96, 64))
    limits = {"max_pixels": SIZE[0] * SIZE[1], "max_bad_share": 0.5}
    clips = ClipFolder(tmp_path, 16, **limits)
    why = f"video {tmp_path / 'large.mp4'} has 96 x 64 pixels, more than max_pixels allows, 1536"
    assert clips.clip_names == ["a.mp4"] and clips.skipped == [("large.mp4", why)]
    assert open_source(tmp_path, 16, **limits).skipped == clips.skipped
    with pytest.raises(ValueError, match="more than max_pixels allows"):
        open_source(tmp_path / "large.mp4", 16, max_pixels=1536)
    with pytest.raises(ValueError, match="max_pixels must be an integer of at least 1, got 0"):
        Video(tmp_path / "a.mp4", max_pixels=0)


def test_frames_that_grow(tmp_path):
    """The header that the file begins with says nothing of those that follow."""
    parts = [tmp_path / f"{name}.mjpeg" for name in ("a", "b")]
    for part, size in zip(parts, (SIZE, (960, 640)), strict=True):
        with av.open(str(part), "w") as container:
            stream = container.add_stream("mjpeg", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame(*size, "yuvj420p")))
            container.mux(stream.encode(None))
    grown = tmp_path / "grown.mjpeg"
    grown.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    with pytest.raises(ValueError, match=r"grown\.mjpeg"):
        list(Video(grown, max_pixels=2000).frames())
    assert len(list(Video(parts[0], max_pixels=SIZE[0] * SIZE[1]).frames())) == 3


def test_the_limit_is_an_option_of_evaluate(tmp_path, capsys):
    pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
    from ppl_fast import ExtendedPPL
    from ppl_fast.data import make_figures

    make_figures(tmp_path / "figures", 12, size=32)
    ExtendedPPL(**MODEL).save_pretrained(tmp_path / "m")
    told = fails(capsys, "evaluate", tmp_path / "m", tmp_path / "figures", "--max-pixels", 1023)
    assert "32 x 32 pixels, more than max_pixels allows, 1023" in told
