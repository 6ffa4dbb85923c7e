"""Images of more than 8 bits, by what the file says or by the rule; HEIC; and what counts as a video by its name."""

import sys

import av
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from video_files import SIZE, drawn, encode

from ppl_fast.data import ImageFolder
from ppl_fast.data.clips import find_media
from ppl_fast.data.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from ppl_fast.data.video import Video

RAMP = np.linspace(0, 1, 256).reshape(16, 16)


def tiff(path, values, **tags):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[{"least": 280, "largest": 281}[tag]] = value
    Image.fromarray(values).save(path, tiffinfo=info)


@pytest.mark.parametrize(
    ("white", "told", "expected"),
    [
        (65535, {}, 255),  # 16 bits
        (4095, {}, 255),  # 12 bits in 16: no value is larger
        (1023, {}, 1023 / 4095 * 255),  # so it is for a dark one of them
        (1023, {"largest": 1023}, 255),  # the file says so
        (16383, {"largest": 16383}, 255),
        (16383, {}, 16383 / 65535 * 255),
        (3000, {"largest": 3000}, 3000 / 4095 * 255),  # the largest that happens to be there, not white
        (4095, {"largest": 1023}, 255),  # what cannot be is not believed
    ],
)
def test_white_is_what_the_file_says_or_the_rule(tmp_path, white, told, expected):
    values = (RAMP * white).round().astype(np.uint16)
    tiff(tmp_path / "a.tif", values, **told)
    Image.fromarray(values).save(tmp_path / "b.png")  # which cannot tell
    names = ("a.tif", "b.png") if not told else ("a.tif",)
    for name in names:
        pixels = np.asarray(ImageFolder(tmp_path / name, 16).original(0))
        np.testing.assert_allclose(pixels[..., 0], values * (expected / white), atol=0.501)
        assert (pixels == pixels[..., :1]).all()


def test_twelve_bits_packed(tmp_path):
    """Two samples in three bytes, as the TIFF says."""
    values = (RAMP * 4095).round().astype(int)
    pairs = values.reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    tags = {256: 16, 257: 16, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 16, 279: packed.size}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(
        tag.to_bytes(2, "little") + (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, value in tags.items()
    )
    head = b"II*\0" + (8).to_bytes(4, "little") + len(tags).to_bytes(2, "little") + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(head + packed.astype(np.uint8).tobytes())
    pixels = np.asarray(ImageFolder(tmp_path, 16).original(0))
    np.testing.assert_allclose(pixels[..., 0], RAMP * 255, atol=0.51)


def test_a_pgm_of_twelve_bits(tmp_path):
    values = (RAMP * 4095).round().astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5\n16 16\n4095\n" + values.tobytes())
    pixels = np.asarray(ImageFolder(tmp_path, 16).original(0))
    np.testing.assert_allclose(pixels[..., 0], RAMP * 255, atol=0.51)


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="HEIC images need the heic extra")
    heif.from_pillow(Image.fromarray(drawn(3, (64, 48)))).save(tmp_path / "a.heic", quality=95)
    folder = ImageFolder(tmp_path, 16)
    assert folder.original_sizes == [(64, 48)] and folder[0].shape == (3, 16, 16)
    difference = np.asarray(folder.original(0), int)[..., 1] - drawn(3, (64, 48))[..., 1]
    assert np.abs(difference).mean() < 8
    (tmp_path / "b.heic").write_bytes((tmp_path / "a.heic").read_bytes()[:200])
    assert [name for name, _ in ImageFolder(tmp_path, 16, max_bad_share=0.5).skipped] == ["b.heic"]


def test_heic_names_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "OPEN", {name: reader for name, reader in Image.OPEN.items() if name != "HEIF"})
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ImportError, match=r"HEIC images need pillow-heif, .*pip install 'ppl_fast\[heic\]'"):
        ImageFolder(tmp_path, 16)


# Names that other things than films have, or films that do not say how large they are.
OTHER = {".cif", ".qcif", ".rgb", ".yuv", ".v210", ".yuv10", ".bitpacked"} | {".avif", ".heic", ".heif", ".jxl", ".j2k"}
OTHER |= {
    ".avs",
    ".bmv",
    ".cgi",
    ".dat",
    ".dif",
    ".ism",
    ".isma",
    ".mca",
    ".mods",
    ".mpo",
    ".son",
    ".str",
    ".vb",
    ".xl",
}
OTHER |= {".ipu", ".sga", ".ty+", ".v", ".pdv", ".mcc", ".mka", ".mks", ".m4a", ".m4b", ".art", ".txt", ".idf"}
FILMS = (
    "avi", "av1", "avs2", "avs3", "apv", "cdxl", "dhav", "dv", "evc", "filmstrip", "flv", "gif", "h261", "h264", "hevc",
    "ifv", "ivr", "kux", "m4v", "matroska", "mjpeg", "mods", "moflex", "mov", "mvi", "mxg", "nut", "obu", "pdv", "ser",
    "simbiosis_imx", "ty", "usm", "vc1", "vc1test", "vivo", "vvc", "xmv", "yop", "yuv4mpegpipe", "rawvideo", "ipu",
)  # fmt: skip


def test_every_suffix_of_a_film_counts_as_one():
    there = [name for name in FILMS if name in av.formats_available]
    known = {f".{suffix}" for name in there for suffix in av.format.ContainerFormat(name, "r").extensions}
    assert known - set(VIDEO_SUFFIXES) <= OTHER and not set(VIDEO_SUFFIXES) & OTHER
    assert set(VIDEO_SUFFIXES) & set(IMAGE_SUFFIXES) == {".gif"}
    assert list(VIDEO_SUFFIXES) == sorted(VIDEO_SUFFIXES)


@pytest.mark.parametrize("suffix", [".qt", ".mk3d", ".m2t", ".divx", ".h264", ".psp", ".mpv"])
def test_a_film_of_any_name_is_found_and_opens(tmp_path, suffix):
    """What it holds is looked at, whatever the name says."""
    form = {".h264": "mp4", ".m2t": "mkv"}.get(suffix, "mov")
    encode(tmp_path / f"a.{form}", count=3).rename(tmp_path / f"b{suffix}")
    assert list(find_media(tmp_path)[1]) == [f"b{suffix}"]
    assert Video(tmp_path / f"b{suffix}").size == SIZE and len(list(Video(tmp_path / f"b{suffix}").frames())) == 3
