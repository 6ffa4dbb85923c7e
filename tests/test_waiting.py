"""How OpenMP's threads wait for each other, and what a run says when steps become slow."""

import os
import re
import subprocess
import sys

import pytest

from ppl_fast import _waiting

# A command that prints what its environment has become, by the time that torch is loaded.
COMMAND = """
import os, sys, types
from ppl_fast import _waiting, cli
def main(arguments):
    assert "torch" not in sys.modules
    print(_waiting.described())
    return 0
sys.modules["ppl_fast.commands.show"] = types.SimpleNamespace(main=main)
cli.main(["show"])
"""


def described(**variables: str) -> str:
    free = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", *_waiting.POLICY)}
    done = subprocess.run([sys.executable, "-c", COMMAND], env=free | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_commands_let_threads_spin_shortly():
    assert described() == (
        "OMP_NUM_THREADS not set, OMP_WAIT_POLICY not set, GOMP_SPINCOUNT 6000 (by ppl-fast), "
        "KMP_BLOCKTIME 1 (by ppl-fast)"
    )


@pytest.mark.parametrize("name", _waiting.POLICY)
def test_what_the_user_set_stays(name):
    said = described(**{name: "7", "OMP_NUM_THREADS": "2"})
    assert f"{name} 7" in said and "OMP_NUM_THREADS 2" in said and "by ppl-fast" not in said


def test_nothing_is_set_once_torch_is_loaded(monkeypatch):
    for name in _waiting.POLICY:
        monkeypatch.delenv(name, raising=False)
    import torch  # noqa: F401

    _waiting.shorten()
    assert not set(_waiting.POLICY) & os.environ.keys()


@pytest.mark.slow
def test_the_doctor_says_what_is_set_and_openmp_has_taken_it():
    free = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", *_waiting.POLICY)}
    command = [sys.executable, "-m", "ppl_fast.cli", "doctor"]
    done = subprocess.run(command, env=free | {"OMP_DISPLAY_ENV": "VERBOSE"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^CPU threads: \d+; .*GOMP_SPINCOUNT 6000 \(by ppl-fast\)", done.stdout, re.MULTILINE)
    if "GOMP_" in done.stderr:  # libgomp itself
        assert "GOMP_SPINCOUNT = '6000'" in done.stderr


class TestPace:
    """One line when steps take five times their median for long."""

    @pytest.fixture
    def pace(self):
        pytest.importorskip("accelerate", reason="training needs the train extra")
        from ppl_fast.training.pace import Pace

        pace = Pace()
        assert [pace.note(20, 2.0) for _ in range(5)] == [None] * 5
        return pace

    def test_slow_for_long_is_said_once(self, pace):
        assert pace.note(20, 9.9) is None  # slower, but less than five times
        assert pace.note(10, 9.0) is None  # nine times, but not for long
        said = pace.note(10, 12.0)
        assert said.startswith("note: a step has taken 1.2 s for 21 s, where the median is 0.1 s: another process")
        assert [pace.note(10, 12.0) for _ in range(200)] == [None] * 200

    def test_after_a_recovery_it_counts_anew(self, pace):
        assert pace.note(10, 12.0) is not None
        assert pace.note(20, 2.0) is None
        assert pace.note(10, 9.0) is None and pace.note(10, 9.0) is not None

    def test_a_run_that_was_always_slow_has_no_other_pace(self):
        from ppl_fast.training.pace import Pace

        pace = Pace()
        assert [pace.note(1, 30.0) for _ in range(9)] == [None] * 9

    def test_a_run_prints_it(self, images, tmp_path, monkeypatch, capsys):
        from tiny import run_steps

        from ppl_fast.training import trainer

        monkeypatch.setattr(trainer.Pace, "note", lambda self, steps, seconds: f"slow: {steps}")
        run_steps(images, tmp_path / "run", 3)
        assert "slow: 1\n" in capsys.readouterr().out
