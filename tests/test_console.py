"""Consoles and notebooks: other encodings, closed and missing streams, warnings, and backends of matplotlib."""

import io
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

pytest.importorskip("jsonargparse", reason="the command line needs the train extra")
pytest.importorskip("accelerate", reason="training needs the train extra")

from tiny import run_steps

from ppl_fast import _console, cli
from ppl_fast.cli import main

ROOT = Path(__file__).parents[1]


def python(*arguments, **environment):
    variables = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables, errors="replace")


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_names_that_the_console_does_not_have(images, tmp_path, monkeypatch, encoding):
    """Chinese, and a name that is no UTF-8, which every encoding refuses."""
    images = shutil.copytree(images, tmp_path / "images")
    for name in ("\u56fe\u7247.jpg", "caf\udce9.jpg"):
        (images / name).write_bytes(b"")
    out, error = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    with monkeypatch.context() as console:
        console.setattr(sys, "stdout", out)
        console.setattr(sys, "stderr", error)
        run_steps(images, tmp_path / "library", 1, max_bad_share=0.5)
        assert main(["estimate", str(tmp_path / "library"), str(tmp_path / "\u56fe"), "--out", "p.csv"]) == 2
        assert sys.stdout is out and sys.stderr is error  # as they were
    told, failed = (stream.buffer.getvalue().decode(encoding) for stream in (out, error))
    assert "caf\\xe9.jpg" in told
    assert ("\u56fe" if encoding == "utf-8" else "\\u56fe\\u7247.jpg") in told
    assert "\u56fe is missing" in failed or "\\u56fe is missing" in failed


def test_lines_that_come_amid_a_progress_bar(capsys):
    """A line of its own each, and the bar below."""
    with _console.lasting(), _console.sentences("warning: "), tqdm(total=2) as bar:
        bar.update()
        bar.refresh()
        _console.say("said amid")
        warnings.warn("warned amid", stacklevel=1)
    told = capsys.readouterr()
    assert told.out == "said amid\n"
    before, after = told.err.split("\rwarning: warned amid\n")
    assert not before.split("\r")[-1].strip() and "50%" in before and "50%" in after


class Closed(io.StringIO):
    """A pipe whose reader has gone, as `head` does."""

    def __init__(self, number):
        super().__init__()
        self.number, self.writes = number, 0

    def write(self, text):
        self.writes += 1
        raise OSError(self.number, os.strerror(self.number))

    def fileno(self):
        return self.file.fileno()


@pytest.mark.parametrize("number", _console.GONE)
def test_a_console_that_goes_away_stops_no_work(tmp_path, monkeypatch, number):
    stream = Closed(number)
    with open(tmp_path / "descriptor", "w") as stream.file, monkeypatch.context() as console:
        console.setattr(sys, "stdout", stream)
        with _console.lasting():
            print("one")
            print("two")
        os.write(stream.fileno(), b"dropped")
    assert stream.writes and (tmp_path / "descriptor").read_bytes() == b""


def test_other_faults_of_a_console_are_errors(monkeypatch, capsys):
    with monkeypatch.context() as console:
        console.setattr(sys, "stdout", Closed(28))
        with pytest.raises(OSError, match="No space left"), _console.lasting():
            print("one")
        assert main(["--help"]) == 1
        assert capsys.readouterr().err == "ppl-fast: error: the output cannot be printed: No space left on device\n"
        monkeypatch.setattr(cli, "_command", lambda name: lambda arguments: print("one"))
        assert main(["say"]) == 2  # in the middle of a command's work
    assert capsys.readouterr().err == "ppl-fast: error: the output: No space left on device\n"


@pytest.mark.slow
def test_a_closed_pipe_in_a_process_of_its_own(images, config, tmp_path):
    command = [sys.executable, "-m", "ppl_fast.cli", "train", images, "--out", tmp_path / "run", "--config", config]
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*map(str, command)], stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert "Exception" not in done.stderr and "Broken pipe" not in done.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_no_console_at_all(images, tmp_path, monkeypatch):
    """As of pythonw, services and `>&- 2>&-`."""
    with monkeypatch.context() as console:
        console.setattr(sys, "stdout", None)
        console.setattr(sys, "stderr", None)
        run_steps(images, tmp_path / "run", 1)
        code = main(["estimate", str(tmp_path / "run"), str(images), "--out", str(tmp_path / "p.csv")])
    assert code == 0 and (tmp_path / "p.csv").is_file()


