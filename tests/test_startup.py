"""Start-up: help without torch, and public names that are imported when they are first used."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ppl_fast
from ppl_fast.cli import COMMANDS

HEAVY = {"torch", "numpy", "accelerate", "matplotlib", "PIL", "scipy"}


def printed(code: str) -> str:
    """What code prints in a process of its own."""
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_no_command_imports_torch():
    pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
    calls = [["--help"], *([command, "--help"] for command in COMMANDS), ["train", "--help-all"]]
    code = f"from ppl_fast.cli import main\nfor call in {calls}: assert main(call) == 0\n"
    shown, _, imported = printed(f"{code}print('imported', sorted({HEAVY} & sys.modules.keys()))").rpartition(
        "imported"
    )
    assert imported == " []\n"
    assert all(f"usage: ppl-fast {command}" in shown for command in COMMANDS)


@pytest.mark.slow
def test_names_are_imported_at_their_first_use():
    code = "import ppl_fast\nprint('torch' in sys.modules, 'PPL' in dir(ppl_fast))\nfrom ppl_fast import *\n"
    code += "print(len(set(ppl_fast.__all__) & set(globals())), ppl_fast.models.MODELS['ppl'] is PPL)"
    assert printed(code) == f"False True\n{len(ppl_fast.__all__)} True\n"
    assert ppl_fast.affine_warp is ppl_fast.ops.affine_warp and "affine_warp" in vars(ppl_fast)
    with pytest.raises(AttributeError, match="^module 'ppl_fast' has no attribute 'PPPL'$"):
        ppl_fast.PPPL  # noqa: B018


@pytest.mark.slow
def test_ops_are_registered_where_torch_is_imported():
    code = "print(hasattr(torch.ops.ppl_fast, 'link_heatmap'), 'ppl_fast.models' in sys.modules)"
    assert printed(f"import torch, ppl_fast\n{code}") == "True False\n"


def test_the_first_use_may_be_in_a_compiled_function(monkeypatch):
    monkeypatch.delitem(vars(ppl_fast), "affine_warp", raising=False)
    warp = torch.compile(lambda x, a: ppl_fast.affine_warp(x, a), backend="eager", fullgraph=True)
    assert warp(torch.ones(2, 2), torch.ones(1, 2, 2, 3)).tolist() == [[[3.0, 3.0], [3.0, 3.0]]]
    model = ppl_fast.PPL(3, 16, width=0.05, memory_width=4, reconstruction_loss="mse")
    assert type(pickle.loads(pickle.dumps(model))) is ppl_fast.PPL


def test_type_checkers_see_all_names():
    tree = ast.parse(Path(ppl_fast.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    assert {alias.name for node in block.body for alias in node.names} == set(ppl_fast.__all__)


def test_everyday_options_alone_are_in_the_help_and_all_in_the_other(capsys):
    pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
    from ppl_fast.cli import main

    shown = {}
    for option in ("--help", "--help-all"):
        assert main(["train", option]) == 0
        shown[option] = capsys.readouterr().out
    everyday, everything = shown["--help"], shown["--help-all"]
    assert "--num-keypoints NUM_KEYPOINTS\n" in everyday and "--help-all" in everyday
    assert "--memory-banks" not in everyday and "--model." not in everyday.partition("positional arguments")[2]
    assert "--memory-banks, --model.memory_banks MEMORY_BANKS\n" in everything
    assert everyday.count("\n  --") < everything.count("\n  --") / 3
    assert "type:" not in everything and "null" not in everyday and "(default: 20000)" in everyday


@pytest.mark.parametrize("join", "-_")
def test_words_of_an_option_are_joined_either_way(join, capsys, tmp_path):
    pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
    from ppl_fast.cli import main

    assert main(["demo", f"--test{join}images=1", "--out", str(tmp_path)]) == 2
    assert "run_demo: test_images must be at least 15, got 1" in capsys.readouterr().err
    for name in (f"--batch{join}size", f"--train.batch{join}size"):
        assert main(["train", "x", "--out", "y", name, "none"]) == 2
        assert "option train.batch_size must be of type int, got none" in capsys.readouterr().err


@pytest.mark.slow
def test_doctor_knows_the_operators_in_a_process_of_its_own():
    found = printed("from ppl_fast.cli import main\nassert main(['doctor']) == 0\n")
    assert "link_heatmap: auto uses" in found and "memory_attention: auto uses" in found
