"""Checkpoints that do not become our models, and models that do not become checkpoints: one sentence says why."""

import argparse
import random
import zipfile

import pytest
import torch
from model_cases import tiny
from published_cases import PUBLISHED, SMALL_PPL, pickled_module, small_autolink, small_ppl, zipped
from torch import nn

from ppl_fast import PPL, AutoLink, ExtendedPPL
from ppl_fast.models.perceptual import PerceptualLoss
from ppl_fast.published.checkpoints import read_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*does not hold all options")


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


def test_names_inside_of_one_another_stay_short(tmp_path, published_class, monkeypatch):
    """In a pickle such a name stands once; written out at every level it would take gigabytes."""
    published = pickled_module(published_class, small_ppl().to_published())
    module, name = published.memory, "n" * 2000
    for _ in range(8):
        module.add_module(name, torch.nn.Identity())
        module = getattr(module, name)
    torch.save(published, tmp_path / "x.pth")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="is no name of a module, got 6010 characters"):
        PPL.from_published(tmp_path / "x.pth")


@pytest.mark.slow
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
