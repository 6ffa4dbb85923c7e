"""Checkpoints of the published code become our models, and the way back."""

import argparse

import pytest
import torch
from model_cases import pictures, tiny
from published_cases import (
    PUBLISHED,
    SMALL_AUTOLINK,
    SMALL_PPL,
    before_norms,
    pickled_module,
    small_autolink,
    small_ppl,
)
from torch import nn

from ppl_fast import PPL, AutoLink
from ppl_fast.models.perceptual import PerceptualLoss
from ppl_fast.published import load, state_dict

pytestmark = pytest.mark.filterwarnings("ignore:.*does not hold all options")
OURS = {"thickness": 2e-3, "link_factor": 256.0, "mask_blocks": 8, "mask_ratio": 0.9}
MAKE = {"PPL": small_ppl, "AutoLink": small_autolink}


def same(model, other):
    assert type(model) is type(other)
    assert model.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(a, other.state_dict()[key]) for key, a in model.state_dict().items())


@pytest.mark.parametrize("kind", MAKE)
def test_there_and_back_is_exact(kind):
    model = MAKE[kind](**OURS)
    published = model.to_published()
    back = type(model).from_published(published, **OURS, image_size=32)
    same(back, model)
    assert back.config == model.config
    again = state_dict(back)
    assert list(again) == list(published) and all(torch.equal(again[key], published[key]) for key in again)
    images = pictures()
    assert torch.equal(back.estimate(images), model.estimate(images))


def test_a_published_state_is_kept_but_for_the_unused_triangle_and_biases_before_batchnorm():
    state = small_ppl().to_published()
    state = {key: torch.randn_like(value) if value.is_floating_point() else value for key, value in state.items()}
    back = PPL.from_published(state).to_published()
    state["skeleton_scalar"] = state["skeleton_scalar"].triu(1)
    del state["regressor.coord"], back["regressor.coord"]
    norms = before_norms(state)
    for bias, mean in norms.items():
        state[mean] = state[mean] - state[bias]
        state[bias] = torch.zeros_like(state[bias])
    assert len(norms) > 10
    assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state)


def test_coordinates_are_rows_and_columns_of_the_maps_cells():
    coord = small_ppl().to_published()["regressor.coord"]
    assert coord.shape == (1, 64, 2)
    assert coord[0, 1].tolist() == pytest.approx([-1, -5 / 7]) and coord[0, 8].tolist() == pytest.approx([-5 / 7, -1])


def test_sizes_come_from_shapes():
    model = PPL.from_published(small_ppl().to_published())
    assert {key: model.config[key] for key in SMALL_PPL} == SMALL_PPL
    model = AutoLink.from_published(small_autolink().to_published(), image_size=32)
    assert {key: model.config[key] for key in SMALL_AUTOLINK} == SMALL_AUTOLINK


def test_what_nothing_says_is_named_in_a_warning(recwarn):
    state = small_autolink().to_published()
    with pytest.warns(UserWarning, match=r"took the published link_factor=512, .*, image_size=128$"):
        AutoLink.from_published(state, thickness=1e-3)
    recwarn.clear()
    AutoLink.from_published(state, **OURS, image_size=32)
    assert not recwarn


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # torch saves it beside; the classes have none
@pytest.mark.parametrize("new", [True, False], ids=["zip", "stream"])
def test_pickled_module(tmp_path, monkeypatch, published_class, new):
    model, path = small_ppl(**OURS), tmp_path / "checkpoint_latest.pth"
    published = pickled_module(published_class, model.to_published(), **PUBLISHED)
    torch.save(published, path, _use_new_zipfile_serialization=new)
    monkeypatch.undo()  # no class of that name exists while it is read
    found = PPL.from_published(path)
    same(found, model)
    assert {key: found.config[key] for key in OURS} == OURS and found.config["image_size"] == 32
    assert PPL.from_published(str(path), thickness=0.5).config["thickness"] == 0.5


def test_module_in_memory(published_class):
    model = small_ppl(**OURS)
    published = pickled_module(published_class, model.to_published(), **PUBLISHED)
    found = PPL.from_published(published)
    same(found, model)
    assert {key: found.config[key] for key in OURS} == OURS


@pytest.mark.parametrize("kind", ["dict", "namespace", "attributes"])
def test_lightning_checkpoint(tmp_path, monkeypatch, published_class, kind):
    model, path = small_autolink(**OURS), tmp_path / "model.ckpt"
    attributes = published_class("pytorch_lightning.utilities.parsing", "AttributeDict", dict)
    callback = published_class("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", object)
    hyper = PUBLISHED | {"n_parts": 5, "image_size": 32, "dataset": "cub", "lr": 1e-4}
    checkpoint = {
        "epoch": 3,
        "pytorch-lightning_version": "1.5.10",
        "state_dict": model.to_published(),
        "callbacks": {callback: {"best_model_score": torch.tensor(0.5), "best_k_models": {}}},
        "optimizer_states": [{"state": {0: {"step": 7, "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}],
        "hyper_parameters": {"dict": dict, "namespace": argparse.Namespace, "attributes": attributes}[kind](**hyper),
    }
    torch.save(checkpoint, path)
    monkeypatch.undo()
    found = AutoLink.from_published(path)
    same(found, model)
    assert {key: found.config[key] for key in OURS} == OURS and found.config["image_size"] == 32
    assert type(load(None, path)) is AutoLink


def test_without_alpha(published_class):
    state = small_ppl().to_published()
    del state["alpha"]
    assert PPL.from_published(state).alpha == 1


def test_vgg_weights_travel_along():
    model = small_ppl()
    assert not any(key.startswith("vgg_loss") for key in model.to_published())
    vgg = PerceptualLoss("vgg16")
    for parameter in vgg.parameters():
        nn.init.normal_(parameter)
    model._perceptual.append(vgg)
    published = model.to_published()
    assert published["vgg_loss.blocks.3.21.weight"].shape == (512, 512, 3, 3)
    assert torch.equal(published["vgg_loss.blocks.1.5.weight"], vgg.stages[1][0].weight)
    assert published["vgg_loss.mean"].shape == (1, 3, 1, 1)
    found = PPL.from_published(published)
    assert all(torch.equal(a, b) for a, b in zip(found._perceptual[0].parameters(), vgg.parameters(), strict=True))
    assert not PPL.from_published(published, reconstruction_loss="mse")._perceptual
    del published["vgg_loss.blocks.0.0.weight"]
    with pytest.raises(ValueError, match="features.0.weight is missing"):
        PPL.from_published(published)


def test_our_own_pickled_modules(tmp_path):
    for model in (small_ppl(**OURS), small_autolink(**OURS), tiny()):
        torch.save(model, tmp_path / "own.pth")
        found = load(None, tmp_path / "own.pth")
        same(found, model)
        assert found.config == model.config
