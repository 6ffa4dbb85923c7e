"""Checkpoints of the published code become our models, and the way back."""

import argparse
import random
import sys
import zipfile
from types import ModuleType

import pytest
import torch
from model_cases import pictures, tiny
from published_cases import SMALL_AUTOLINK, SMALL_PPL, small_autolink, small_ppl, zipped
from torch import nn

from ppl_fast import PPL, AutoLink, ExtendedPPL
from ppl_fast.models.perceptual import PerceptualLoss
from ppl_fast.published import load, state_dict
from ppl_fast.published.checkpoints import read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*does not hold all options")
PUBLISHED = {"thick": 2e-3, "sklr": 256.0, "block": 8, "missing": 0.9}
OURS = {"thickness": 2e-3, "link_factor": 256.0, "mask_blocks": 8, "mask_ratio": 0.9}
MAKE = {"PPL": small_ppl, "AutoLink": small_autolink}


@pytest.fixture
def published_class(monkeypatch):
    """A class of any name in any module, there only until `monkeypatch` is undone."""

    def make(module, name, base=nn.Module):
        parts = module.split(".")
        for count in range(1, len(parts) + 1):
            if ".".join(parts[:count]) not in sys.modules:
                monkeypatch.setitem(sys.modules, ".".join(parts[:count]), ModuleType(".".join(parts[:count])))
        made = type(name, (base,), {"__module__": module})
        monkeypatch.setattr(sys.modules[module], name, made, raising=False)
        return made

    return make


def grow(root, state):
    """Modules and buffers under `root`, as a state dict names them."""
    for key, value in state.items():
        *path, leaf = key.split(".")
        module = root
        for name in path:
            if name not in module._modules:
                module.add_module(name, nn.Module())
            module = module._modules[name]
        if value.is_floating_point() and leaf not in ("running_mean", "running_var", "codebook"):
            module.register_parameter(leaf, nn.Parameter(value))
        else:
            module.register_buffer(leaf, value)
    return root


def pickled_module(published_class, state, **attributes):
    """The published PPL as an object, with other state and attributes."""
    root = grow(published_class("models.pose_prior_learner", "PosePriorLearner")(), state)
    root.memory.__class__ = published_class("models.pose_prior_learner", "Memory")
    root.regressor.__class__ = published_class("models.modules", "ResNetConditionalParameterRegressor")
    root.register_buffer("scratch", torch.ones(3), persistent=False)
    vars(root).update(attributes, aug=torch.ones(5, 1), num_parts=5, use_alpha=True)
    return root


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


def test_a_published_state_is_kept_but_for_the_unused_triangle():
    state = small_ppl().to_published()
    state = {key: torch.randn_like(value) if value.is_floating_point() else value for key, value in state.items()}
    back = PPL.from_published(state).to_published()
    state["skeleton_scalar"] = state["skeleton_scalar"].triu(1)
    del state["regressor.coord"], back["regressor.coord"]
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


def test_the_other_model_is_named():
    with pytest.raises(
        ValueError, match="expected a PPL checkpoint, got one of an AutoLink: load it with ppl_fast.AutoL"
    ):
        PPL.from_published(small_autolink().to_published())
    with pytest.raises(
        ValueError, match="expected an AutoLink checkpoint, got one of a PPL: load it with ppl_fast.PPL"
    ):
        AutoLink.from_published(small_ppl().to_published())


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


def test_wrong_keys_are_listed_in_one_sentence():
    state = small_ppl().to_published()
    wrong = without(state, "memory.ema_w", "regressor.emb.bias") | {
        "memory.surprise": torch.zeros(1),
        "translator.conv.bias": torch.zeros(4),
    }
    with pytest.raises(ValueError) as raised:
        PPL.from_published(wrong)
    assert str(raised.value) == (
        "published state dict: not a state dict of the published PPL; missing: memory.ema_w, regressor.emb.bias; "
        "unexpected: memory.surprise; of another shape: translator.conv.bias (4,) instead of (3,)"
    )
    many = {key: value for key, value in state.items() if not key.startswith("translator.up2")}
    with pytest.raises(
        ValueError, match="missing: translator.up2.net.1.weight, .* and 10 more; unexpected: transl.*more"
    ):
        PPL.from_published(many)
    for key in ("memory.codebook", "skeleton_scalar", "regressor.conv.0.net.0.weight"):
        with pytest.raises(ValueError, match=f"not a whole state dict of a PPL: '{key}' is missing"):
            PPL.from_published(without(state, key))
    for shape in ((), (3,), (3, 4)):
        with pytest.raises(ValueError, match="published state dict: "):
            PPL.from_published(state | {"memory.codebook": torch.zeros(shape)})


