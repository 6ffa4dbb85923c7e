"""The fuzzer runs over every format, and each of the outcomes that it counts can come to be."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("av", reason="the fuzzer's formats need every extra")
pytest.importorskip("scipy", reason="the fuzzer's formats need every extra")
pytest.importorskip("pillow_heif", reason="the fuzzer's formats need every extra")
pytest.importorskip("pyarrow", reason="the fuzzer's formats need every extra")
if not sys.platform.startswith("linux"):
    pytest.skip("the fuzzer's watch needs Linux", allow_module_level=True)
FUZZ = Path(__file__).parent / "fuzz"


def run(*arguments):
    command = [sys.executable, str(FUZZ), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_a_short_run_over_every_format():
    done = run("--mutations", 360, "--seed", 7)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "360 files in" in done.stdout and "none neither read nor refused" in done.stdout


@pytest.fixture
def trials(monkeypatch, tmp_path):
    """The module of trials, whose formats are tricks."""
    monkeypatch.syspath_prepend(str(FUZZ))
    import formats
    import trials

    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text("secret")
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "a.png").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "outside" / "secret.txt")

    def fill(folder):
        return bytearray(8 << 30)

    def refused(folder):
        raise ValueError(f"{folder / 'a.png'}: no picture")

    def vague(folder):
        raise ValueError("no picture")

    def opened_by_c(folder):
        import ctypes

        libc = ctypes.CDLL(None)
        os.close(libc.open(os.fsencode(folder.parent / "outside" / "secret.txt"), 0))

    tricks = {
        "read": lambda folder: (folder / "a.png").read_text(),
        "refused": refused,
        "vague": vague,
        "zero": lambda folder: 1 // 0,
        "memory": fill,
        "crash": lambda folder: os.kill(os.getpid(), 11),
        "hang": lambda folder: time.sleep(60),
        "opened": lambda folder: (folder.parent / "outside" / "secret.txt").read_text(),
        "linked": lambda folder: (folder.parent / "link").read_text(),
        "opened_by_c": opened_by_c,
        "program": lambda folder: subprocess.run(["true"]),
    }
    for name, read in tricks.items():
        monkeypatch.setitem(formats.FORMATS, name, formats.Format(lambda folder: [], "a.png", read))
    return trials


@pytest.mark.slow
def test_every_outcome_is_told(trials, tmp_path):
    expected = {
        "read": ("read", ""),
        "refused": ("refused", ""),
        "vague": ("unexpected", "no sentence about the file"),
        "zero": ("unexpected", "ZeroDivisionError"),
        "memory": ("unexpected", "MemoryError"),
        "crash": ("crash", "exit code -11"),
        "hang": ("hang", "no end in 3 s"),
        "opened": ("outside", "secret.txt"),
        "linked": ("outside", "secret.txt"),
        "opened_by_c": ("outside", "by a library"),
        "program": ("outside", "subprocess.Popen"),
    }
    child = trials.Child((tmp_path / "trial").resolve(), 3)
    try:
        for name, (outcome, detail) in expected.items():
            got = child.run(name)
            assert got[0] == outcome and detail in got[1], (name, got)
            assert child.run("read") == ("read", "")
        assert child.restarts == 2
    finally:
        child.close()


def test_damage_is_repeated_by_its_seed(monkeypatch):
    monkeypatch.syspath_prepend(str(FUZZ))
    from mutations import mutated, png_sums

    content = bytes(range(256)) * 4
    made = [mutated(content, [content], random.Random(seed)) for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2] and content not in made
    whole = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\1IDATx" + bytes(4)
    assert png_sums(whole) != whole and png_sums(png_sums(whole)) == png_sums(whole)
