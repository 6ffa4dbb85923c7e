"""Published data sets with labels, on miniatures in their exact layouts."""

import os
import re

import h5py
import numpy as np
import pytest
import torch
from miniatures import SIDE, cub, fails, h36m, rng, taichi
from pandas_files import pickled
from PIL import Image
from scipy.io import savemat

from ppl_fast.data import LayoutError, open_set
from ppl_fast.data.sets.human36m import ACTIONS, JOINTS, LEFT_RIGHT, SWAP, Human36M
from ppl_fast.evaluation import regression, unit_joints

# ------------------------------------------------------------------------------------------------ Human3.6M


def test_human36m(tmp_path):
    stored = h36m(tmp_path)
    test = open_set(f"human36m:{tmp_path}", SIDE, split="test")
    folder = "S11/WithBackground/Walking 1.54138969"
    assert test.dataset.paths == [f"{folder}/{frame}.jpg" for frame in (1, 2, 10)]
    assert test.dataset.original_sizes == [(SIDE, SIDE)] * 3 and test.dataset.clips == [0, 0, 0]
    assert test.dataset[2].shape == (3, SIDE, SIDE)
    assert test.dataset[2][0, 3, 3] == pytest.approx(200 / 127.5 - 1, abs=0.05)
    assert test.labels.names == JOINTS and test.labels.visible.all() and test.protocol == {"swap": SWAP}
    # On images of the published size the evaluation sees the very numbers that are stored, as (x, y).
    seen = unit_joints(test.labels.keypoints, SIDE, test.dataset.original_sizes)
    np.testing.assert_allclose(seen[..., ::-1], np.stack([stored[path] for path in test.dataset.paths]), atol=1e-12)


def test_human36m_trains_on_six_subjects_by_recording(tmp_path):
    h36m(tmp_path)
    h36m(tmp_path, subjects=(1,), action="Directions", frames=(1,))
    train = open_set(f"human36m:{tmp_path}", SIDE).dataset
    assert [path.split("/")[0] for path in train.paths[::3]] == ["S1", "S1", "S5", "S6", "S7", "S8", "S9"]
    assert train.clips == [0, 1, 1, 1] + [number for number in range(2, 7) for _ in range(3)]
    assert train.paths[0].startswith("S1/WithBackground/Directions/") and "WalkDog" not in " ".join(train.paths)


def test_human36m_swap_is_autolinks_and_its_counterpart_is_anatomical():
    assert all(JOINTS[i].replace("right", "left") == JOINTS[j].replace("right", "left") for i, j in LEFT_RIGHT)
    assert set(SWAP) - set(LEFT_RIGHT) == {(21, 28)} and set(LEFT_RIGHT) - set(SWAP) == {(21, 29), (16, 24)}
    keypoints, joints = rng().uniform(-1, 1, (40, 4, 2)), rng().uniform(0, 1, (40, 32, 2))
    assert regression(keypoints, joints, keypoints, joints, **Human36M.protocol).value > 0


def test_human36m_without_background(tmp_path):
    h36m(tmp_path, subjects=(11,), frames=(1, 2))
    dataset = open_set(f"human36m_masked:{tmp_path}", SIDE, split="test").dataset
    assert (dataset[1][:, :, 9:].abs() < 0.01).all()  # mid-grey
    assert dataset[1][0, 4, 4] == pytest.approx(40 / 127.5 - 1, abs=0.05)
    assert dataset.original(1).getpixel((12, 3)) == (128, 128, 128)
    mask = tmp_path / "S11/BackgroudMask/Walking 1.54138969/2.png"
    Image.new("1", (8, 8)).save(mask)
    fails(r"2.jpg \(its mask .*2.png is of \(8, 8\) pixels, the frame of", f"human36m_masked:{tmp_path}", split="test")
    mask.unlink()
    fails(r"2.jpg \(its mask .*2.png is missing\)", f"human36m_masked:{tmp_path}", split="test")


