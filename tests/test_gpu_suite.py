"""What gpu_suite.sh runs: that what is measured is gated on its own path, and, rehearsed, that each row is filled."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import cuda_emulator
import harness
import pytest
import torch
from cases import Case

ROOT = Path(__file__).parents[1]
MEASURED = [w for suite in harness.suites().values() for w in suite.WORKLOADS if w.gpu != "none"]
needs_emulator = pytest.mark.skipif(
    cuda_emulator.reason_against() is not None, reason=str(cuda_emulator.reason_against())
)


def launched(workload, make, library) -> set[int]:
    inputs = Case(workload.label, make).inputs(workload.dtype)

    def run():
        leaves = harness.leaves_of(workload.op, inputs)
        outputs = harness.outputs_of(harness.implementation(workload.op, "emulated"), inputs)
        torch.autograd.grad(outputs, leaves, [torch.empty_like(o) for o in outputs])

    return cuda_emulator.launched(library, run, run=False)


@needs_emulator
@pytest.mark.parametrize("workload", MEASURED, ids=lambda w: f"{w.op} {w.label}")
def test_what_is_measured_is_gated_on_the_kernels_that_it_launches(workload):
    with cuda_emulator.emulation() as library:
        measured, gated = (launched(workload, make, library) for make in (workload.make, workload.small))
    assert len(measured) >= 2 and measured == gated


@needs_emulator
def test_a_case_of_another_path_is_told_apart():
    hard, soft = [w for w in MEASURED if "k=4096" in w.label]
    with cuda_emulator.emulation() as library:
        for many in (hard, soft):
            assert launched(many, many.tiny, library) != launched(many, many.small, library)
        assert launched(hard, hard.small, library) != launched(soft, soft.small, library)


def test_links_come_in_as_many_goes_where_a_case_gates_what_is_measured():
    for workload in (w for w in MEASURED if w.op == "link_heatmap"):
        sizes = {make(torch.Generator())["weights"].shape[-1] for make in (workload.make, workload.small)}
        assert len(sizes) == 1, workload.label


@needs_emulator
@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("PPL_FAST_REHEARSE") != "1", reason="all of the suite takes five minutes: ask by PPL_FAST_REHEARSE=1"
)
def test_a_rehearsal_fills_every_row(tmp_path):
    """All of the suite, on the CPU."""
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(ROOT / "benchmarks" / "gpu_suite.sh"), "--rehearse"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert [step for step in re.findall(r"^== (\w+): status 0", done.stdout, re.MULTILINE)] == STEPS
    assert int(re.search(r"(\d+) passed", (tmp_path / "tests.log").read_text())[1]) > 10
    for tool in ("memcheck", "racecheck"):
        assert int(re.search(r"checked (\d+) of", (tmp_path / f"{tool}.log").read_text())[1]) > 10
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert result["left_out"] == {} and result["checks"].keys() == {"tests", "memcheck", "racecheck"}
    assert {row["job"] for row in result["rows"]} == wanted()
    for row in result["rows"]:
        for key, value in row.items():
            assert value is not None, row
            if isinstance(value, float):
                assert math.isfinite(value) and (value > 0 or key == "peak_mb"), row


STEPS = ["build", "doctor", "tests", "memcheck", "racecheck", "cpp", "models", "demo", "estimate", "formulas", "triton"]
STEPS += ["loading", "compiled", "models_float32", "tune", "compiled_models"]


def wanted() -> set[str]:
    """Every workload by every implementation that is named for it, and every model's task in every precision."""
    rows = {f"{w.op} {w.label} {name}" for w in MEASURED for name in w.implementations("gpu")}
    for task in ("training step", "inference"):
        for precision in ("float32", "tf32", "bfloat16"):
            rows |= {f"{task} {name} {precision}{how}" for name in ("cpp", "formula") for how in ("", " compiled")}
        rows |= {f"{task} formula, channels last {precision}" for precision in ("tf32", "bfloat16")}
        rows.add(f"{task} triton tf32")
    estimates = [(passes, how) for passes in (1, 4) for how in ("plain", "optimized", "optimized bfloat16")]
    rows |= {f"estimate B=1 passes={passes} {how}" for passes, how in estimates}
    rows |= {"demo's training", "demo's training replayed"}
    return rows | {"loading JPEG files", "training from JPEG files"}
