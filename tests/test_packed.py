"""Images that SLEAP projects pack: found by the names of their labels, whole or refused in a sentence."""

import io
import json

import h5py
import numpy as np
import pytest
from label_cases import slp, written
from PIL import Image

from ppl_fast.data import load_labels, open_set
from ppl_fast.data.packed import PackedImages
from ppl_fast.data.sets import check_media
from ppl_fast.inference import collect, estimate
from ppl_fast.options.footage import Framing

NAMES = ["a/walk.mp4/000002", "a/walk.mp4/000009", "b/walk.mp4/000002"]
RED, GROUND = (255, 0, 0), (30, 60, 90)


def picture(number, size=(32, 24)):
    image = Image.new("RGB", size, GROUND)
    image.putpixel((12, 7), RED)
    image.putpixel((0, 0), (0, 0, number))
    return image


def encoded(image, kind="PNG"):
    raw = io.BytesIO()
    image.save(raw, kind)
    return np.frombuffer(raw.getvalue(), np.int8)


def packed(path, images, version=1.4, order="RGB", numbers=None, dataset="video0/video", **changes):
    """A project of one labelled frame, number 0, which packs images: files, or pixels as one array."""
    slp(path, [[[12, 7, True]]], version=version)
    source = json.dumps({"backend": {"filename": "C:\\clips\\walk.mp4"}})
    with h5py.File(path, "r+") as file:
        del file["videos_json"]
        file["videos_json"] = np.array([json.dumps({"backend": {"filename": ".", "dataset": dataset}})], "S")
        if isinstance(images, list):
            found = file.create_dataset("video0/video", (len(images),), h5py.special_dtype(vlen=np.int8))
            for row, image in enumerate(images):
                found[row] = image
        else:
            found = file.create_dataset("video0/video", data=images)
        found.attrs.update({"format": "png"} | ({"channel_order": order} if order else {}) | changes)
        file["video0/frame_numbers"] = np.arange(len(images)) if numbers is None else numbers
        file.create_group("video0/source_video").attrs["json"] = source
    return path


def test_what_sleap_io_packs(tmp_path):
    """Two videos of one name; images in rows of zeros behind them, which OpenCV wrote."""
    path = tmp_path / "a.pkg.slp"
    written(tmp_path, "packed.slp").rename(path)
    labels, images = load_labels(path), PackedImages(path, 24)
    assert labels.files == images.paths == NAMES and images.original_sizes == [(256, 192)] * 3
    assert labels.keypoints[0].tolist() == [[100, 60], [16, 84]]
    assert labels.visible.tolist() == [[True, True], [True, False], [True, True]]
    original = np.asarray(images.original(0), int)
    assert np.abs(original[60, 100] - RED).max() < 40 and np.abs(original[100, 200] - GROUND).max() < 12
    assert images[2].shape == (3, 24, 24) and not np.array_equal(images[0], images[2])


@pytest.mark.parametrize(
    ("version", "order", "turned"),
    [(1.4, "RGB", False), (1.4, np.bytes_("BGR"), True), (1.4, None, False), (1.2, None, True)],
)
def test_runs_of_bytes_and_the_order_of_colours(tmp_path, version, order, turned):
    path = packed(tmp_path / "a.slp", [encoded(picture(40)), encoded(picture(80))], version, order)
    images = PackedImages(path, 24)
    assert images.paths == ["walk.mp4/000000", "walk.mp4/000001"]
    found = np.asarray(images.original(0))
    assert found[7, 12].tolist() == [*RED][:: -1 if turned else 1]
    assert found[0, 0].tolist() == [40, 0, 0] if turned else [0, 0, 40]