def test_warnings_are_one_line_each(monkeypatch, capsys):
    def warned(_):
        for _ in range(3):
            warnings.warn("some\n  words", UserWarning, stacklevel=1)
        warnings.warn("others", UserWarning, stacklevel=1)
        return 0

    monkeypatch.setattr("ppl_fast.cli._command", lambda name: warned)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["doctor"]) == 0
    assert capsys.readouterr().err == "ppl-fast: warning: some words\nppl-fast: warning: others\n"
    assert warnings.showwarning is before


@pytest.mark.parametrize("columns", ["1", "20", "0", "wide"])
def test_narrow_consoles(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["train", "--help-all"]) == 0
    text = capsys.readouterr().out
    assert "--model.num_keypoints" in text and "\x1b[" not in text


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "no such backend"])
def test_charts_need_no_backend(tmp_path, backend):
    pytest.importorskip("matplotlib", reason="charts need the viz extra")
    code = (
        "import os, sys, torch\nfrom ppl_fast.visualization import save_connectivity\n"
        "save_connectivity(sys.argv[1], torch.eye(4))\nprint(os.environ['MPLBACKEND'])"
    )
    done = python("-c", code, tmp_path / "a.png", MPLBACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{backend}\n" and (tmp_path / "a.png").stat().st_size


@pytest.mark.slow
def test_the_backend_that_is_here_stays_the_users(tmp_path):
    pytest.importorskip("matplotlib", reason="charts need the viz extra")
    code = (
        "import sys, torch\nfrom ppl_fast.visualization import save_connectivity\n"
        "save_connectivity(sys.argv[1], torch.eye(4))\nimport matplotlib\nprint(matplotlib.get_backend())"
    )
    assert python("-c", code, tmp_path / "a.png", MPLBACKEND="svg").stdout == "svg\n"


@pytest.mark.parametrize("text", ["precision: no, lr: 1e-3, flip: off", "precision: 'no', lr: 0.001, flip: 'no'"])
def test_words_and_numbers_of_yaml(images, tmp_path, text):
    import yaml

    small = "num_keypoints: 5, image_size: 32, reconstruction_loss: mse, regressor_base: 4, translator: light"
    loop = f"{{{text}, steps: 1e0, batch_size: 2, workers: 0, device: cpu, picture_every: 0, tensorboard: no}}"
    (tmp_path / "c.yaml").write_text(f"model: {{{small}, mask_ratio: 5e-1}}\ntrain: {loop}\n")
    out = tmp_path / "run"
    assert main(["train", str(images), "--out", str(out), "--config", str(tmp_path / "c.yaml")]) == 0
    written = yaml.safe_load((out / "config.yaml").read_text())
    found = {name: written["train"][name] for name in ("precision", "lr", "flip", "steps", "tracker")}
    assert found == {"precision": "no", "lr": 1e-3, "flip": False, "steps": 1, "tracker": "none"}
    assert written["model"]["mask_ratio"] == 0.5


def test_numbers_of_numpy_in_operators_and_models():
    import numpy as np

    from ppl_fast import link_heatmap
    from ppl_fast.ops import prototype_sums

    keypoints, weights = torch.rand(1, 3, 2), torch.rand(3)
    plain = link_heatmap(keypoints, weights, (16, 8), 0.25)
    assert torch.equal(link_heatmap(keypoints, weights, (np.int64(16), np.int32(8)), np.float32(0.25)), plain)
    assert torch.equal(
        link_heatmap(keypoints, weights, np.uint8(16), np.float64(0.25)), link_heatmap(keypoints, weights, 16, 0.25)
    )
    counts, _ = prototype_sums(torch.rand(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64), np.int64(5))
    assert counts.shape == (3, 5)
