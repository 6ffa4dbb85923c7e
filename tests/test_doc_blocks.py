"""Every block of code on the site is run: Python in a folder that has what the pages speak of, commands as far as their
parsers; or the page says beside it why not: `<!-- not run: REASON -->` before a block, `<!-- blocks not run: ... -->`.
"""

import subprocess
from importlib import import_module
from pathlib import Path

import pytest

pytest.importorskip("jsonargparse", reason="the pages' commands need the train extra")

import numpy as np
import torch
from doc_blocks import PAGES, ROOT, TEXT, blocks, commands
from PIL import Image
from published_cases import small_ppl
from tiny import draw_images, run_steps

import ppl_fast
from ppl_fast.cli import COMMANDS
from ppl_fast.data import make_figures
from ppl_fast.inference import FORMATS, estimate
from ppl_fast.naming import Schedule, fitting
from ppl_fast.naming.network import trained
from ppl_fast.training import load_model

BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language in ("sh", "bash") and not block.marked]
PYTHON = {page.name: [b for b in blocks(page) if b.language == "python" and not b.marked] for page in PAGES}


def test_every_block_is_run_or_says_why_not():
    open_ones = [str(b) for b in BLOCKS if not b.marked and b.language not in {"sh", "bash", "python", *TEXT}]
    assert open_ones == []
    assert len(SHELL) > 10 and sum(map(len, PYTHON.values())) > 10


class Parsed(Exception):
    """A command's options were understood."""


@pytest.fixture
def parsing(monkeypatch, tmp_path):
    """A function that takes `ppl-fast`'s words as far as their parser, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(name, *arguments):
        assert name in COMMANDS, f"there is no command {name}"
        module = import_module(f"ppl_fast.commands.{name.replace('-', '_')}")

        def parse(parser, given, *rest, **options):
            original(parser, given, *rest, **options)
            raise Parsed

        def parsed(parser, given):
            assert given == []
            raise Parsed

        original = import_module("ppl_fast.commands.options").parse
        with monkeypatch.context() as patched, pytest.raises(Parsed):
            if name == "doctor":  # it has no options
                patched.setattr("argparse.ArgumentParser.parse_args", parsed)
            else:
                patched.setattr(module, "parse", parse)
            module.main(list(arguments))

    return run


def check_make(words):
    """make has these targets; its database is asked, since a dry run would run make below make."""
    done = subprocess.run(["make", "-npRr", "clean"], cwd=ROOT, capture_output=True, text=True)
    for target in (word for word in words[1:] if "=" not in word):
        assert f"\n{target}:" in done.stdout, f"there is no target {target}"


def check_files(words):
    """A script or test that is named is there, and a script knows its options."""
    for word in words[1:]:
        path = word.partition("::")[0]
        if path.endswith((".py", ".sh")) and not path.startswith("-"):
            assert (ROOT / path).is_file(), f"there is no {path}"
            text = (ROOT / path).read_text(encoding="utf-8")
            if not path.startswith("tests/"):
                unknown = [each for each in words if each.startswith("--") and each.partition("=")[0] not in text]
                assert unknown == [], path


KNOWN = {"pip", "python", "pytest", "torchrun", "gpu_suite.sh"}  # whose own options are not ours to check


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_are_understood(block, parsing):
    for words in commands(block):
        tool = Path(words[0]).name
        if tool == "ppl-fast":
            parsing(*words[1:])
        elif tool == "make":
            check_make(words)
        else:
            assert tool in KNOWN, f"{block}: nothing here can check {tool}; a mark before the block may say why"
            check_files(["", words[0], *words[1:]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the pages speak of, in small: runs/mine, photos/, labelled/, footage/, masks/, walk.mp4, a checkpoint."""
    video_files = pytest.importorskip("video_files", reason="videos need the video extra")
    there = tmp_path_factory.mktemp("pages")
    (there / "runs").mkdir()
    draw_images(there / "photos")
    run_steps(there / "photos", there / "runs" / "mine", 2)
    make_figures(there / "labelled", 24, size=32)
    for name in ("footage", "clips"):
        (there / name).mkdir()
        video_files.write_clips(there / name)
    video_files.encode(there / "walk.mp4", count=6)
    (there / "masks").mkdir()
    for name in ("mask.png", "masks/0.png"):
        Image.fromarray(np.eye(30, 40, dtype=np.uint8) * 255).save(there / name)
    torch.save(small_ppl().to_published(), there / "checkpoint_latest.pth")
    return there


def names_taken_for_granted(folder):
    """What a page's reader has at hand before its first line."""
    random = np.random.default_rng(0)
    return {
        "torch": torch,
        "ppl_fast": ppl_fast,
        "Path": Path,
        "estimate": estimate,
        "model": load_model(folder / "runs" / "mine"),
        "images": torch.rand(24, 3, 32, 32) * 2 - 1,
        "joints": random.uniform(-1, 1, (24, 3, 2)),
        "shown": np.ones((24, 3), dtype=bool),
        "names": ["nose", "tail", "back"],
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", [name for name, found in PYTHON.items() if found])
def test_python_runs(page, folder, monkeypatch):
    """The blocks of a page one after the other, as a reader would paste them; "cuda" is what there is."""
    monkeypatch.chdir(folder)
    monkeypatch.setitem(FORMATS, "arrays", None)  # that a page adds, until the test ends
    monkeypatch.setattr(fitting, "trained", lambda *given: trained(*given[:4], Schedule(steps=3), *given[5:]))
    known = names_taken_for_granted(folder)
    for block in PYTHON[page]:
        text = block.text if torch.cuda.is_available() else block.text.replace('"cuda"', '"cpu"')
        exec(compile("\n" * block.line + text, ROOT / block.page, "exec"), known)


def test_a_wrong_option_does_not_pass(parsing):
    with pytest.raises(Exception, match="no-such-option"):
        parsing("estimate", "runs/mine", "photos/", "--out", "a.csv", "--no-such-option", "1")
    with pytest.raises(AssertionError, match="no command"):
        parsing("guess")
