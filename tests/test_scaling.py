"""The arithmetic of docs/scaling.md."""

import re
from pathlib import Path

import pytest
import torch

pytest.importorskip("accelerate", reason="training needs the train extra")

import ppl_fast
from ppl_fast.training.traffic import exchanged, ring_seconds

PAGE = (Path(__file__).parents[1] / "docs/scaling.md").read_text(encoding="utf-8")


def sizes(name, **options) -> dict[str, int]:
    with torch.device("meta"):
        model = getattr(ppl_fast, name)()
    return exchanged(model, **options)


@pytest.mark.parametrize("name", ["PPL", "AutoLink"])
def test_bytes_of_a_step(name):
    found = sizes(name, sync_batchnorm=True)
    row = [f"{found[kind]:,}" for kind in ("gradients", "memory", "buffers", "batchnorm")]
    assert f"| {name} | {' | '.join(row)} |" in PAGE
    assert sizes(name)["batchnorm"] == 0
    assert sizes(name, accumulate=3) == found | {"memory": 3 * found["memory"], "batchnorm": 0}


def test_a_ring():
    assert ring_seconds(1000, 1, 100) == 0
    assert ring_seconds(1000, 2, 100) == 10
    assert ring_seconds(1000, 4, 100, latency=1) == 15 + 6


def test_expected_scaling():
    rows = re.findall(r"^\| ([\d.]+)(?: \(.*?\))? \| (.* %) \|$", PAGE, re.MULTILINE)
    assert [float(width) for width, _ in rows] == [1.25, 12.5, 50, 300]
    for width, cells in rows:
        expected = []
        for processes in (8, 64):
            seconds = ring_seconds(sum(sizes("PPL").values()), processes, float(width) * 1e9)
            expected += [f"{1e3 * seconds:.1f}", *(f"{100 * t / (t + seconds):.0f} %" for t in (0.1, 0.4))]
        assert cells.split(" | ") == expected
    assert f"{1e3 * ring_seconds(0, 64, 1, 20e-6):.1f} ms" in PAGE
    assert f"{104 * ring_seconds(0, 64, 1, 20e-6):.2f} s a step" in PAGE