def test_human36m_labels_are_read_only_when_asked_for(tmp_path):
    h36m(tmp_path, subjects=(11,))
    landmarks = tmp_path / "S11/Landmarks/Walking 1.54138969"
    spec = f"human36m:{tmp_path}"
    savemat(landmarks / "2.mat", {"keypoints_2d": np.zeros((17, 2))})
    assert len(open_set(spec, SIDE, split="test").dataset) == 3
    fails(r"2.mat: keypoints_2d must be 32 pairs of numbers, got shape \(17, 2\)", spec, split="test")
    savemat(landmarks / "2.mat", {"keypoints_2d": np.full((32, 2), 64.0)})
    fails("2.mat: keypoints_2d must be fractions of the frame, got values up to 64.0", spec, split="test")
    savemat(landmarks / "2.mat", {"other": np.zeros((32, 2))})
    fails("2.mat: expected the array keypoints_2d, got none", spec, split="test")
    whole = (landmarks / "1.mat").read_bytes()
    (landmarks / "2.mat").write_bytes(whole[: len(whole) // 2])
    fails("2.mat: truncated, or no MATLAB file", spec, split="test")
    (landmarks / "2.mat").unlink()
    fails("2.mat: no such file", spec, split="test")


def test_human36m_with_another_layout(tmp_path):
    h36m(tmp_path, subjects=(1, 5, 6, 7, 8))
    message = fails("S9/WithBackground: no such folder", f"human36m:{tmp_path}", LayoutError)
    assert f"expected\n  {tmp_path.name}/S<" in message and "/WithBackground/<action ...>/<frame>.jpg,\n" in message
    assert message.endswith("found\n  S1/, S5/, S6/, S7/, S8/")
    h36m(tmp_path, subjects=(9,), action="Eating")
    fails(f"S9/WithBackground: none of {', '.join(ACTIONS)}", f"human36m:{tmp_path}", LayoutError)
    assert "no " + str(tmp_path / "gone") in fails("layout", f"human36m:{tmp_path / 'gone'}", LayoutError)
    (tmp_path / "file").write_text("")
    assert "file, a file" in fails("layout", f"human36m:{tmp_path / 'file'}", LayoutError)


# ------------------------------------------------------------------------------------------------ Taichi-HD


def test_taichi(tmp_path):
    stored = taichi(tmp_path)
    train = open_set(f"taichi:{tmp_path}", SIDE)
    assert train.labels is None and train.dataset.clips == [0, 0, 0, 1, 1, 1]
    assert train.dataset.paths[3] == "v2#000#100.mp4/0000000.png"
    for split, files in (("fit", "train"), ("test", "test")):
        found = open_set(f"taichi:{tmp_path}", 256, split=split)
        assert found.dataset.paths == ["a#000#100.png", "b#000#100.png"] and found.dataset.clips is None
        assert found.protocol == {"summed_at": 256, "intercept": True, "norm": "l1"}
        images, rows = found.labels.match(found.dataset.paths)
        points = np.stack([stored[files][path] for path in found.dataset.paths])
        np.testing.assert_array_equal(found.labels.keypoints[rows], points)
        np.testing.assert_array_equal(found.labels.visible[rows], points[..., 0] >= 0)
        seen = unit_joints(found.labels.keypoints[rows], 256, found.dataset.original_sizes)
        np.testing.assert_allclose(seen * 255, points, atol=1e-10)


def test_taichi_with_other_content(tmp_path):
    spec = f"taichi:{tmp_path}"
    (tmp_path / "train").mkdir()
    fails("no folder eval_images/taichi-256/test", spec, LayoutError, split="test")
    (tmp_path / "train").rmdir()
    taichi(tmp_path, joints=17)
    fails(r"taichi_train_gt.pkl: each value must be 18 pairs of numbers, got shape \(17, 2\)", spec, split="fit")
    ragged = pickled({"file_name": ["a"], "value": [[[1, 2], ["x"]]]})
    (tmp_path / "landmark" / "taichi_train_gt.pkl").write_bytes(ragged)
    fails(
        "taichi_train_gt.pkl: each value must be 18 pairs of numbers, got something else in a list", spec, split="fit"
    )
    (tmp_path / "landmark" / "taichi_train_gt.pkl").write_bytes(b"\x80\x02cposix\nsystem\nX\x04\x00\x00\x00trueR.")
    fails("taichi_train_gt.pkl: refused without running anything: it asks for posix.system", spec, split="fit")
    (tmp_path / "landmark" / "taichi_train_gt.pkl").unlink()
    fails("no file landmark/taichi_train_gt.pkl", spec, LayoutError, split="fit")
    os.rename(tmp_path / "train", tmp_path / "videos")
    assert "videos/" in fails("no folder train", spec, LayoutError)


def test_taichi_frames_must_have_the_size_that_their_labels_are_in(tmp_path):
    taichi(tmp_path, size=(128, 128))
    fails(r"labelled frames must be of 256 x 256 pixels, got \(128, 128\)", f"taichi:{tmp_path}", split="test")


# ------------------------------------------------------------------------------------------------ CUB


def test_cub(tmp_path):
    stored = cub(tmp_path / "cub.h5", ("train", "val", "test"))
    for spec in (f"cub:{tmp_path}", f"cub:{tmp_path / 'cub.h5'}"):
        for split, part in (("train", "train"), ("fit", "train"), ("test", "test")):
            found = open_set(spec, SIDE, split=split)
            assert found.dataset.paths == [f"{part}/{row:05d}" for row in range(3)] and found.protocol == {}
            images = torch.from_numpy(stored[f"{part}_img"]).float() / 127.5 - 1
            torch.testing.assert_close(torch.stack([found.dataset[i] for i in range(3)]), images)
            seen = unit_joints(found.labels.keypoints, SIDE, found.dataset.original_sizes)
            np.testing.assert_allclose(seen[..., ::-1], stored[f"{part}_kp"], atol=1e-7)
            np.testing.assert_array_equal(found.labels.visible, stored[f"{part}_vis"] == 1)
            assert found.labels.files == found.dataset.paths
    assert np.asarray(found.dataset.original(1)).transpose(2, 0, 1).tolist() == stored["test_img"][1].tolist()


def test_cub_three(tmp_path):
    cub(tmp_path / "cub_three.h5", ("train", "test001", "test002", "test003"), count=2)
    tested = open_set(f"cub_three:{tmp_path}", SIDE, split="test", cache="memory")
    assert tested.dataset.paths == [f"test00{n}/0000{row}" for n in (1, 2, 3) for row in range(2)]
    assert len(tested.labels) == 6 and len(open_set(f"cub_three:{tmp_path}", SIDE).dataset) == 2
    second = open_set(f"cub_002:{tmp_path}", SIDE, split="test")
    assert second.dataset.paths == ["test002/00000", "test002/00001"]
    torch.testing.assert_close(second.dataset[1], tested.dataset[3])


def test_loading_processes_read_the_same(tmp_path):
    cub(tmp_path / "cub.h5", ("train",))
    dataset = open_set(f"cub:{tmp_path}", 8).dataset
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=3, num_workers=1)))
    torch.testing.assert_close(batch, torch.stack([dataset[i] for i in range(3)]))


