"""Measure operators, models and loading on a GPU: `python benchmarks/gpu_bench.py [GROUP ...] [--rehearse]`.

Each implementation is first compared with the float64 reference (a model with the published formulas), on an input that
takes the same path through the kernels, which torch's profiler confirms. Times are medians in microseconds: `eager`
with events around each call and the L2 cache emptied before it, `graph` as replays of a CUDA graph that holds many
calls (inputs then lie in the L2 cache). `total` is forward and backward, or a task. What the result file has already is
not measured again: a run that ended, or whose GPU stopped answering, is taken up where it was.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import gpu_clock  # it says whether kernels are interpreted, and where the tests are

# isort: split
import torch
import whole_model
from cases import TOLERANCE, Case
from gpu_clock import COMPILER, DEVICE, HERE, REHEARSE, eager_time, graph_time, kernel_times, launched, peak_memory
from gpu_models import MODEL, measure_demo, measure_estimate, measure_loading, measure_model
from harness import GATE, assert_close_on_average, implementation, leaves_of, outputs_of, suites
from op_tester import assert_close

import ppl_fast
from ppl_fast import _backend, _library
from ppl_fast._library import OPERATORS
from ppl_fast._selftest import ramp

KERNELS = ("cpp", "triton")
WORKLOADS = [w for suite in suites().values() for w in suite.WORKLOADS if w.gpu != "none"]
NOT_BEGUN = "not begun"


class Job(NamedTuple):
    """One row of the result: what it is called, whose kernels it needs, and what measures it."""

    label: str
    backend: str
    measure: Callable[[], dict]


@functools.cache
def compiled(op: str):
    # Anew for each shape: the fastest that it can be.
    return torch.compile(suites()[op].FORMULA, backend=COMPILER, dynamic=False)


def prepare(workload, name, make, dtype=None, device=DEVICE):
    """Two functions that run one implementation on one input: forward, and forward and backward."""
    op = workload.op
    function = compiled(op) if name == "compiled" else implementation(op, name, suites()[op].FORMULA)
    inputs = Case(workload.label, make).inputs(dtype or workload.dtype, device)
    leaves = leaves_of(op, inputs)
    upstream = [ramp(o) for o in outputs_of(function, inputs)]

    def total():
        outputs = outputs_of(function, inputs)
        return [*outputs, *torch.autograd.grad(outputs, leaves, upstream)]

    def forward():
        with torch.no_grad():
            return outputs_of(function, inputs)

    return forward, total


def gate(workload, name, total) -> None:
    """Raise unless the implementation agrees with the float64 reference, by the kernels that `total` launches.

    What is compiled is compared with the formula itself, on what is measured: another input would be compiled anew.
    """
    if name == "compiled":
        _, formula = prepare(workload, "formula", workload.tiny if REHEARSE else workload.make)
        for i, (actual, expected) in enumerate(zip(total(), formula(), strict=True)):
            assert_close_on_average(f"{workload.op} compiled, array {i}", actual.detach(), expected.detach(), GATE)
        return
    make = workload.tiny if REHEARSE else workload.small
    _, small = prepare(workload, name, make)
    rounded = Case(workload.label, make).inputs(workload.dtype, "cpu")
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in rounded.items()}
    _, reference = prepare(replace(workload, label="exact"), "reference", lambda _: exact, torch.float64, "cpu")
    for i, (actual, expected) in enumerate(zip(small(), reference(), strict=True)):
        tolerance = max(GATE, TOLERANCE[workload.dtype])
        assert_close(f"{workload.op} {workload.label} {name}, array {i}", actual.detach(), expected.detach(), tolerance)
    if name in KERNELS and not REHEARSE:
        measured, gated = launched(total), launched(small)
        if not measured or measured != gated:
            raise AssertionError(f"the case that gates it launches {gated}, what is measured {measured}")


def measure_operator(workload, name) -> dict:
    forward, total = prepare(workload, name, workload.tiny if REHEARSE else workload.make)
    gate(workload, name, total)
    row = {"op": workload.op, "shape": workload.label, "backend": name}
    row |= {"eager_forward_us": eager_time(forward), "eager_total_us": eager_time(total)}
    row["peak_mb"] = peak_memory(total)
    if name in KERNELS:
        row["kernels_us"] = kernel_times(total)  # to lie beside what cycle_model.py predicts
    return row | {"graph_forward_us": graph_time(forward), "graph_total_us": graph_time(total)}


def available(name: str) -> str | None:
    """Why an implementation cannot be measured here, or None."""
    if name in KERNELS:
        return next(filter(None, (_backend.reason_against(op, name, DEVICE) for op in OPERATORS)), None)
    return None


def fastest() -> str:
    return "cpp" if available("cpp") is None else "triton"


def operator_jobs(names) -> list[Job]:
    jobs = [(w, name) for name in names for w in WORKLOADS if name in w.implementations("gpu")]
    return [Job(f"{w.op} {w.label} {name}", name, functools.partial(measure_operator, w, name)) for w, name in jobs]


def estimate_jobs() -> list[Job]:
    """One image and a batch, one pass and four, by the model as it is and by `optimize`'s copies."""
    return [
        Job(
            f"estimate B={batch} passes={iterations} {how}",
            "cpp",
            functools.partial(measure_estimate, batch, how, iterations),
        )
        for batch in dict.fromkeys((MODEL.batch, 1))
        for iterations in (1, 4)
        for how in ("optimized", "optimized bfloat16", "plain")
    ]


