"""Image files as cameras, microscopes and other programs leave them: broken tags, long notes, other formats, modes."""

import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ppl_fast.data import ImageFolder
from ppl_fast.visualization import save_overlay

UPRIGHT = np.zeros((16, 32, 3), np.uint8)  # bright in the upper left
UPRIGHT[:8, :16] = 240
STORED = {  # what a camera stores for each orientation of `UPRIGHT`
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.swapaxes(0, 1),
    6: UPRIGHT.swapaxes(0, 1)[::-1],
    7: UPRIGHT.swapaxes(0, 1)[::-1, ::-1],
    8: UPRIGHT.swapaxes(0, 1)[:, ::-1],
}


def entry(kind: int, value: bytes, count: int = 1, order: str = "<") -> bytes:
    """EXIF data of the one tag Orientation, of any type."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tag = struct.pack(f"{order}HHHI", 1, 0x0112, kind, count) + value.ljust(4, b"\0") + bytes(4)
    return b"Exif\0\0" + mark + struct.pack(f"{order}I", 8) + tag


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def is_upright(folder: ImageFolder) -> bool:
    """Whether its one image comes out as `UPRIGHT`, by size, as a tensor and as an original."""
    assert folder.original_sizes == [(32, 16)] and folder.original(0).size == (32, 16)
    corner = folder[0][:, :8, :8].mean() - folder[0][:, 8:, 8:].mean()
    return bool(corner > 1.5) and bool(np.asarray(folder.original(0))[:6, :14].mean() > 200)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["tif", "jpg", "webp", "png"])
def test_every_orientation(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(np.ascontiguousarray(STORED[orientation])).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    assert is_upright(ImageFolder(tmp_path, 16))


@pytest.mark.parametrize("xmp", ['tiff:Orientation="6"', "<tiff:Orientation>6</tiff:Orientation>"])
def test_orientation_in_xmp(tmp_path, xmp):
    notes = PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", f"<x:xmpmeta {xmp}/>")
    Image.fromarray(np.ascontiguousarray(STORED[6])).save(tmp_path / "a.png", pnginfo=notes)
    assert is_upright(ImageFolder(tmp_path, 16))


def test_orientation_behind_the_pixels_of_a_png(tmp_path):
    Image.fromarray(np.ascontiguousarray(STORED[8])).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    end = data.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(data[:end] + chunk(b"eXIf", entry(3, b"\x08\0")[6:]) + data[end:])
    assert is_upright(ImageFolder(tmp_path, 16))


@pytest.mark.parametrize(
    "exif",
    [
        entry(2, b"6\0", 2),  # text
        entry(7, b"\6"),  # bytes
        entry(1, b"\6"),  # a byte
        entry(3, b"\x63\0"),  # 99
        entry(3, b"\0\0"),
        entry(9, b"\xff\xff\xff\xff"),  # -1
        entry(5, struct.pack("<I", 4000)),  # a fraction that lies beyond the end
        entry(99, b"\6"),  # a type that there is not
        entry(3, b"\6", 2**31),
        entry(3, b"\6\0")[:-9],  # cut short
        b"Exif\0\0XX*\0garbage",
        b"Exif\0\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
    ],
)
def test_broken_orientations_leave_the_picture_as_it_is(tmp_path, exif):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.jpg", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_upright(ImageFolder(tmp_path, 16))


@pytest.mark.parametrize(("kind", "value", "order"), [(4, b"\6\0\0\0", "<"), (3, b"\0\6", ">")])
def test_orientations_of_other_integer_types(tmp_path, kind, value, order):
    Image.fromarray(np.ascontiguousarray(STORED[6])).save(tmp_path / "a.jpg", exif=entry(kind, value, order=order))
    assert is_upright(ImageFolder(tmp_path, 16))


def test_long_notes_and_profiles_in_a_png(tmp_path):
    """Each alone is more than Pillow reads; the orientation among them counts all the same."""
    notes = PngInfo()
    notes.add_text("workflow", "x" * 2_000_000, zip=True)
    notes.add_itxt("prompt", "y" * 2_000_000, zip=True)
    notes.add_text("plain", "z" * 80_000_000)
    notes.add_text("seed", "1")
    picture = Image.fromarray(np.ascontiguousarray(STORED[3]))
    exif = Image.Exif()
    exif[0x0112] = 3
    picture.save(tmp_path / "a.png", pnginfo=notes, exif=exif, icc_profile=bytes(3_000_000))
    assert is_upright(ImageFolder(tmp_path, 16))


def test_a_png_without_notes_is_read_in_place(tmp_path, monkeypatch):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
    monkeypatch.setattr("ppl_fast.data.image_file.io.BytesIO", None)
    assert is_upright(ImageFolder(tmp_path, 16))


def test_large_pictures_are_used_without_pythons_warnings(tmp_path, monkeypatch):
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # half of what is refused
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        folder = ImageFolder(tmp_path, 16)
        threads = [threading.Thread(target=folder.__getitem__, args=(0,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert is_upright(folder)
        with pytest.raises(UserWarning):
            warnings.warn("the filters are as they were", stacklevel=1)
    with pytest.raises(ValueError, match=r"a.png \(\d+ x \d+ pixels, more than max_pixels allows, 100\)"):
        ImageFolder(tmp_path, 16, max_pixels=100)


@pytest.mark.parametrize("suffix", ["tif", "TIFF", "bmp", "gif", "jpe", "JFIF", "ppm"])
def test_further_formats(tmp_path, suffix):
    form = "JPEG" if suffix[0] in "jJ" else None
    Image.fromarray(UPRIGHT).save(tmp_path / f"a.{suffix}", format=form)
    assert is_upright(ImageFolder(tmp_path, 16))


@pytest.mark.parametrize("suffix", ["tif", "bmp", "gif", "ppm"])
def test_further_formats_cut_short_are_found_before_any_work(tmp_path, suffix):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for name in ("cut", "good"):
        noise.save(tmp_path / f"{name}.{suffix}")
    data = (tmp_path / f"cut.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
    assert [name for name, _ in ImageFolder(tmp_path, 16, max_bad_share=0.5).skipped] == [f"cut.{suffix}"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.full((16, 16), 0.5, np.float32), 128),
        (np.full((16, 16), 77, np.float32), 77),
        (np.full((16, 16), np.inf, np.float32), 255),
        (np.full((16, 16), 257 * 77, np.uint16), 77),
        (np.full((16, 16), 257 * 77, np.int32), 77),
        (np.full((16, 16), True), 255),
    ],
)
def test_modes_of_microscopes(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert np.asarray(ImageFolder(tmp_path, 16).original(0))[4, 4].tolist() == [expected] * 3


def test_one_image_by_itself(tmp_path):
    for name in ("a.png", "b.png"):
        Image.fromarray(UPRIGHT).save(tmp_path / name)
    folder = ImageFolder(tmp_path / "b.png", 16)
    assert folder.paths == ["b.png"] and is_upright(folder) and folder.report() == f"1 image in {tmp_path}"
    assert torch.equal(folder[0], ImageFolder(tmp_path, 16)[1])


def test_runs_and_overlays_below_the_folder_are_no_images(tmp_path):
    for name in ("a.png", "drawn/own.png", "drawn/b.png.png", "runs/mine/prior.png", "runs/sheet.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(UPRIGHT).save(tmp_path / name)
    for name, text in (("config.yaml", ""), ("log.jsonl", "")):
        (tmp_path / "runs/mine" / name).write_text(text)
    save_overlay(tmp_path / "drawn/a.png.png", Image.fromarray(UPRIGHT), np.zeros((2, 2)), [[0, 1]], [1.0])
    folder = ImageFolder(tmp_path, 16)
    assert folder.paths == ["a.png", "drawn/b.png.png", "drawn/own.png", "runs/sheet.png"]
    assert folder.ignored == ["drawn/a.png.png (an overlay)", "runs/mine/ (a training run)"]
