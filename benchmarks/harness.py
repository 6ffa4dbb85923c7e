"""How every operator is measured: correctness first, forward and backward apart, peak memory in a fresh process."""

from __future__ import annotations

import contextlib
import functools
import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cases import Case
from op_tester import OPERATORS, assert_close, floating

from ppl_fast._selftest import ramp

HERE = Path(__file__).parent
GATE = 1e-3  # of an array's largest value, float32 against the float64 reference; a wrong kernel is off by its size
BESIDE = {  # what kernels are measured beside
    "all": ("formula", "compiled", "reference"),
    "formula": ("formula",),
    "reference": ("reference",),
    "kernels": (),
}


@dataclass(frozen=True)
class Workload:
    """One row of the table: an operator at a size.

    Attributes:
        op, label: the operator, and its size in words.
        make: draws the input.
        small: draws a smaller relative that takes the same path through the kernels; it gates correctness.
        tiny: draws an input for rehearsals, in which kernels are interpreted.
        cpu, gpu: what the kernels are measured beside there, a key of `BESIDE`; "none" leaves the workload out.
        rounds: how often it is timed on a CPU.
        dtype: of what is measured on a GPU.
    """

    op: str
    label: str
    make: Callable
    small: Callable
    tiny: Callable
    cpu: str
    gpu: str
    rounds: int = 30
    dtype: torch.dtype = torch.float32

    def implementations(self, device: str) -> tuple[str, ...]:
        """What is measured on a "cpu" or a "gpu"."""
        beside = getattr(self, device)
        kernels = ("cpp",) if device == "cpu" else ("triton", "cpp")
        return () if beside == "none" else (*BESIDE[beside], *kernels)


def suites() -> dict[str, ModuleType]:
    """The files bench_<op>.py, each with `WORKLOADS` and the `FORMULA` that they are measured against, by operator."""
    return {
        path.stem.removeprefix("bench_"): importlib.import_module(path.stem)
        for path in sorted(HERE.glob("bench_*.py"))
        if path.stem.removeprefix("bench_") in OPERATORS
    }


def parameters(workloads: list[Workload]) -> list:
    """(workload, implementation) of a CPU as parameters."""
    return [pytest.param(w, name, id=f"{w.label}-{name}") for w in workloads for name in w.implementations("cpu")]


@functools.cache
def implementation(op: str, name: str, formula=None):
    """The function behind `formula`, `compiled` (the formula through torch.compile) or a backend's name."""
    if name == "formula":
        return formula
    if name == "compiled":
        return torch.compile(formula)
    return functools.partial(OPERATORS[op].function, backend=name)


def leaves_of(op, inputs):
    """The arguments that get a gradient, asked to."""
    return [inputs[name].requires_grad_() for name in OPERATORS[op].differentiable]


def outputs_of(function, inputs):
    """The floating-point outputs of an implementation."""
    return floating(function(**{k: v for k, v in inputs.items() if v is not None}))


@functools.cache
def gate(workload: Workload, name: str, formula) -> None:
    """Raise unless the implementation agrees with the float64 reference, values and gradients, before it is timed."""
    case = Case(workload.label, workload.small)
    results = []
    for function, dtype in (
        (implementation(workload.op, name, formula), torch.float32),
        (implementation(workload.op, "reference"), torch.float64),
    ):
        inputs = {
            k: v.to(dtype) if isinstance(v, torch.Tensor) and v.is_floating_point() else v
            for k, v in case.inputs(torch.float32).items()
        }
        leaves = leaves_of(workload.op, inputs)
        outputs = outputs_of(function, inputs)
        upstream = [ramp(o) for o in outputs]
        results.append([*(o.detach() for o in outputs), *torch.autograd.grad(outputs, leaves, upstream)])
    for i, (actual, expected) in enumerate(zip(*results, strict=True)):
        assert_close(f"{workload.op} {workload.label} {name}, array {i}", actual, expected, GATE)


def assert_close_on_average(name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Compare the mean error with the mean size: of arrays in which rounding may turn one choice among many."""
    error, size = (actual - expected).abs().mean().item(), expected.abs().mean().item()
    assert error <= tolerance * size, f"{name}: mean error {error:.3g} at a mean size of {size:.3g}"


def measure(benchmark, workload: Workload, name: str, direction: str, formula) -> None:
    """Time one direction of one implementation with pytest-benchmark and note what was measured."""
    gate(workload, name, formula)
    function = implementation(workload.op, name, formula)
    inputs = Case(workload.label, workload.make).inputs(torch.float32)
    leaves = leaves_of(workload.op, inputs)
    upstream = [torch.randn_like(o) for o in outputs_of(function, inputs)]  # also the first, compiling call

    def backward(outputs):
        return torch.autograd.grad(outputs, leaves, upstream)

    slow = name in ("formula", "reference")
    rounds = min(workload.rounds, 3) if slow else workload.rounds
    if direction == "forward":
        benchmark.pedantic(outputs_of, args=(function, inputs), rounds=rounds, warmup_rounds=1)
    else:
        benchmark.pedantic(
            backward, setup=lambda: ((outputs_of(function, inputs),), {}), rounds=rounds, warmup_rounds=1
        )
    benchmark.extra_info.update(op=workload.op, shape=workload.label, backend=name, direction=direction)
    if direction == "backward":
        benchmark.extra_info["peak_mb"] = peak_memory(workload, name)


def peak_memory(workload: Workload, name: str) -> float:
    """The peak resident memory, in MB above the inputs, of one forward and backward in a fresh process."""
    module = f"bench_{workload.op}"
    command = [sys.executable, str(HERE / "peak.py"), module, workload.label, name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_here(workload: Workload, name: str, formula) -> float:
    """Measure for `peak_memory`, in this process: warm up on the small relative, then one forward and backward.

    A compiled function warms up on the workload itself, since it compiles anew for another shape.
    """
    function = implementation(workload.op, name, formula)
    for make in (workload.make if name == "compiled" else workload.small, workload.make):
        inputs = Case(workload.label, make).inputs(torch.float32)
        leaves = leaves_of(workload.op, inputs)
        with resident() as held:
            outputs = outputs_of(function, inputs)
            torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs])
    return held()


@contextlib.contextmanager
def resident():
    """A function that gives the peak resident memory of the block, in MB above what was there before."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    yield lambda: (_status("VmHWM") - before) * 1024 / 1e6


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    raise RuntimeError(f"no {field} in /proc/self/status")
