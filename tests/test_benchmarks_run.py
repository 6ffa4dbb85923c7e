"""benchmarks/run.py: where the results go."""

import json
import subprocess
import types

import pytest
import run

RESULT = {"benchmarks": []}


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Nothing is measured, and results/ is an empty folder; returns it."""

    def measure(command, **_):
        (raw,) = [part.split("=", 1)[1] for part in command if part.startswith("--benchmark-json=")]
        with open(raw, "w") as file:
            json.dump(RESULT, file)
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", measure)
    monkeypatch.setattr(run, "HERE", tmp_path)
    return tmp_path / "results"


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["run.py", *arguments])
    assert run.main() == 0


def test_all_operators_are_the_committed_file(monkeypatch, measured):
    call(monkeypatch)
    assert [path.name for path in measured.iterdir()] == ["cpu.json"]


def test_some_operators_do_not_replace_it(monkeypatch, measured, tmp_path, capsys):
    call(monkeypatch, "link_heatmap")
    assert not measured.exists() and "operator" in capsys.readouterr().out
    call(monkeypatch, "link_heatmap", "--out", str(tmp_path / "mine.json"))
    assert not measured.exists()
    assert json.loads((tmp_path / "mine.json").read_text())["rows"] == []
