"""show: the pictures of what a model has learned, and what an AutoLink run has not."""

import pytest

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from PIL import Image
from tiny import MODEL, fails

from ppl_fast import AutoLink, ExtendedPPL
from ppl_fast.cli import main

AUTOLINK = {"detector_base": 4, "detector_size": 32, "translator": "light", "translator_base": 4}
AUTOLINK |= {"translator_levels": 3, "reconstruction_loss": "mse"}


def test_a_run_shows_prior_links_and_the_whole_memory(tmp_path, capsys):
    run = tmp_path / "run"
    model = ExtendedPPL(**(MODEL | {"memory_banks": 14, "memory_prototypes": 4}))
    model.memory.sizes[3, 1:] = 0
    model.save_pretrained(run / "model")
    assert main(["show", str(run)]) == 0
    names = ["connectivity.png", "memory_1.png", "memory_2.png", "prior.png", "usage.png"]
    assert sorted(path.name for path in (run / "show").iterdir()) == names
    printed = capsys.readouterr().out
    assert "6 keypoints, 15 links" in printed
    assert "14 banks of 4 vectors; perplexity 3.8 (1.0 to 4.0 by bank), 3 of 56 dead" in printed
    for name in names:
        assert str(run / "show" / name) in printed
    heights = [Image.open(run / "show" / f"memory_{page}.png").height for page in (1, 2)]
    assert heights[0] == heights[1]  # seven banks on each


def test_the_pictures_are_of_this_model(tmp_path):
    first, second = (ExtendedPPL(**(MODEL | {"memory_prototypes": 3})) for _ in range(2))
    for name, model in (("first", first), ("second", second)):
        model.save_pretrained(tmp_path / name)
        assert main(["show", str(tmp_path / name), "--out", str(tmp_path / f"{name}-pictures")]) == 0
    for name in ("prior", "connectivity", "memory_1"):
        shown = [(tmp_path / f"{run}-pictures" / f"{name}.png").read_bytes() for run in ("first", "second")]
        assert shown[0] != shown[1], name


def test_an_autolink_run_has_its_links_alone(tmp_path, capsys):
    AutoLink(5, 32, **AUTOLINK).save_pretrained(tmp_path / "run")
    assert main(["show", str(tmp_path / "run")]) == 0
    assert [path.name for path in (tmp_path / "run" / "show").iterdir()] == ["connectivity.png"]
    printed = capsys.readouterr().out
    assert "AutoLink learns links but no prior and has no memory" in printed and "5 keypoints, 10 links" in printed


def test_what_is_no_run_and_where_nothing_can_be_written(tmp_path, capsys):
    assert f"{tmp_path} is no run directory" in fails(capsys, "show", tmp_path)
    AutoLink(5, 32, **AUTOLINK).save_pretrained(tmp_path)
    blocked = tmp_path / "config.json" / "pictures"
    assert f"cannot create the output folder {blocked}" in fails(capsys, "show", tmp_path, "--out", blocked)