def test_plain_pixels_and_grey_files(tmp_path):
    pixels = np.stack([np.asarray(picture(40)), np.asarray(picture(80))])
    images = PackedImages(packed(tmp_path / "a.slp", pixels, numbers=[7, 3]), 24)
    assert images.paths == ["walk.mp4/000003", "walk.mp4/000007"]
    assert np.array_equal(images.original(1), picture(40))
    images = PackedImages(packed(tmp_path / "b.slp", pixels[..., :1]), 24)
    assert np.asarray(images.original(0))[7, 12].tolist() == [255] * 3
    grey = Image.fromarray(pixels[0, :, :, 0])
    images = PackedImages(packed(tmp_path / "c.slp", [encoded(grey)], order="BGR"), 24)
    assert np.asarray(images.original(0))[7, 12].tolist() == [255] * 3


def test_older_projects_number_videos_by_their_groups(tmp_path):
    path = packed(tmp_path / "a.slp", [encoded(picture(40))])
    with h5py.File(path, "r+") as file:
        file.move("video0", "video15")
        del file["videos_json"]
        file["videos_json"] = np.array([json.dumps({"backend": {"filename": ".", "dataset": "video15/video"}})], "S")
        frames = file["frames"][...]
        frames["video"] = 15
        file["frames"][...] = frames
    assert load_labels(path).files == PackedImages(path, 24).paths == ["walk.mp4/000000"]


def test_it_stands_in_the_place_of_a_folder(tmp_path):
    from inference_cases import Finder

    path = packed(tmp_path / "a.pkg.slp", [encoded(picture(40)), encoded(picture(80))])
    for source in (path, tmp_path):
        check_media(source)
        opened = open_set(source, 32, split="fit")
        assert opened.name == "a.pkg.slp" and [len(each) for each in opened.labels.match(opened.dataset.paths)] == [
            1,
            1,
        ]
        poses = collect(estimate(Finder(), source))
        assert poses.names == ["walk.mp4/000000", "walk.mp4/000001"] and poses.sizes.tolist() == [[32, 24]] * 2
        assert np.isfinite(poses.keypoints).all()
    padded = open_set(path, 32, framing=Framing(fit="pad")).dataset
    assert padded[0][:, 0].abs().max() < 0.01 and padded[0][:, 16].abs().max() > 0.1  # grey above the image
    with pytest.raises(ValueError, match="what moves cannot be looked for in .*a.pkg.slp"):
        open_set(path, 32, framing=Framing(crop="moving"))
    picture(1).save(tmp_path / "beside.png")
    assert open_set(tmp_path, 32).dataset.paths == ["beside.png"]


@pytest.mark.parametrize(
    ("images", "changes", "sentence"),
    [
        ([np.frombuffer(b"no image", np.int8)], {}, "1 of 1 images in .*a.slp are unusable.*not an image"),
        ([encoded(picture(1))[:60]], {}, "are unusable"),
        ([encoded(picture(1))], {"numbers": [1, 2]}, "frame_numbers must number the 1 images"),
        ([encoded(picture(1))], {"dataset": "video7/video"}, "packs no images: it lacks an array"),
        (np.zeros((1, 24, 32, 4), np.uint8), {}, "must hold uint8 pixels"),
        (np.zeros((1, 24, 32), np.uint8), {}, "must hold files, or pixels"),
        (np.zeros((1, 24, 32, 3), np.float32), {}, "must hold plain numbers"),
    ],
)
def test_one_sentence_for_what_is_damaged(tmp_path, images, changes, sentence):
    path = packed(tmp_path / "a.slp", images, **changes)
    with pytest.raises(ValueError, match=sentence) as caught:
        PackedImages(path, 24)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_limits(tmp_path):
    path = packed(tmp_path / "a.slp", [encoded(picture(1, (400, 400)))])
    with pytest.raises(ValueError, match="400 x 400 pixels, .*more than max_pixels, 10000"):
        PackedImages(path, 24, max_pixels=10_000)
    with pytest.raises(ValueError, match="packs no images; give the folder of its videos, and --labels"):
        PackedImages(slp(tmp_path / "b.slp", [[[1, 2, True]]]), 24)
