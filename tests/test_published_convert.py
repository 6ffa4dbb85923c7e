"""ppl-fast convert: what it writes, and that bad input leaves nothing behind."""

import argparse
import os

import pytest
import torch

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="finding a run's model needs the train extra")
pytest.importorskip("safetensors", reason="model directories need the train extra")

from published_cases import SMALL_PPL, small_autolink, small_ppl
from tiny import fails

from ppl_fast import ExtendedPPL
from ppl_fast.cli import main
from ppl_fast.published import load
from ppl_fast.training import load_model

HYPER = {"thick": 2e-3, "sklr": 256.0, "block": 8, "missing": 0.9, "image_size": 32}


def same(a, b):
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


def test_state_dict_to_model_and_back(tmp_path, capsys):
    model, source, out = small_ppl(), tmp_path / "ppl.pth", tmp_path / "new" / "model"
    torch.save(model.to_published(), source)
    assert main(["convert", str(source), str(out), "--thickness=5e-3"]) == 0
    printed = capsys.readouterr().out
    assert f"wrote the PPL of 5 keypoints to {out}" in printed and "thickness" not in printed
    assert f"{source} does not hold its link_factor: took 512; --link-factor sets another" in printed
    found = load_model(out)
    assert same(found, model) and found.config["thickness"] == 5e-3 and os.listdir(out.parent) == ["model"]

    back = tmp_path / "back.pth"
    assert main(["convert", "--to-published", str(out), str(back)]) == 0
    saved = torch.load(back, weights_only=True)
    assert saved.keys() == model.to_published().keys() and same(load(None, back, **found.config), model)


def test_lightning_checkpoint_into_an_empty_folder(tmp_path, capsys):
    model, source, out = small_autolink(), tmp_path / "model.ckpt", tmp_path / "model"
    torch.save({"state_dict": model.to_published(), "hyper_parameters": argparse.Namespace(**HYPER)}, source)
    out.mkdir()
    assert main(["convert", str(source), str(out)]) == 0
    assert "does not hold" not in capsys.readouterr().out
    found = load_model(out)
    assert same(found, model)
    names = {"thickness": 2e-3, "link_factor": 256.0, "mask_blocks": 8, "mask_ratio": 0.9, "image_size": 32}
    assert {name: found.config[name] for name in names} == names


class Hostile:
    def __reduce__(self):
        return os.system, ("touch was_run",)


def test_bad_input_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "model"
    torch.save({"state_dict": Hostile()}, tmp_path / "hostile.pth")
    assert fails(capsys, "convert", "hostile.pth", out) == (
        "hostile.pth: refused without running anything: it asks for posix.system"
    )
    torch.save(small_ppl().to_published(), tmp_path / "ppl.pth")
    data = (tmp_path / "ppl.pth").read_bytes()
    (tmp_path / "short.pth").write_bytes(data[: len(data) // 2])
    assert "short.pth: truncated" in fails(capsys, "convert", "short.pth", out)
    torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / "other.pth")
    assert "other.pth: neither a PPL" in fails(capsys, "convert", "other.pth", out)
    assert "nowhere.pth: no such file" in fails(capsys, "convert", "nowhere.pth", out)
    assert "thickness must be a positive number" in fails(capsys, "convert", "ppl.pth", out, "--thickness=-1")
    assert "option thickness must be" in fails(capsys, "convert", "ppl.pth", out, "--thickness=thin")
    assert sorted(os.listdir()) == ["hostile.pth", "other.pth", "ppl.pth", "short.pth"]


def test_existing_output_stays(tmp_path, monkeypatch, capsys):
    torch.save(small_ppl().to_published(), tmp_path / "ppl.pth")
    out = tmp_path / "model"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert "exists and is not an empty folder" in fails(capsys, "convert", tmp_path / "ppl.pth", out)
    assert os.listdir(out) == ["mine.txt"]
    assert "exists and is not an empty folder" in fails(capsys, "convert", tmp_path / "ppl.pth", tmp_path / "ppl.pth")


def test_to_published_refuses(tmp_path, capsys):
    ExtendedPPL(**SMALL_PPL, head="residual").save_pretrained(tmp_path / "model")
    out = tmp_path / "x.pth"
    convert = ("convert", "--to-published", tmp_path / "model", out)
    assert "the published code has no head='residual'" in fails(capsys, *convert)
    assert "got --thickness" in fails(capsys, *convert, "--thickness=1")
    assert "output" in fails(capsys, *convert[:-1], tmp_path)
    assert not out.exists()