def test_the_regressor_of_another_version_is_refused():
    state = {key: value for key, value in small_ppl().to_published().items() if "regressor.predict" not in key}
    state |= {"regressor.emb.weight": torch.zeros(256, 4), "regressor.predict.1.weight": torch.zeros(64, 256)}
    with pytest.raises(
        ValueError, match="missing: regressor.predict.0.weight.* unexpected: regressor.predict.1.weight"
    ):
        PPL.from_published(state)


def test_what_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"neither a PPL .* nor an AutoLink .* state dict, it has: 0.bias, 0.weight$"):
        PPL.from_published(nn.Sequential(nn.Linear(1, 1)).state_dict())
    with pytest.raises(TypeError, match="expected a module, a state dict or a Lightning checkpoint, got list"):
        PPL.from_published([1, 2])
    with pytest.raises(ValueError, match="expected a tensor for memory.x, got int"):
        PPL.from_published({"memory.x": 3})
    for content, message in (
        ([1], "expected a module, a state dict or a Lightning checkpoint, got list"),
        ({"state_dict": 3}, "its state_dict must be a mapping, got int"),
        ({"state_dict": {("x",): 1}}, "expected names in its state_dict, got one of type tuple"),
        ({"state_dict": {}, "hyper_parameters": {"thick": (1, 2)}}, "expected a number for thick, got tuple"),
        (argparse.Namespace(a=1), "expected a pickled module with _modules"),
        (PerceptualLoss(), "expected a PPL or AutoLink module, got a ppl_fast.models.perceptual.PerceptualLoss"),
        (nn.Linear(1, 1), "neither a PPL"),
    ):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises((ValueError, TypeError), match=f"x.pth: {message}"):
            PPL.from_published(tmp_path / "x.pth")


def test_a_module_inside_of_itself(tmp_path, published_class, monkeypatch):
    published = pickled_module(published_class, small_ppl().to_published())
    published.memory.add_module("again", published)
    torch.save(published, tmp_path / "x.pth")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="memory.again. is no module, or is inside of itself or there twice"):
        PPL.from_published(tmp_path / "x.pth")


def test_damaged_pickles_end_in_one_sentence(tmp_path):
    torch.save({"state_dict": small_ppl(), "hyper_parameters": argparse.Namespace(**PUBLISHED)}, tmp_path / "a.pth")
    torch.save(small_ppl(), tmp_path / "b.pth")
    rng, read = random.Random(0), 0
    for name in ("a.pth", "b.pth"):
        with zipfile.ZipFile(tmp_path / name) as archive:
            entries = {entry.partition("/")[2]: archive.read(entry) for entry in archive.namelist()}
        whole = entries.pop("data.pkl")
        for _ in range(30):
            program = bytearray(whole)
            program[rng.randrange(len(program))] = rng.randrange(256)
            try:
                read_checkpoint(zipped(tmp_path / "damaged.pth", bytes(program), entries))
                read += 1
            except (ValueError, TypeError) as error:
                assert str(error).startswith(f"{tmp_path / 'damaged.pth'}: ") and "\n" not in str(error)
    assert read < 30  # most damage is noticed; the rest is in numbers and names


def test_options_are_checked_and_name_the_source(tmp_path, published_class, monkeypatch):
    torch.save(pickled_module(published_class, small_ppl().to_published(), thick="thin"), tmp_path / "x.pth")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="x.pth: PPL: thickness must be float, got 'thin'"):
        PPL.from_published(tmp_path / "x.pth")
    with pytest.raises(ValueError, match="PPL: unknown option 'thicknes'; did you mean 'thickness'"):
        PPL.from_published(small_ppl().to_published(), thicknes=1)


def test_models_without_a_published_counterpart():
    with pytest.raises(
        ValueError, match="PPL: the published code has no translator='light'; only .* translator='unet'"
    ):
        tiny().to_published()
    with pytest.raises(ValueError, match="the published code has no head='residual'"):
        ExtendedPPL(**SMALL_PPL, head="residual").to_published()
