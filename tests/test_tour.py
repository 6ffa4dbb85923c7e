"""docs/tour.ipynb runs as in a browser: with a notebook's backend for figures, and a figure wherever it draws."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need the dev extra")
nbclient = pytest.importorskip("nbclient", reason="notebooks need the dev extra")

TOUR = Path(__file__).parents[1] / "docs" / "tour.ipynb"
ALL_STEPS = "STEPS = 700  # of training; the demo takes 4,000"


@pytest.fixture
def notebook():
    return nbformat.read(TOUR, as_version=4)


def test_it_is_kept_without_results(notebook):
    assert all(not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.slow
def test_it_runs(notebook, monkeypatch, tmp_path):
    """All of it, but for the steps of training: 700 with PPL_FAST_TOUR=1, else 4."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")  # as Colab has it
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert ALL_STEPS in notebook.cells[1].source
    if not os.environ.get("PPL_FAST_TOUR"):
        notebook.cells[1].source = notebook.cells[1].source.replace("700", "4", 1)
    nbclient.NotebookClient(notebook, timeout=1800).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 7
    said = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert float(said.rpartition("largest difference: ")[2]) < 1e-5
