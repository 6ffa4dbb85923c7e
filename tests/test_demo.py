"""The demo from one end to the other, with few steps and figures."""

import json
import sys

import pytest
import torch

from ppl_fast import ExtendedAutoLink, ExtendedPPL, demo
from ppl_fast.cli import main

pytestmark = pytest.mark.slow

PICTURES = ("poses.png", "masks.png", "prior.png", "memory.png", "occlusion.png", "occlusion_curve.png", "training.png")
FILES = (*PICTURES, "metrics.json", "log.jsonl", "page.html")


def run(folder, *options):
    return main(
        ["demo", f"--out={folder}", "--steps=3", "--baseline_steps=2", "--images=24", "--test_images=16", *options]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """By two threads, so that the baseline learns in a process of its own."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    torch.set_num_threads(2)
    assert run(folder) == 0
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    return folder


def test_every_promised_file_is_there(finished):
    for name in FILES:
        assert (finished / name).stat().st_size > 0, name
    assert ExtendedPPL.from_pretrained(finished / "model").config == ExtendedPPL(**demo.MODEL).config
    beside = ExtendedAutoLink.from_pretrained(finished.with_name("demo-autolink") / "model")
    assert beside.config == ExtendedAutoLink(**demo.BASELINE).config
    assert (finished / "checkpoints" / "step_0000003" / "state.json").is_file()


def test_numbers_come_with_protocol_and_baseline(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["images"] == {"train": 24, "test": 16}
    for result in (metrics, metrics["beside"]["AutoLink"]):
        for measure in ("regression", "pck", "limb_share", "subject_share"):
            assert result[measure].keys() >= {"value", "baseline", "protocol"}
    assert {len(row["rounds"]) for row in metrics["occlusion"]["rows"]} == {1 + demo.ROUNDS}
    assert metrics["demo"]["steps"] == 3 and metrics["demo"]["processes"] == 2


def test_a_finished_demo_is_measured_again_not_trained_again(finished, capsys):
    log = (finished / "log.jsonl").read_bytes()
    assert run(finished) == 0  # by one thread
    assert (finished / "log.jsonl").read_bytes() == log
    assert json.loads((finished / "metrics.json").read_text())["demo"]["processes"] == 1
    printed = capsys.readouterr().out
    assert f"In {finished}:" in printed and "occlusion.png" in printed and "regression" in printed
    assert printed.endswith(f"\nlook at {finished / 'page.html'}\n")


def test_a_missing_extra_stops_it_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    assert run(tmp_path / "demo") == 2
    assert "needs scipy, which is not installed: pip install 'ppl_fast[data]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_other_options_than_the_runs_stop_before_any_work(finished, tmp_path, capsys):
    assert run(tmp_path / "demo", "--test-images=3") == 2
    assert "test_images must be at least 15, got 3" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
