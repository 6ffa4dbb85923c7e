"""Labels as DeepLabCut, Lightning Pose, SLEAP and COCO leave them: joints, names, and where their pixels begin."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from label_cases import INSTANCE, csv_text, slp, written
from PIL import Image
from test_data_labels import coco

from ppl_fast.data import ImageFolder, Labels, from_pixels, load_labels, to_pixels

FILES = [f"labeled-data/walk/img{number}.png" for number in (1, 10, 2)]
FOOTAGE = Path(__file__).parents[2] / "shared" / "footage" / "mirror-mouse-example"


@pytest.mark.parametrize("name", ["levels.h5", "appendable.h5"])
def test_tables_by_pandas(tmp_path, name):
    found = load_labels(written(tmp_path, name))
    assert found.files == FILES and found.names == ["nose", "tail"]
    assert np.array_equal(found.keypoints[[0, 2]], [[[0, 1], [2, 3]], [[8, 9], [10, 11]]])
    assert found.visible.tolist() == [[True, True], [True, False], [True, True]]


@pytest.mark.parametrize("kind", ["h5", "csv"])
def test_an_individual_is_chosen_by_name_or_refused(tmp_path, kind):
    path = tmp_path / "individuals.h5"
    if kind == "h5":
        written(tmp_path, path.name)
    else:
        path = tmp_path / "individuals.csv"
        rows = {file: list(range(8 * row, 8 * row + 8)) for row, file in enumerate(FILES)}
        path.write_text(csv_text(rows, individuals=("a", "b")))
    assert load_labels(path, individual="b").keypoints[0].tolist() == [[4, 5], [6, 7]]
    assert load_labels(path, individual="b").names == ["nose", "tail"]
    with pytest.raises(ValueError, match=f"{path.name} .*several individuals .a, b.; name the one to take"):
        load_labels(path)
    with pytest.raises(ValueError, match=r"no individual 'c'; there are a, b"):
        load_labels(path, individual="c")


def test_one_individual_needs_no_name(tmp_path):
    (tmp_path / "a.csv").write_text(csv_text({"a.png": [1, 2, 3, 4]}, individuals=("alone",)))
    assert load_labels(tmp_path / "a.csv").keypoints.tolist() == [[[1, 2], [3, 4]]]
    (tmp_path / "b.csv").write_text(csv_text({"a.png": [1, 2, 3, 4]}))
    with pytest.raises(ValueError, match="it has no individuals, but 'alone' is asked for"):
        load_labels(tmp_path / "b.csv", individual="alone")
    (tmp_path / "keypoints.json").write_text(json.dumps(coco()))
    with pytest.raises(ValueError, match="no individuals by name, but 'alone' is asked for"):
        load_labels(tmp_path / "keypoints.json", individual="alone")


def test_what_is_not_labelled_stays_so(tmp_path):
    rows = {"a.png": [0, 0, None, None], "b.png": [5, None, 1, 2], "c.png": [None] * 4, "d.png": ["nan", "nan", 3, 4]}
    (tmp_path / "CollectedData_me.csv").write_text(csv_text(rows))
    found = load_labels(tmp_path)
    assert found.visible.tolist() == [[True, False], [False, True], [False, False], [False, True]]
    assert found.keypoints[0, 0].tolist() == [0, 0]  # a corner that was labelled is one
    content = coco(annotations=[{"image_id": 7, "category_id": 1, "keypoints": [0, 0, 0, 0, 0, 2]}])
    (tmp_path / "poses.json").write_text(json.dumps(content))
    assert load_labels(tmp_path / "poses.json").visible.tolist() == [[False, True]]
    shown = slp(tmp_path / "a.slp", [[[0, 0, True], [7, 7, False], [np.nan, np.nan, True]]])
    assert load_labels(shown).visible.tolist() == [[True, False, False]]


def test_a_project_is_all_of_its_tables(tmp_path):
    for video, rows in (("walk", {"labeled-data/walk/img1.png": [1, 2, 3, 4]}), ("run", {})):
        (tmp_path / "labeled-data" / video).mkdir(parents=True)
        rows |= {f"labeled-data/{video}/img2.png": [5, 6, 7, 8]}
        (tmp_path / "labeled-data" / video / "CollectedData_me.csv").write_text(csv_text(rows))
        (tmp_path / "labeled-data" / video / "CollectedData_me.h5").write_bytes(b"the same, which pandas wrote")
    (tmp_path / "labeled-data" / "walk" / "CollectedData_me.csv").write_text(
        csv_text({"labeled-data/walk/img1.png": [1, 2, 3, 4]}, parts=("tail", "ear"))
    )
    (tmp_path / "config.yaml").write_text("Task: x\nskeleton:\n- [nose, ear]\n- [nose, wing]\n")
    found = load_labels(tmp_path)
    assert found.files == ["labeled-data/run/img2.png", "labeled-data/walk/img1.png"]
    assert found.names == ["nose", "tail", "ear"] and found.skeleton == [(0, 2)]
    assert found.visible.tolist() == [[True, True, False], [False, True, True]]
    assert found.keypoints[1, 1:].tolist() == [[1, 2], [3, 4]]
    assert load_labels(tmp_path / "labeled-data" / "run").files == ["labeled-data/run/img2.png"]
    (tmp_path / "CollectedData.csv").write_text(csv_text({"labeled-data/run/img2.png": [5, 6, 7, 8]}))
    with pytest.raises(ValueError, match="labels labeled-data/run/img2.png in two tables"):
        load_labels(tmp_path)


@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="the example footage is not beside the tree")
def test_the_example_project_of_lightning_pose():
    found = load_labels(FOOTAGE)
    images, rows = found.match(ImageFolder(FOOTAGE / "labeled-data", 16).paths)
    assert len(rows) == len(found) == 90 and len(found.names) == 17
    assert round(found.visible.mean(), 2) == 0.91 and found.keypoints[0, 0].tolist() == [77.25, 36.25]


def test_projects_of_sleap(tmp_path):
    found = load_labels(written(tmp_path, "tracked_none.slp"))
    assert found.files == ["walk.mp4/000007", "/data/im/b.png"] and found.skeleton == [(0, 1), (0, 2)]
    assert found.names == ["nose", "tail", "ear"]
    assert found.keypoints[1].tolist() == [[1, 2], [3, 4], [5, 6]]  # by hand, and not the prediction beside it
    assert found.visible.tolist() == [[True, True, False], [True, True, True]]
    tracks = written(tmp_path, "tracks.slp")
    assert load_labels(tracks, individual="two").files == ["walk.mp4/000007"]
    with pytest.raises(ValueError, match=r"tracks.slp .*several individuals \(one, two\)"):
        load_labels(tracks)


def test_videos_of_one_name_and_lists_of_images_in_projects_of_sleap(tmp_path):
    path = slp(tmp_path / "a.slp", [[[1, 2, True]], [[3, 4, True]], [[5, 6, True]]])
    listed = [{"backend": {"filename": f"/data/{day}/cam.mp4"}} for day in ("monday", "tuesday")]
    listed.append({"backend": {"filename": "im/0.png", "filenames": [f"im/{i}.png" for i in range(3)]}})
    with h5py.File(path, "r+") as file:
        del file["videos_json"]
        file["videos_json"] = np.array([json.dumps(video) for video in listed], "S")
        frames, instances = file["frames"][...], file["instances"][...]
        frames["video"], frames["frame_idx"] = [0, 1, 2], [7, 7, 2]
        instances["track"] = [-1, 0, -1]  # a person went on without the one track
        file["frames"][...], file["instances"][...] = frames, instances
    found = load_labels(path)
    assert found.files == ["monday/cam.mp4/000007", "tuesday/cam.mp4/000007", "im/2.png"]
    assert found.keypoints[:, 0].tolist() == [[1, 2], [3, 4], [5, 6]]


def test_the_skeleton_that_is_used_counts(tmp_path):
    skeletons = [{"nodes": [{"id": i} for i in ids], "links": []} for ids in ((1, 0, 2), (2, 0))]
    nodes = [{"name": name} for name in ("nose", "tail", "ear")]
    path = slp(tmp_path / "a.slp", [[[1, 2, True], [3, 4, True]]], skeletons=skeletons, nodes=nodes)
    with h5py.File(path, "r+") as file:
        file["instances"][...] = np.array([(*file["instances"][0].tolist()[:3], 1, -1, -1, 0, 0, 2)], INSTANCE)
    assert load_labels(path).names == ["ear", "nose"]


def test_analysis_files_of_sleap(tmp_path):
    path = written(tmp_path, "analysis.h5")
    found = load_labels(path, individual="one")
    assert found.files == ["walk.mp4/000007", "walk.mp4/000009"] and found.skeleton == [(0, 1), (0, 2)]
    assert found.keypoints[1].tolist() == [[11, 21], [5, 15], [7, 7]]
    assert found.visible.tolist() == [[True, True, False], [True, True, True]]
    with h5py.File(path, "r+") as file:  # sleap-io's other order of the axes
        tracks = file["tracks"][...].transpose(3, 0, 2, 1)
        del file["tracks"]
        file["tracks"] = tracks
        file["tracks"].attrs["dims"] = '["frame", "track", "node", "xy"]'
    assert np.array_equal(load_labels(path, individual="one").keypoints, found.keypoints, equal_nan=True)


def annotated(root: Path, split: str, name: str) -> None:
    (root / "annotations").mkdir(exist_ok=True)
    (root / "images" / split).mkdir(parents=True)
    Image.new("RGB", (32, 24)).save(root / "images" / split / name)
    content = coco(images=[{"id": 7, "file_name": name, "width": 32, "height": 24}], annotations=coco()["annotations"])
    (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(content))
    (root / "annotations" / f"captions_{split}.json").write_text('{"images": [], "annotations": []}')


def test_the_layout_of_coco(tmp_path):
    annotated(tmp_path, "val2017", "1.png")
    images = ImageFolder(tmp_path, 16)
    assert [len(part) for part in load_labels(tmp_path).match(images.paths)] == [1, 1]
    annotated(tmp_path, "train2017", "2.png")
    found = load_labels(tmp_path)
    assert found.files == ["images/train2017/2.png", "images/val2017/1.png"] and found.sizes.tolist() == [[32, 24]] * 2
    assert [len(part) for part in found.match(ImageFolder(tmp_path, 16).paths)] == [2, 2]
    (tmp_path / "annotations" / "more.json").write_text(json.dumps(coco()))
    with pytest.raises(
        ValueError, match=r"expected keypoints.npz or one COCO keypoint JSON file .*got more.json, person"
    ):
        load_labels(tmp_path)


X, Y, SIDE = 12, 7, 32  # the bright pixel, by column and row from 0


def conventions(folder: Path) -> dict[str, tuple[Path, float]]:
    """For each format a file that labels the bright pixel, and how far its numbers lie from ours."""
    triple = [X, Y, 2]
    image = {"id": 1, "file_name": "a.png"}
    category = {"id": 1, "keypoints": ["p"]}
    annotation = {"image_id": 1, "category_id": 1, "keypoints": triple}
    (folder / "coco.json").write_text(
        json.dumps({"images": [image], "annotations": [annotation], "categories": [category]})
    )
    (folder / "dlc.csv").write_text(csv_text({"a.png": [X, Y]}, parts=("p",)))
    Labels(["a.png"], np.array([[[X, Y]]], float), np.ones((1, 1), bool), ["p"], []).save(folder / "ours.npz")
    return {
        "ours": (folder / "ours.npz", 0),
        "coco": (folder / "coco.json", 0),
        "deeplabcut": (folder / "dlc.csv", 0),
        "sleap": (slp(folder / "new.slp", [[[X, Y, True]]], version=1.1), 0),
        "sleap 1.0": (slp(folder / "old.slp", [[[X + 0.5, Y + 0.5, True]]], version=1.0), 0.5),
    }


@pytest.mark.parametrize("form", ["ours", "coco", "deeplabcut", "sleap", "sleap 1.0"])
def test_where_pixels_begin(tmp_path, form):
    """The label of a pixel leads to it in the image that a model sees, and back to the format's own numbers."""
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[Y, X] = 255
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    path, offset = conventions(tmp_path)[form]
    found = load_labels(path)
    normalised = from_pixels(found.keypoints, SIDE, (SIDE, SIDE))
    seen = (normalised[0, 0] + 1) / 2 * (SIDE - 1)
    row, column = divmod(int(ImageFolder(tmp_path / "images", SIDE)[0][0].argmax()), SIDE)
    np.testing.assert_allclose(seen, [column, row], atol=1e-9)
    np.testing.assert_allclose(to_pixels(normalised, SIDE, (SIDE, SIDE))[0, 0] + offset, [X + offset, Y + offset])


def test_centres_stay_centres_at_other_sizes():
    points = np.array([[[0.0, 0.0], [63.0, 47.0], [31.5, 23.5]]])  # first and last pixel, and the middle
    back = to_pixels(from_pixels(points, 16, (64, 48)), 16, (64, 48))
    np.testing.assert_allclose(back, points, atol=1e-12)
    np.testing.assert_allclose(from_pixels(points, 16, (64, 48))[0, 2], 0, atol=1e-12)