def test_cub_with_other_content(tmp_path):
    spec, file = f"cub:{tmp_path}", tmp_path / "cub.h5"
    assert "nothing in it" in fails("no file cub.h5", spec, LayoutError)
    cub(file, ("val",))
    fails(re.escape("no train_img in cub.h5, only ['val_img', 'val_kp', 'val_vis']"), spec, LayoutError)
    cub(file, ("train",), joints=14)
    fails(r"cub.h5: train_vis must have shape \(3, 15\), got \(3, 14\)", spec)
    cub(file, ("train",))
    with h5py.File(file, "a") as opened:
        del opened["train_kp"]
        opened["train_kp"] = np.zeros((3, 14, 2))
    fails(r"cub.h5: train_kp must be 15 pairs of numbers, got shape \(3, 14, 2\)", spec)
    with h5py.File(file, "a") as opened:
        del opened["train_kp"]
    fails("no train_kp in cub.h5", spec, LayoutError)
    with h5py.File(file, "w") as opened:
        opened["train_img"] = np.zeros((3, SIDE, SIDE, 3), dtype=np.float32)
    fails(r"cub.h5: train_img must be uint8 \(n, 3, H, W\), got \(3, 16, 16, 3\) of float32", spec)


@pytest.mark.parametrize("keep", [0, 7, 2000])
def test_a_truncated_h5_file_is_named(tmp_path, keep):
    cub(tmp_path / "cub.h5", ("train",))
    content = (tmp_path / "cub.h5").read_bytes()
    (tmp_path / "cub.h5").write_bytes(content[:keep])
    assert "\n" not in fails("cub.h5: truncated, or no HDF5 file", f"cub:{tmp_path}")
