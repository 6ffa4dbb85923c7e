"""Folders of images: what is read, how it is turned into tensors, and what is refused."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ppl_fast.data import ImageFolder, from_pixels, image_set, to_pixels


def gradient(width=24, height=16) -> np.ndarray:
    """uint8 (height, width, 3): red rises to the right, green downwards."""
    image = np.full((height, width, 3), 40, dtype=np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


def save(path, image=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(gradient() if image is None else image)).save(
        path, **options
    )


def level(value: int) -> float:
    return value / 127.5 - 1


def test_nested_folder_in_sorted_order(tmp_path):
    for name in ("b/z.png", "a.jpg", "b/c/y.webp", "b/x.JPEG"):
        save(tmp_path / name)
    folder = ImageFolder(tmp_path, 8)
    assert folder.paths == ["a.jpg", "b/c/y.webp", "b/x.JPEG", "b/z.png"]
    assert folder.original_sizes == [(24, 16)] * 4
    assert folder.skipped == [] and folder.ignored == []
    for i in range(4):
        assert folder[i].shape == (3, 8, 8) and folder[i].dtype == torch.float32
    assert len(folder) == 4


def test_values_span_minus_one_to_one_and_keep_rgb_order(tmp_path):
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[..., 0] = 255
    save(tmp_path / "red.png", image)
    pixel = ImageFolder(tmp_path, 8)[0][:, 3, 3]
    assert pixel.tolist() == [1, -1, -1]


def test_resize_has_half_pixel_centres(tmp_path):
    """A linear ramp stays the same ramp at the places that to_pixels gives."""
    size = 32
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8), (64, 128))
    save(tmp_path / "ramp.png", np.stack([ramp] * 3, axis=-1))
    row = (ImageFolder(tmp_path, size)[0][0, 5] + 1) * 127.5
    normalised = torch.stack([torch.linspace(-1, 1, size, dtype=torch.float64), torch.zeros(size)], dim=1)
    expected = to_pixels(normalised, size, (128, 64))[:, 0]
    assert (row[2:-2] - expected[2:-2]).abs().max() <= 0.51  # rounding to 8 bits


def test_large_jpeg_decoded_at_reduced_size_keeps_its_geometry(tmp_path):
    """1001 is no multiple of 8: without the exact extent the right border would be off by 7 of 1001 pixels."""
    size = 32
    ramp = np.broadcast_to(np.linspace(0, 250, 1001), (600, 1001))
    save(tmp_path / "ramp.jpg", np.stack([ramp] * 3, axis=-1).round().astype(np.uint8), quality=100)
    row = (ImageFolder(tmp_path, size)[0][0, 5] + 1) * 127.5
    places = to_pixels(torch.tensor([[-1.0, 0.0], [1.0, 0.0]], dtype=torch.float64), size, (1001, 600))[:, 0]
    expected = torch.from_numpy(np.interp(np.linspace(*places.tolist(), size), np.arange(1001), ramp[0]))
    assert (row[1:-1] - expected[1:-1]).abs().max() < 1


def test_modes_become_rgb(tmp_path):
    base = Image.fromarray(np.full((8, 8, 3), (200, 100, 40), dtype=np.uint8))
    save(tmp_path / "a_palette.png", base.quantize(4))
    save(tmp_path / "b_gray.png", Image.new("L", (8, 8), 90))
    save(tmp_path / "c_cmyk.jpg", base.convert("CMYK"), quality=100)
    save(tmp_path / "d_16bit.png", Image.fromarray(np.full((8, 8), 257 * 77, dtype=np.uint16)))
    half = base.convert("RGBA")
    half.putalpha(128)
    save(tmp_path / "e_transparent.png", half)
    clear = Image.new("P", (8, 8), 0)
    clear.putpalette([10, 20, 30])
    save(tmp_path / "f_clear_palette.png", clear, transparency=0)
    save(tmp_path / "g_one_bit.png", Image.new("1", (8, 8), 1))
    centres = [((tensor[:, 4, 4] + 1) * 127.5).round().tolist() for tensor in ImageFolder(tmp_path, 8)]
    assert centres[0] == [200, 100, 40]
    assert centres[1] == [90, 90, 90]
    assert np.abs(np.subtract(centres[2], [200, 100, 40])).max() <= 3  # JPEG
    assert centres[3] == [77, 77, 77]
    assert np.abs(np.subtract(centres[4], [227, 177, 147])).max() <= 1  # half over white
    assert centres[5] == [255, 255, 255]
    assert centres[6] == [255, 255, 255]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation, suffix):
    upright = Image.fromarray(gradient(32, 16))
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / f"upright.{suffix}", upright)
    turned = upright.transpose(stored[orientation]) if orientation in stored else upright
    save(tmp_path / f"turned.{suffix}", turned, exif=exif)
    folder = ImageFolder(tmp_path, 8)
    assert folder.original_sizes == [(32, 16)] * 2
    assert (folder[0] - folder[1]).abs().max() < 0.1  # JPEG and WebP lose a little
    assert folder.original(0).size == (32, 16)


def test_unusable_images_are_skipped_with_reasons(tmp_path):
    for i in range(20):
        save(tmp_path / f"good{i:02d}.png")
    save(tmp_path / "small.png", gradient(24, 7))
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    folder = ImageFolder(tmp_path, 8, max_bad_share=0.5)
    reasons = dict(folder.skipped)
    assert set(reasons) == {"small.png", "text.jpg", "empty.png"}
    assert "24 x 7" in reasons["small.png"] and "not an image" in reasons["text.jpg"]
    assert len(folder) == 20
    assert "small.png" in folder.report() and "20 images" in folder.report()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("cache", ["no", "memory", "disk"])
def test_truncated_images_are_found_before_any_work(tmp_path, suffix, cache):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    for i in range(9):
        save(tmp_path / f"good{i}.png")
    save(tmp_path / f"cut.{suffix}", noise)
    data = (tmp_path / f"cut.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) * 2 // 3])
    folder = ImageFolder(tmp_path, 8, cache=cache)
    assert [path for path, _ in folder.skipped] == [f"cut.{suffix}"]
    assert len([folder[i] for i in range(len(folder))]) == 9


def test_trailing_data_is_no_truncation(tmp_path):
    for suffix in ("jpg", "png", "webp"):
        save(tmp_path / f"a.{suffix}")
        with open(tmp_path / f"a.{suffix}", "ab") as file:
            file.write(b"camera's own notes " * 500)
    assert len(ImageFolder(tmp_path, 8)) == 3


def test_damaged_body_names_the_file(tmp_path):
    """The header and the end are fine, the middle is not: only decoding can tell."""
    save(tmp_path / "hurt.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = bytearray((tmp_path / "hurt.png").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    (tmp_path / "hurt.png").write_bytes(data)
    save(tmp_path / "good.png")
    folder = ImageFolder(tmp_path, 8)
    assert folder.paths == ["good.png", "hurt.png"]
    with pytest.raises(ValueError, match="hurt.png could not be decoded"):
        folder[1]
    cached = ImageFolder(tmp_path, 8, cache="memory", max_bad_share=0.5)
    assert cached.paths == ["good.png"] and [path for path, _ in cached.skipped] == ["hurt.png"]


def test_other_files_are_reported_and_companions_are_not(tmp_path):
    save(tmp_path / "a.png")
    for name in ("notes.doc", "sub/clip.mp4", "keypoints.npz", "coco.json", "README.md", "x.csv", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    save(tmp_path / ".thumbnails" / "a.png")
    folder = ImageFolder(tmp_path, 8)
    assert folder.paths == ["a.png"] and folder.skipped == []
    assert folder.ignored == ["notes.doc", "sub/clip.mp4"]
    assert "notes.doc" in folder.report()


def test_linked_folders_are_followed_but_not_in_circles(tmp_path):
    save(tmp_path / "elsewhere" / "a.png")
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "deep" / "up").symlink_to(tmp_path / "root")
    assert ImageFolder(tmp_path / "root", 8).paths == ["linked/a.png"]


def test_folders_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is missing"):
        ImageFolder(tmp_path / "nowhere", 8)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is not a folder"):
        ImageFolder(tmp_path / "file", 8)
    with pytest.raises(ValueError, match="got none"):
        ImageFolder(tmp_path, 8)
    for i in range(8):
        save(tmp_path / f"good{i}.png")
    (tmp_path / "bad.png").write_text("")
    with pytest.raises(ValueError, match=r"1 of 9 .* a share of 0.1 .*bad\.png \("):
        ImageFolder(tmp_path, 8)
    with pytest.raises(ValueError, match="image_size"):
        ImageFolder(tmp_path, 4)
    with pytest.raises(ValueError, match="max_bad_share"):
        ImageFolder(tmp_path, 8, max_bad_share=10)


def test_nothing_usable_is_refused_whatever_the_share(tmp_path):
    (tmp_path / "bad.png").write_text("")
    with pytest.raises(ValueError, match="1 of 1"):
        ImageFolder(tmp_path, 8, max_bad_share=1)


def test_cache_and_pickle_give_the_same_tensors(tmp_path):
    for name in ("a.png", "b.jpg"):
        save(tmp_path / name)
    plain, cached = ImageFolder(tmp_path, 16), ImageFolder(tmp_path, 16, cache="memory")
    (tmp_path / "b.jpg").rename(tmp_path / "gone.jpg")
    copy = pickle.loads(pickle.dumps(cached))
    assert torch.equal(cached[1], copy[1])
    (tmp_path / "gone.jpg").rename(tmp_path / "b.jpg")
    assert torch.equal(plain[1], cached[1]) and torch.equal(pickle.loads(pickle.dumps(plain))[0], cached[0])


def test_few_images_are_decoded_once_and_kept(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg"):
        save(tmp_path / name)
    plain, kept = ImageFolder(tmp_path, 16), ImageFolder(tmp_path, 16, cache="auto")
    assert plain.kept is None and kept.kept == {}
    assert torch.equal(kept[1], plain[1]) and list(kept.kept) == [1]
    (tmp_path / "b.jpg").unlink()
    kept[1].zero_()
    assert torch.equal(kept[1], pickle.loads(pickle.dumps(kept))[1]) and kept[1].any()
    with pytest.raises(ValueError, match="b.jpg could not be decoded"):
        plain[1]
    monkeypatch.setattr(image_set, "KEPT", 3 * 16 * 16)
    assert ImageFolder(tmp_path, 16, cache="auto").kept == {}
    save(tmp_path / "b.jpg")
    assert ImageFolder(tmp_path, 16, cache="auto").kept is None


@pytest.mark.parametrize("make", [torch.tensor, np.array])
def test_coordinates(make):
    corners = make([[-1.0, -1.0], [1.0, 1.0]])
    # 4 pixels from 8: the first covers pixels 0 and 1, the last 6 and 7 across; 3 rows each down.
    assert to_pixels(corners, 4, (8, 12)).tolist() == [[0.5, 1.0], [6.5, 10.0]]
    assert from_pixels(to_pixels(corners, 4, (8, 12)), 4, (8, 12)).tolist() == corners.tolist()
    same = make([[-1.0, 0.5], [1.0, -0.5]])
    assert to_pixels(same, 9, (9, 9)).tolist() == [[0.0, 6.0], [8.0, 2.0]]
    many = to_pixels(make([corners.tolist()] * 2), 4, [(8, 12), (4, 4)])
    assert many.tolist() == [[[0.5, 1.0], [6.5, 10.0]], [[0.0, 0.0], [3.0, 3.0]]]


def test_coordinates_refuse_wrong_shapes():
    with pytest.raises(ValueError, match=r"keypoints must have shape \(\.\.\., 2\), got \(5, 3\)"):
        to_pixels(torch.zeros(5, 3), 8, (8, 8))
    with pytest.raises(ValueError, match="original_size"):
        from_pixels(torch.zeros(5, 2), 8, [(8, 8)] * 5)


@pytest.mark.slow
def test_missing_extra_names_the_command():
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "import ppl_fast.data as data; data.to_pixels\n"
        "try: data.ImageFolder\n"
        "except ImportError as error: print(error)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'ppl_fast[data]'" in result.stdout
