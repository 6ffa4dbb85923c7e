"""What named joints are learned from: arrays that do not fit together are refused before any work."""

import numpy as np
import pytest
import torch
from inference_cases import Finder
from model_cases import pictures, tiny

from ppl_fast.models import optimize
from ppl_fast.naming import Labelled, load_joints, name_joints
from ppl_fast.naming.network import Schedule


def given(**changes):
    joints = np.random.default_rng(0).uniform(-1, 1, (4, 3, 2))
    fit = {"images": pictures(4), "joints": joints, "shown": np.ones((4, 3), bool), "names": list("abc")}
    return Labelled(**fit | changes)


JOINTS = given().joints


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": JOINTS}, "images must be a tensor, got ndarray"),
        ({"images": pictures(4).double()}, "images must have a dtype of float32, got float64"),
        ({"joints": torch.from_numpy(JOINTS)}, "joints must be a NumPy array, got Tensor"),
        (
            {"joints": JOINTS[:3]},
            r"joints must be floats of shape \(4, 3, 2\), of 4 images and 3 names, got float64 of",
        ),
        ({"joints": JOINTS.astype(int)}, "joints must be floats .* got int64"),
        ({"names": ["a"]}, r"joints must be floats of shape \(4, 1, 2\)"),
        ({"joints": (JOINTS + 1) * 16}, r"joints must be numbers in \[-1, 1\] where they are shown"),
        ({"joints": JOINTS * [1, np.nan]}, "joints must be numbers"),
        ({"shown": np.ones((4, 3), int)}, r"shown must be bool of shape \(4, 3\), got int64"),
        ({"shown": np.ones(4, bool)}, "shown must be bool"),
        ({"names": ["a", "b", "a"]}, "names must be texts that differ"),
        ({"skeleton": [(0, 3)]}, "skeleton must be pairs of numbers below 3"),
        ({"clips": ["a"]}, "clips must be one for each of the 4 images or none, got 1"),
    ],
)
def test_what_does_not_fit_is_named(changes, sentence):
    with pytest.raises((TypeError, ValueError), match=f"^Labelled: {sentence}"):
        given(**changes)


def test_what_is_not_shown_may_be_anything():
    joints = JOINTS.copy()
    joints[0, 0], joints[1, 1] = np.nan, 1e6
    shown = np.ones((4, 3), bool)
    shown[0, 0] = shown[1, 1] = False
    assert len(given(joints=joints, shown=shown, clips=list("ppqq"), skeleton=[(0, 2)])) == 4
    assert len(given(shown=np.zeros((4, 3), bool))) == 4


def test_copies_by_optimize_have_no_trunk_to_learn_on(tmp_path):
    model = tiny().eval()
    fast, named = optimize(model), name_joints(model, given(), Schedule(steps=1, batch_size=2))
    with pytest.raises(ValueError, match="name_joints: model must be the trained one, got its copy by optimize"):
        name_joints(fast, given(), None)
    model.save_pretrained(tmp_path)
    named.save(tmp_path)
    with pytest.raises(ValueError, match="load it with the model that was optimised"):
        load_joints(tmp_path, fast)
    found = load_joints(tmp_path, model)(pictures(2), model.estimate(pictures(2)).double().numpy())
    assert found.shape == (2, 3, 2)


def test_a_model_without_a_trunk_has_a_map_alone():
    model = Finder()
    model.optimized = ""
    with pytest.raises(ValueError, match="networks need the trunk of a LinkModel, got a Finder"):
        name_joints(model, given())
    assert name_joints(model, given(), None).network is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_in_other_dtypes_have_named_joints(dtype, tmp_path):
    model = tiny().eval()
    named = name_joints(model, given(), Schedule(steps=1, batch_size=2))
    model.save_pretrained(tmp_path)
    named.save(tmp_path)
    keypoints = model.estimate(pictures(2)).double().numpy()
    other = load_joints(tmp_path, model.to(dtype))
    np.testing.assert_allclose(other(pictures(2), keypoints), named(pictures(2), keypoints), atol=0.1)
