"""Label files as exporters and file systems leave them, and names that mean the same image."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from ppl_fast.data import ImageFolder, Labels, load_labels
from ppl_fast.data.names import pair
from ppl_fast.evaluation import unit_joints
from ppl_fast.evaluation._labelled import both_splits

COMPOSED, DECOMPOSED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"
LATIN = os.fsdecode(b"caf\xe9")


def coco(count=3, **changes):
    """Two joints in each picture of 40 x 30 pixels."""
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(count)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "area": 300, "keypoints": [5 + i, 6, 2, 20, 10, 1]}
            for i in range(count)
        ],
        "categories": [{"id": 1, "name": "bar", "keypoints": ["a", "b"], "skeleton": [[1, 2]]}],
    }
    return content | changes


def loaded(folder, content) -> Labels:
    (folder / "labels.json").write_text(json.dumps(content))
    return load_labels(folder)


def with_annotation(**more):
    """COCO with one more annotation, the largest by far, of the first image."""
    content = coco()
    content["annotations"].append({"id": 9, "image_id": 0, "category_id": 1, "area": 1200, **more})
    return content


@pytest.mark.parametrize(
    "more",
    [
        {"iscrowd": 1, "keypoints": [0] * 6},
        {"iscrowd": 1, "keypoints": [1, 1, 2, 2, 2, 2]},
        {"iscrowd": 0, "keypoints": [0] * 6},
        {"keypoints": [7, 7, 0, 8, 8, 0]},
        {"keypoints": None},
        {"keypoints": []},
        {},
    ],
)
def test_annotations_with_nothing_to_measure_do_not_count(tmp_path, more):
    found = loaded(tmp_path, with_annotation(**more))
    assert found.keypoints[0].tolist() == [[5, 6], [20, 10]] and found.visible.all()


@pytest.mark.parametrize("value", [None, "absent"])
@pytest.mark.parametrize("key", ["area", "category_id", "skeleton", "width"])
def test_what_exporters_leave_out_or_null(tmp_path, key, value):
    content = coco()
    for entry in (*content["images"], *content["annotations"], *content["categories"]):
        if key in entry:
            entry[key] = value
        if value == "absent":
            entry.pop(key, None)
    found = loaded(tmp_path, content)
    assert len(found) == 3 and found.visible.all()
    assert found.skeleton == ([] if key == "skeleton" else [(0, 1)])
    assert found.sizes.tolist() == [[0, 0] if key == "width" else [40, 30]] * 3


def test_joints_without_numbers_are_hidden(tmp_path):
    content = coco()
    content["annotations"][1]["keypoints"] = [None, None, 2, 20, 10, 2]
    assert loaded(tmp_path, content).visible.tolist() == [[True, True], [False, True], [True, True]]


def test_ids_may_be_text_on_one_side(tmp_path):
    content = coco()
    for annotation in content["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])
    assert len(loaded(tmp_path, content)) == 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_encodings(tmp_path, encoding):
    content = coco(images=[{"id": 0, "file_name": f"{COMPOSED}.png"}])
    text = json.dumps(content, ensure_ascii=False)
    (tmp_path / "labels.json").write_text(text, encoding=encoding)
    positions, rows = load_labels(tmp_path).match([f"{COMPOSED}.png"])
    assert positions.tolist() == rows.tolist() == [0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("boxes.json", json.dumps({"images": [{"id": 1}], "annotations": [{"id": 1, "image_id": 1, "bbox": [1] * 4}]})),
        ("notes.json", "{unfinished"),
        ("._labels.json", "\0\5\26\7 of another system"),
        ("list.json", "[1, 2]"),
        ("captions.json", json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "keypoints": None}]})),
    ],
)
def test_other_json_beside_the_labels(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert len(loaded(tmp_path, coco())) == 3


def test_broken_json_alone_is_named(tmp_path):
    (tmp_path / "LABELS.JSON").write_text("{")
    with pytest.raises(ValueError, match=r"LABELS.JSON is no readable JSON"):
        load_labels(tmp_path)


@pytest.mark.parametrize(
    ("label", "image"),
    [
        ("a\\b\\c.png", "a/b/c.png"),
        ("./a//b/./c.png", "a/b/c.png"),
        (f"{DECOMPOSED}.png", f"{COMPOSED}.png"),
        (f"{COMPOSED}.png", f"{DECOMPOSED}.png"),
        (f"{COMPOSED}.png", f"{LATIN}.png"),
        (f"{LATIN}.png", f"{DECOMPOSED}.png"),
        ("a.JPG", "a.jpg"),
        ("Image.Png", "image.png"),
        ("line\nbreak .png", "line\nbreak .png"),
    ],
)
def test_names_that_mean_one_image(label, image):
    assert pair(["x.png", label], ["b.png", image, "x.png"]) == [(1, 1), (0, 2)]


def test_case_decides_where_it_must():
    assert pair(["a.JPG"], ["a.jpg", "a.Jpg"]) == []
    assert pair(["a.jpg", "A.jpg"], ["A.jpg", "a.jpg"]) == [(1, 0), (0, 1)]
    assert pair(["a.JPG", "A.jpg"], ["A.jpg", "a.jpg"]) == [(1, 0), (0, 1)]


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        (["images/a/1.png", "images/b/1.png"], ["a/1.png", "b/1.png"]),
        (["C:\\Users\\me\\a\\1.png", "C:\\Users\\me\\b\\1.png"], ["a/1.png", "b/1.png"]),
        (["/home/me/set/1.png", "/home/me/set/2.png"], ["1.png", "2.png"]),
        (["1.png", "2.png"], ["images/1.png", "images/2.png"]),
        (["labeled-data/walk/1.png", "labeled-data/walk/2.png"], ["walk/1.png", "walk/2.png"]),
        (["old/1.png", "old/2.png"], ["new/1.png", "new/2.png"]),
    ],
)
def test_folders_that_all_begin_with(labels, images):
    assert pair(labels, images) == [(0, 0), (1, 1)]


def test_folders_that_only_some_begin_with_are_others():
    assert pair(["gone/1.png", "2.png"], ["1.png", "2.png"]) == [(1, 1)]
    assert pair(["a/1.png", "b/1.png"], ["1.png"]) == []


@pytest.fixture
def folder(tmp_path):
    for i in range(10):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{i}.png")
    return tmp_path


def splits(folder, content, share=0.5):
    return both_splits(ImageFolder(folder, 32), loaded(folder, content), None, None, share)


def test_labels_and_images_without_each_other_are_counted(folder):
    content = coco(12)
    content["images"][1]["file_name"] = "gone/1.png"
    train, test, _, notes = splits(folder, content)
    assert len(train) + len(test) == 9
    assert notes == [
        "3 of 12 train labels name no image, such as gone/1.png",
        "1 of 10 train images have no label, such as 1.png",
    ]
    with pytest.raises(ValueError, match="3 of 12 train labels name no image.*; at most a share of 0.2 may"):
        splits(folder, content, share=0.2)
    assert splits(folder, coco(10))[3] == []


def test_images_that_were_scaled_after_they_were_labelled(folder):
    content = coco(10)
    for image in content["images"][:9]:
        image |= {"width": 80, "height": 60}
    train, test, _, notes = splits(folder, content)
    assert notes == ["9 train labels are scaled to their images: 0.png from (80, 60) to (40, 30)"]
    expected = unit_joints((np.array([[[5, 6], [20, 10]]]) + 0.5) / 2 - 0.5, 32, [(40, 30)])
    np.testing.assert_allclose(train.joints[0], expected[0])
    np.testing.assert_allclose(test.joints[-1], unit_joints(np.array([[[14, 6], [20, 10]]]), 32, [(40, 30)])[0])


def test_labels_that_cannot_be_of_these_pixels(folder):
    turned = coco(10)
    turned["images"][3] |= {"width": 30, "height": 40}
    with pytest.raises(ValueError, match=r"3.png was labelled at \(30, 40\) pixels \(W, H\), the file has \(40, 30\)"):
        splits(folder, turned)
    for factor, sentence in ((10, "pixels of the images, got 100% of the joints outside"), (0.01, "got fractions")):
        content = coco(10)
        for annotation in content["annotations"]:
            annotation["keypoints"] = [value * factor for value in annotation["keypoints"]]
        with pytest.raises(ValueError, match=sentence):
            splits(folder, content)


def test_images_without_a_visible_joint_are_left_out(folder):
    content = coco(10)
    content["annotations"][9]["keypoints"][2::3] = [0, 0]
    train, test, *_ = splits(folder, content)
    assert (len(train), len(test)) == (7, 2) and test.visible.all()
    for annotation in content["annotations"]:
        annotation["keypoints"][2::3] = [0, 0]
    with pytest.raises(ValueError, match="must show at least one joint, got none in 10 images"):
        splits(folder, content)


def test_sizes_are_saved_and_selected(tmp_path):
    found = loaded(tmp_path, coco())
    found.save(tmp_path / "keypoints.npz")
    assert np.array_equal(load_labels(tmp_path).sizes, found.sizes)
    assert found.select([2]).sizes.tolist() == [[40, 30]]