def demo_jobs() -> list[Job]:
    """Launched kernel by kernel, and replayed from a CUDA graph."""
    return [
        Job(f"demo's training{' replayed' * replayed}", fastest(), functools.partial(measure_demo, replayed))
        for replayed in (False, True)
    ]


def chosen(names, precisions) -> list[tuple[str, str]]:
    """Every name at every precision, one precision after the other."""
    return [(name, precision) for precision in precisions for name in names]


def model_jobs(wanted, compiler=None) -> list[Job]:
    """Of (name, precision), both tasks."""
    return [
        Job(
            f"{task} {name} {precision}{' compiled' * bool(compiler)}",
            name,
            functools.partial(measure_model, task, name, precision, compiler),
        )
        for name, precision in wanted
        for task in whole_model.TASKS
    ]


ROUNDED, OURS_AND_FORMULA = ("tf32", "bfloat16"), ("cpp", whole_model.FORMULA)
GROUPS: dict[str, Callable[[], list[Job]]] = {
    "cpp": lambda: operator_jobs(("cpp",)),
    "triton": lambda: operator_jobs(("triton",)),
    "models": lambda: model_jobs(chosen((*OURS_AND_FORMULA, whole_model.LAID_OUT), ROUNDED)),
    "models_float32": lambda: model_jobs([*chosen(OURS_AND_FORMULA, ("float32",)), ("triton", "tf32")]),
    "estimate": estimate_jobs,
    "demo": demo_jobs,
    "loading": lambda: [
        Job("loading JPEG files", "loader", functools.partial(measure_loading, None)),
        Job("training from JPEG files", "loader", functools.partial(measure_loading, fastest())),
    ],
    "formulas": lambda: operator_jobs(("reference", "formula")),
    "compiled": lambda: operator_jobs(("compiled",)),
    "compiled_models": lambda: model_jobs(chosen(OURS_AND_FORMULA, (*ROUNDED, "float32")), COMPILER),
}


def machine() -> dict:
    import triton

    found = {"torch": torch.__version__, "triton": triton.__version__, "ppl_fast": ppl_fast.__version__}
    found["copy_bandwidth_gb_s"] = gpu_clock.copy_bandwidth()
    if kernels := _library.loaded("_C_cuda"):
        found["_C_cuda"] = kernels.build_info()
    if REHEARSE:
        return {"rehearsal": True, **found}
    properties = torch.cuda.get_device_properties(0)
    driver = os.popen("nvidia-smi --query-gpu=driver_version --format=csv,noheader").read().strip()
    found |= {"gpu": properties.name, "capability": f"{properties.major}.{properties.minor}", "driver": driver}
    return found | {"multiprocessors": properties.multi_processor_count, "cuda": torch.version.cuda}


def checks(folder: Path) -> dict[str, str]:
    """What gpu_suite.sh found before it measured, in the words of pytest and the checkers."""
    logs = [folder / f"{name}.log" for name in ("tests", "memcheck", "racecheck")]
    telling = re.compile(r"\d+ passed|checked \d+ of|SUMMARY")
    return {log.stem: "; ".join(filter(telling.search, log.read_text().splitlines())) for log in logs if log.exists()}


def write(result: dict, out: Path) -> None:
    """After each row, and whole: a run that is cut short keeps what it has."""
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(out)


def run(job: Job, result: dict, in_time: bool) -> bool:
    """Measure a row, or note why it is left out; returns whether the GPU can go on."""
    del result["left_out"][job.label]
    reason = available(job.backend)
    if reason is None and not in_time:
        reason = "out of time"
    if reason is None:
        gpu_clock.settle()  # all the memory that there is
        try:
            row = {k: round(v, 3) if isinstance(v, float) else v for k, v in job.measure().items()}
            result["rows"].append({"job": job.label, **row})
            print(json.dumps(row), flush=True)
        except Exception as error:  # the other figures are still worth having
            traceback.print_exc()
            reason = f"failed: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    if reason is not None:
        result["left_out"][job.label] = reason
        print(f"{job.label}: {reason}", flush=True)
    return reason is None or not reason.startswith("failed") or gpu_clock.settle()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, small shapes, no figures worth keeping")
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "gpu" / "gpu.json")
    parser.add_argument("--until", type=float, default=1e12, help="start no row after this second since 1970")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"unknown group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    if REHEARSE:
        gpu_clock.stand_in()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.out.exists():
        result = json.loads(arguments.out.read_text())
    else:
        every = [job.label for group in GROUPS.values() for job in group()]
        result = {"machine": machine(), "checks": checks(arguments.out.parent), "rows": []}
        result["left_out"] = dict.fromkeys(every, NOT_BEGUN)
    print(json.dumps(result["machine"]))
    for job in [job for group in arguments.groups or GROUPS for job in GROUPS[group]()]:
        if result["left_out"].get(job.label) != NOT_BEGUN:
            continue
        result["left_out"][job.label] = "interrupted"
        write(result, arguments.out)
        if not run(job, result, time.time() < arguments.until):
            write(result, arguments.out)
            print("the GPU no longer answers: what is left is measured by a new process", flush=True)
            os.execv(sys.executable, [sys.executable, *sys.argv])
        write(result, arguments.out)
    print(f"written to {arguments.out}")
    return int(any(reason.startswith("failed") for reason in result["left_out"].values()))


if __name__ == "__main__":
    sys.exit(main())
