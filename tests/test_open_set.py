"""Data sets without labels, plain folders, and the hyperparameters that go with each data set."""

import sys

import h5py
import numpy as np
import pytest
from miniatures import SIDE, fails, h36m, save
from scipy.io import savemat

from ppl_fast.data import Labels, LayoutError, open_set
from ppl_fast.data.sets import SETS, known_name
from ppl_fast.models import MODELS, PPLConfig
from ppl_fast.training import PRESETS, TrainConfig


def test_flowers_in_three_layouts(tmp_path):
    spec = f"flowers:{tmp_path}"
    for number in (1, 2, 3):
        save(tmp_path / "jpg" / f"image_{number:05d}.jpg")
    assert len(open_set(spec, SIDE).dataset) == len(open_set(spec, SIDE, split="test").dataset) == 3
    savemat(tmp_path / "setid.mat", {"trnid": [[2]], "valid": [[]], "tstid": [[3, 1]]})
    assert open_set(spec, SIDE).dataset.paths == ["jpg/image_00001.jpg", "jpg/image_00003.jpg"]
    assert open_set(spec, SIDE, split="test").dataset.paths == ["jpg/image_00002.jpg"]
    with h5py.File(tmp_path / "flower.h5", "w") as opened:
        opened["train_img"] = np.zeros((2, 3, SIDE, SIDE), dtype=np.uint8)
    assert open_set(spec, SIDE).dataset.paths == ["train/00000", "train/00001"] and open_set(spec, SIDE).labels is None
    assert "setid.mat" in fails("no test_img in flower.h5", spec, LayoutError, split="test")
    assert "flower.h5" in fails("no images in it", f"flowers:{tmp_path / 'jpg' / 'none'}", LayoutError)


def test_hands_horses_and_zebras(tmp_path):
    for name in ("Hands/Hand_0000002.jpg", "trainA/h.jpg", "testA/i.jpg", "trainB/z.jpg"):
        save(tmp_path / name)
    (tmp_path / "HandInfo.csv").write_text("id,age\n")
    assert open_set(f"hands:{tmp_path / 'Hands'}", SIDE).dataset.paths == ["Hand_0000002.jpg"]
    assert open_set(f"horse2zebra:{tmp_path}", SIDE).dataset.paths == ["h.jpg"]
    assert open_set(f"horse2zebra:{tmp_path}", SIDE, split="test").dataset.paths == ["i.jpg"]
    assert open_set(f"zebras:{tmp_path}", SIDE).dataset.paths == ["z.jpg"]
    assert "testB/<image>.jpg" in fails("no images in testB", f"zebras:{tmp_path}", LayoutError, split="test")
    assert open_set(f"zebras:{tmp_path}", SIDE).labels is None


def test_dogs_are_clips(tmp_path):
    for name in ("train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "test/c/1.jpg"):
        save(tmp_path / name)
    assert open_set(f"dogs:{tmp_path}", SIDE).dataset.clips == [0, 0, 1]
    assert open_set(f"dogs:{tmp_path}", SIDE, split="test").dataset.paths == ["c/1.jpg"]
    assert len(open_set(f"dogs:{tmp_path / 'train'}", SIDE, split="test").dataset) == 3
    fails("no images or videos", f"dogs:{tmp_path / 'none'}", LayoutError)


def test_a_folder_is_a_folder_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("plain", "human36m:mine", "C:images"):
        save(tmp_path / folder / "a.png")
        found = open_set(folder, SIDE)
        assert found.dataset.paths == ["a.png"] and found.labels is None and found.protocol == {}
        assert found.name == folder and known_name(folder) is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_set("hands:~/plain", SIDE).name == known_name("hands:~/plain") == "hands"


def test_labels_beside_a_folder_are_read_only_when_asked_for(tmp_path):
    save(tmp_path / "a.png")
    labels = Labels(["a.png"], np.ones((1, 2, 2)), np.ones((1, 2), bool), ["x", "y"], [(0, 1)])
    labels.save(tmp_path / "keypoints.npz")
    found = open_set(tmp_path, SIDE, split="test")
    assert found.labels.files == ["a.png"] and found.labels is found.labels
    (tmp_path / "keypoints.npz").write_bytes(b"broken")
    assert len(open_set(tmp_path, SIDE).dataset) == 1
    fails("keypoints.npz is no valid label file", tmp_path)


def test_what_is_neither_folder_nor_name(tmp_path):
    message = fails("no such folder, and no known data set", f"human3.6m:{tmp_path}")
    assert all(name in message for name in SETS)
    fails("no such folder, and no known data set", r"C:\images")
    fails("missing; expected a folder of images", tmp_path / "none")
    fails("split must be one of train, fit, test, got 'val'", tmp_path, split="val")


def test_bad_images_are_counted_as_everywhere(tmp_path):
    h36m(tmp_path, subjects=(11,))
    frame = tmp_path / "S11/WithBackground/Walking 1.54138969/2.jpg"
    frame.write_bytes(frame.read_bytes()[:200])
    fails("Human36M: 1 of 3 images .* are unusable", f"human36m:{tmp_path}", split="test")
    kept = open_set(f"human36m:{tmp_path}", SIDE, split="test", max_bad_share=0.5)
    assert len(kept.dataset) == len(kept.labels) == len(kept.dataset.clips) == 2


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "cub.h5").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "h5py", None)
    fails(r"needs h5py, which is not installed: pip install 'ppl_fast\[data\]'", f"cub:{tmp_path}", ImportError)


@pytest.mark.parametrize("architecture", PRESETS)
def test_presets_are_options_that_exist(architecture):
    presets, config = PRESETS[architecture], MODELS[architecture].Config
    assert presets.keys() == SETS.keys()
    for preset in presets.values():
        assert preset.keys() == {"model", "train"}
        config.from_dict(preset["model"])
        TrainConfig(**preset["train"])
    assert len({id(part) for preset in presets.values() for part in preset.values()}) == 2 * len(presets)


def test_published_numbers():
    assert PRESETS["ppl"]["human36m"]["model"] == {"thickness": 7.5e-5}
    assert PRESETS["ppl"]["hands"] == {
        "model": {"thickness": 1e-4, "mask_blocks": 8, "mask_ratio": 0.9},
        "train": {"steps": 5000},
    }
    assert PRESETS["ppl"]["flowers"]["model"]["thickness"] == 1e-4 and PPLConfig().thickness == 1e-3
    assert PRESETS["autolink"]["taichi"]["model"]["thickness"] == 5e-4
