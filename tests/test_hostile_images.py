"""Images of enormous sizes, files that are none, and links in circles."""

import os
import socket
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import MODEL, fails

from ppl_fast.cli import main
from ppl_fast.data import ImageFolder, open_set
from ppl_fast.data.image_file import UNREADABLE, load_resized, upright_size
from ppl_fast.data.images import list_files
from ppl_fast.inference.media import open_source
from ppl_fast.models import ExtendedPPL
from ppl_fast.training import TrainConfig


def picture(path, size=(40, 30), **options):
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2] = 200
    Image.fromarray(pixels).save(path, **options)
    return path


def announcing(path, width, height):
    """A PNG of a few bytes that announces this size."""

    def part(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    parts = part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_a_limit_on_pixels_is_an_option(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        picture(tmp_path / name)
    picture(tmp_path / "large.png", (64, 40))
    folder = ImageFolder(tmp_path, 16, max_pixels=1200, max_bad_share=0.25)
    assert folder.paths == ["a.png", "b.png", "c.png"]
    assert folder.skipped == [("large.png", "64 x 40 pixels, more than max_pixels allows, 1200")]
    assert len(open_set(tmp_path, 16, max_pixels=64 * 40).dataset) == 4
    with pytest.raises(ValueError, match="max_pixels must be an integer of at least 64"):
        ImageFolder(tmp_path, 16, max_pixels=0)
    assert TrainConfig(max_pixels=1200).max_pixels == 1200


def test_the_limit_reaches_estimation(tmp_path, capsys):
    picture(tmp_path / "a.png")
    assert len(open_source(tmp_path, 16, max_pixels=1200).parts[0].images) == 1
    with pytest.raises(ValueError, match="40 x 30 pixels, more than max_pixels allows, 1199"):
        open_source(tmp_path, 16, max_pixels=1199)
    ExtendedPPL(**MODEL).save_pretrained(tmp_path / "m")
    command = ("estimate", tmp_path / "m", tmp_path, "--out", tmp_path / "o.csv", "--max-pixels")
    assert "more than max_pixels allows, 1199" in fails(capsys, *command, 1199)
    assert main([str(argument) for argument in (*command, 1200)]) == 0


def test_hundreds_of_megapixels_are_refused_by_the_header(tmp_path):
    picture(tmp_path / "a.png")
    announcing(tmp_path / "b.png", 30_000, 30_000)
    announcing(tmp_path / "c.png", 2**31 - 1, 2**31 - 1)
    folder = ImageFolder(tmp_path, 16, max_bad_share=0.7)
    assert [reason.partition(",")[0] for _, reason in folder.skipped] == [
        "30000 x 30000 pixels",
        "2147483647 x 2147483647 pixels",
    ]


def test_no_more_memory_is_taken_than_a_file_is_long(tmp_path):
    """A part of a PNG that announces 4 GB, and an entry of a TIFF that does."""
    png = picture(tmp_path / "a.png").read_bytes()
    at = png.index(b"IDAT") - 4
    (tmp_path / "a.png").write_bytes(png[:at] + b"\xff\xff\xff\xf0" + png[at + 4 :])
    tiff = picture(tmp_path / "b.tif").read_bytes()
    first = int.from_bytes(tiff[4:8], "little") + 2
    spoilt = tiff[: first + 2] + struct.pack("<HI", 1, 0xFFFFFFF0) + tiff[first + 8 :]
    (tmp_path / "b.tif").write_bytes(spoilt)
    for name in ("a.png", "b.tif"):
        tracemalloc.start()
        try:
            upright_size(tmp_path / name, 16)
            load_resized(tmp_path / name, 16)
        except UNREADABLE:
            pass
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
        tracemalloc.stop()


def test_a_jpeg_counts_as_it_is_decoded(tmp_path):
    """800 x 600 are read as 100 x 75 for a side of 32; progressive ones are held whole."""
    path = picture(tmp_path / "a.jpg", (800, 600))
    folder = ImageFolder(tmp_path, 32, max_pixels=100 * 75)
    assert folder.original_sizes == [(800, 600)]
    whole = ImageFolder(tmp_path, 32)[0]
    assert torch.equal(folder[0], whole) and whole[:, :14].min() > 0.5 > -0.5 > whole[:, 18:].max()
    with pytest.raises(ValueError, match="800 x 600 pixels, more than max_pixels allows, 7500"):
        folder.original(0)
    with pytest.raises(ValueError, match="800 x 600 pixels, more than"):
        upright_size(path, 32, max_pixels=100 * 75 - 1)
    picture(path, (800, 600), progressive=True)
    with pytest.raises(ValueError, match="800 x 600 pixels, more than"):
        upright_size(path, 32, max_pixels=100 * 75)
    assert upright_size(path, 32, max_pixels=800 * 600) == (800, 600)


def test_a_jpeg_beyond_pillows_own_limit_is_read_small(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    picture(tmp_path / "a.jpg", (800, 600))
    assert ImageFolder(tmp_path, 32)[0].shape == (3, 32, 32)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\nshowpage\n",
        b"SIMPLE  =                    T".ljust(2880),
        b"P7 332\n40 30 255\n" + bytes(1200),
        b"/* XPM */\n",
        b"",
    ],
)
def test_formats_of_other_kinds_are_not_tried(tmp_path, content, monkeypatch):
    """PostScript, for one, is drawn by another program."""
    monkeypatch.setattr(os, "system", None)
    monkeypatch.setattr("subprocess.Popen", None)
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(content)
    folder = ImageFolder(tmp_path, 16, max_bad_share=0.5)
    assert folder.skipped == [("b.png", "not an image of a known format")]


def test_what_is_no_file_is_not_opened(tmp_path):
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
    folder = ImageFolder(tmp_path, 16, max_bad_share=0.9)
    assert folder.paths == ["a.png"]
    reasons = dict(folder.skipped)
    assert reasons["pipe.png"] == "not a regular file, but a named pipe"
    assert reasons["socket.png"] == "not a regular file, but a socket"
    assert reasons["device.jpg"] == "not a regular file, but a device"
    assert "symbolic links" in reasons["circle.png"] and "No such file" in reasons["gone.png"]


def test_videos_that_are_no_files_are_skipped(tmp_path):
    pytest.importorskip("av", reason="videos need the video extra")
    picture(tmp_path / "a.png")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere.mp4")
    with pytest.raises(ValueError, match="2 of 2 videos among 3 files are unusable"):
        open_set(tmp_path, 16)


def test_links_in_circles_end(tmp_path):
    """Each folder links to the other, and both to the root: no walk may go round."""
    for name, other in (("x", "z"), ("z", "x")):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "a.png")
        (tmp_path / name / "other").symlink_to(tmp_path / other)
        (tmp_path / name / "up").symlink_to(tmp_path)
    images, others = list_files(tmp_path)
    assert {"x/a.png", "z/a.png"} <= set(images) and len(images) <= 4 and others == []


def test_links_that_double_do_not_multiply(tmp_path):
    """Thirty folders, each with two links to the next, have a billion paths."""
    for number in range(30):
        (tmp_path / f"d{number}").mkdir()
        for link in ("p", "q"):
            (tmp_path / f"d{number}" / link).symlink_to(tmp_path / f"d{number + 1}")
    (tmp_path / "d30").mkdir()
    picture(tmp_path / "d30" / "a.png")
    images, _ = list_files(tmp_path)
    assert 1 <= len(images) <= 2 and all(path.endswith("a.png") for path in images)


def test_a_linked_folder_is_read(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    picture(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert list_files(tmp_path / "root")[0] == ["link/a.png"]
