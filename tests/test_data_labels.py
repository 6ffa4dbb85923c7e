"""Label files and predictions: round trips, COCO's rules, and files that are no labels."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from ppl_fast.data import Labels, load_labels, write_coco, write_csv


def labels(n=3) -> Labels:
    keypoints = np.random.default_rng(0).uniform(0, 64, (n, 2, 2))
    visible = np.ones((n, 2), dtype=bool)
    visible[0, 1] = False
    return Labels([f"dir/{i}.png" for i in range(n)], keypoints, visible, ["head", "foot"], [(0, 1)])


def coco(**changes) -> dict:
    content = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "b.png"}, {"id": 9, "file_name": "c.png"}],
        "annotations": [
            {"id": 1, "image_id": 8, "category_id": 1, "area": 5, "keypoints": [1, 2, 2, 0, 0, 0]},
            {"id": 2, "image_id": 7, "category_id": 1, "area": 5, "keypoints": [3, 4, 1, 5, 6, 2]},
            {"id": 3, "image_id": 7, "category_id": 1, "area": 50, "keypoints": [10, 20, 2, 30, 40, 2]},
            {"id": 4, "image_id": 9, "category_id": 2, "area": 5},
        ],
        "categories": [
            {"id": 1, "name": "bird", "keypoints": ["beak", "tail"], "skeleton": [[1, 2]]},
            {"id": 2, "name": "tree"},
        ],
    }
    return content | changes


def test_saved_labels_come_back(tmp_path):
    labels().save(tmp_path / "keypoints.npz")
    for place in (tmp_path, tmp_path / "keypoints.npz"):
        loaded = load_labels(place)
        assert loaded.files == labels().files and loaded.names == labels().names and loaded.skeleton == [(0, 1)]
        assert np.array_equal(loaded.keypoints, labels().keypoints) and loaded.keypoints.dtype == np.float64
        assert np.array_equal(loaded.visible, labels().visible)
    assert [path.name for path in tmp_path.iterdir()] == ["keypoints.npz"]


def test_match_and_select():
    images, rows = labels().match(["other.png", "dir/2.png", "dir/0.png"])
    assert images.tolist() == [1, 2] and rows.tolist() == [2, 0]
    chosen = labels().select(rows)
    assert chosen.files == ["dir/2.png", "dir/0.png"]
    assert np.array_equal(chosen.keypoints, labels().keypoints[[2, 0]])
    assert chosen.visible.tolist() == [[True, True], [True, False]]
    assert [len(part) for part in labels().match([])] == [0, 0]


def test_coco_takes_the_largest_annotation_and_counts_from_one(tmp_path):
    (tmp_path / "poses.json").write_text(json.dumps(coco()))
    (tmp_path / "other.json").write_text("[1, 2]")
    loaded = load_labels(tmp_path)
    assert loaded.files == ["a.png", "b.png"]
    assert loaded.keypoints.tolist() == [[[10, 20], [30, 40]], [[1, 2], [0, 0]]]
    assert loaded.visible.tolist() == [[True, True], [True, False]]
    assert loaded.names == ["beak", "tail"] and loaded.skeleton == [(0, 1)]


def test_predictions_as_coco_are_labels_again(tmp_path):
    keypoints = labels().keypoints.round(3)
    write_coco(tmp_path / "poses.json", labels().files, keypoints, [(64, 48)] * 3, skeleton=[(0, 1)])
    loaded = load_labels(tmp_path)
    assert np.array_equal(loaded.keypoints, keypoints) and loaded.visible.all()
    assert loaded.files == labels().files and loaded.skeleton == [(0, 1)]
    assert loaded.names == ["keypoint_00", "keypoint_01"]
    content = json.loads((tmp_path / "poses.json").read_text())
    assert (content["images"][0]["width"], content["images"][0]["height"]) == (64, 48)
    left, top, width, height = content["annotations"][0]["bbox"]
    assert np.allclose(keypoints[0].max(0), [left + width, top + height])
    assert np.allclose(keypoints[0].min(0), [left, top])


def test_predictions_as_csv(tmp_path):
    write_csv(tmp_path / "poses.csv", ["a, b.png", "c.png"], np.arange(8.0).reshape(2, 2, 2), ["head", "foot"])
    with open(tmp_path / "poses.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "head_x", "head_y", "foot_x", "foot_y"]
    assert rows[1] == ["a, b.png", "0.000", "1.000", "2.000", "3.000"]
    assert len(rows) == 3


def test_predictions_refuse_wrong_shapes(tmp_path):
    with pytest.raises(ValueError, match=r"write_csv: keypoints must have shape \(1, N, 2\), got \(2, 2, 2\)"):
        write_csv(tmp_path / "x.csv", ["a.png"], np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="names must hold 2"):
        write_csv(tmp_path / "x.csv", ["a.png"], np.zeros((1, 2, 2)), ["one"])
    with pytest.raises(ValueError, match="sizes must hold 1"):
        write_coco(tmp_path / "x.json", ["a.png"], np.zeros((1, 2, 2)), [])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keypoints": np.zeros((3, 5, 2))}, r"keypoints must have shape \(3, 2, 2\)"),
        ({"visible": np.ones((3, 3), dtype=bool)}, r"visible must have shape \(3, 2\)"),
        ({"files": ["a", "a", "b"]}, "distinct"),
        ({"files": ["a", "b", 3]}, "strings"),
        ({"skeleton": [(0, 2)]}, "joints 0 to 1"),
        ({"keypoints": np.full((3, 2, 2), np.nan)}, "finite"),
    ],
)
def test_labels_that_do_not_fit_together(change, message):
    with pytest.raises(ValueError, match=message):
        replace(labels(), **change)


def test_hidden_joints_need_no_position():
    keypoints = labels().keypoints
    keypoints[0, 1] = np.nan
    assert len(replace(labels(), keypoints=keypoints)) == 3


def test_npz_files_that_are_no_labels(tmp_path):
    path = tmp_path / "keypoints.npz"
    labels(500).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"keypoints\.npz is no valid label file"):
        load_labels(tmp_path)
    path.write_bytes(whole[:2000] + bytes(500) + whole[2500:])
    with pytest.raises(ValueError, match=r"keypoints\.npz is no valid label file"):
        load_labels(tmp_path)
    np.savez(path, files=["a.png"])
    with pytest.raises(ValueError, match=r"keypoints\.npz lacks .*keypoints"):
        load_labels(tmp_path)
    np.savez(path, files=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"keypoints\.npz is no valid label file.*pickle"):
        load_labels(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no readable JSON"),
        ("[]", "must be a JSON object with COCO's images and annotations"),
        (json.dumps(coco(categories=[])), "one category"),
        (json.dumps(coco(images=[{"id": 7}])), "lacks the COCO key 'file_name'"),
        (json.dumps(coco(annotations=3)), "no valid COCO keypoint file"),
        (
            json.dumps(coco(annotations=[{"image_id": 7, "category_id": 1, "keypoints": [1, 2, 2]}])),
            r"a\.png must have 6 keypoint numbers, got 3",
        ),
    ],
)
def test_json_files_that_are_no_labels(tmp_path, content, message):
    (tmp_path / "poses.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_labels(tmp_path / "poses.json")
    assert "poses.json" in str(caught.value)


def test_folders_without_one_label_file(tmp_path):
    with pytest.raises(ValueError, match="got neither"):
        load_labels(tmp_path)
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(json.dumps(coco()))
    with pytest.raises(ValueError, match=r"got a\.json, b\.json"):
        load_labels(tmp_path)
    with pytest.raises(ValueError, match="is missing"):
        load_labels(tmp_path / "nowhere")
