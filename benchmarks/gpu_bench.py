"""Measure the operators and a training step on a GPU: `python benchmarks/gpu_bench.py [--rehearse] [--out FILE]`.

Every implementation is checked against the float64 reference on a smaller relative of the workload before it is timed.
Times are medians in microseconds: `eager` with events around each call and the L2 cache emptied before it, `graph` as
replays of a CUDA graph that holds many calls (inputs then lie in the L2 cache). `total` is forward and backward.
--rehearse runs everything on the CPU with the small shapes under Triton's interpreter, and times nothing.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
REHEARSE = "--rehearse" in sys.argv
if REHEARSE:
    os.environ["TRITON_INTERPRET"] = "1"
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import torch  # noqa: E402
from cases import Case  # noqa: E402
from harness import GATE, implementation, leaves_of, outputs_of, suites  # noqa: E402
from op_tester import assert_close  # noqa: E402

import ppl_fast  # noqa: E402
from ppl_fast import _backend, _library  # noqa: E402
from ppl_fast._library import OPERATORS  # noqa: E402

if REHEARSE:
    import interpreted

    interpreted.faster()
    interpreted.use_large_tiles()

DEVICE = "cpu" if REHEARSE else "cuda"
KERNELS = ("triton", "cpp")
WORKLOADS = [w for suite in suites().values() for w in suite.WORKLOADS if w.gpu != "none"]


@functools.cache
def compiled(op: str):
    return torch.compile(suites()[op].FORMULA, dynamic=False)  # anew for each shape: the fastest that it can be


def prepare(workload, name, make, dtype=torch.float32, device=DEVICE):
    """Two functions that run one implementation on one input: forward, and forward and backward."""
    op = workload.op
    function = compiled(op) if name == "compiled" else implementation(op, name, suites()[op].FORMULA)
    inputs = Case(workload.label, make).inputs(dtype, device)
    leaves = leaves_of(op, inputs)
    upstream = [torch.linspace(-1, 1, o.numel()).reshape(o.shape).to(o) for o in outputs_of(function, inputs)]

    def total():
        outputs = outputs_of(function, inputs)
        return [*outputs, *torch.autograd.grad(outputs, leaves, upstream)]

    def forward():
        with torch.no_grad():
            return outputs_of(function, inputs)

    return forward, total


def gate(workload, name) -> None:
    """Raise unless the implementation agrees with the float64 reference, values and gradients."""
    make = workload.tiny if REHEARSE else workload.small
    _, total = prepare(workload, name, make)
    rounded = Case(workload.label, make).inputs(torch.float32, "cpu")
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in rounded.items()}
    _, reference = prepare(replace(workload, label="exact"), "reference", lambda _: exact, torch.float64, "cpu")
    for i, (actual, expected) in enumerate(zip(total(), reference(), strict=True)):
        assert_close(f"{workload.op} {workload.label} {name}, array {i}", actual.detach(), expected.detach(), GATE)


def eager_time(call) -> float:
    """The median time in microseconds, launches included."""
    if REHEARSE:
        call()
        return 0.0
    from triton.testing import do_bench

    return do_bench(call, warmup=20, rep=60, return_mode="median") * 1e3


def graph_time(call) -> float | None:
    """The median time in microseconds of a call in the replay of a CUDA graph, None if it is not captured."""
    if REHEARSE:
        return 0.0
    from triton.testing import do_bench_cudagraph

    try:
        return do_bench_cudagraph(call, rep=30, return_mode="median") * 1e3
    except RuntimeError as error:  # a formula that waits for the GPU
        torch.cuda.synchronize()
        print(f"not captured: {str(error).splitlines()[0]}")
        return None


def peak_memory(call) -> float:
    """The most GPU memory, in MB, that the call held above what was allocated before."""
    if REHEARSE:
        return 0.0
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def measure(workload, name) -> dict:
    gate(workload, name)
    forward, total = prepare(workload, name, workload.tiny if REHEARSE else workload.make)
    row = {"op": workload.op, "shape": workload.label, "backend": name}
    row |= {"eager_forward_us": eager_time(forward), "eager_total_us": eager_time(total)}
    row["peak_mb"] = peak_memory(total)
    row |= {"graph_forward_us": graph_time(forward), "graph_total_us": graph_time(total)}
    return row


def available(name: str) -> str | None:
    """Why an implementation cannot be measured here, or None."""
    if name in KERNELS:
        return next(filter(None, (_backend.reason_against(op, name, DEVICE) for op in OPERATORS)), None)
    return None


def training_step(name: str) -> dict:
    """Time a step of the published model (mean squared error in place of the perceptual loss), B = 64, Adam."""
    batch, size = (2, 32) if REHEARSE else (64, 128)
    options = {"num_keypoints": 5, "width": 0.25} if REHEARSE else {"num_keypoints": 16}
    with ppl_fast.use_backend(name):
        torch.manual_seed(0)
        model = ppl_fast.PPL(image_size=size, reconstruction_loss="mse", **options).to(DEVICE)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        images = torch.rand(batch, 3, size, size, device=DEVICE) * 2 - 1

        def step():
            optimizer.zero_grad()
            model(images).loss.backward()
            optimizer.step()

        row = {"op": "training step", "shape": f"B={batch} N={options['num_keypoints']} {size}x{size}", "backend": name}
        return row | {"eager_total_us": eager_time(step), "peak_mb": peak_memory(step)}


def machine() -> dict:
    import triton

    found = {"torch": torch.__version__, "triton": triton.__version__, "ppl_fast": ppl_fast.__version__}
    if kernels := _library.loaded("_C_cuda"):
        found["_C_cuda"] = kernels.build_info()
    if REHEARSE:
        return {"rehearsal": True, **found}
    properties = torch.cuda.get_device_properties(0)
    driver = os.popen("nvidia-smi --query-gpu=driver_version --format=csv,noheader").read().strip()
    found |= {"gpu": properties.name, "capability": f"{properties.major}.{properties.minor}"}
    found |= {"multiprocessors": properties.multi_processor_count, "driver": driver}
    return found | {"cuda": torch.version.cuda, "copy_bandwidth_gb_s": copy_bandwidth()}


def copy_bandwidth() -> float:
    """GB/s, read and written, of a large copy: the ceiling of what only moves bytes."""
    source = torch.empty(1 << 30, device=DEVICE, dtype=torch.float32)
    target = torch.empty_like(source)
    return round(2 * source.nbytes / eager_time(lambda: target.copy_(source)) / 1e3, 1)


def jobs():
    for workload in WORKLOADS:
        for name in workload.implementations("gpu"):
            yield name, f"{workload.op} {workload.label} {name}", lambda w=workload, n=name: measure(w, n)
    for name in ("reference", *KERNELS):
        yield name, f"training step {name}", lambda n=name: training_step(n)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, small shapes, no figures worth keeping")
    parser.add_argument("--out", type=Path, default=HERE.parent / "build" / "gpu" / "gpu.json")
    parser.add_argument("--seconds", type=float, default=1e9, help="start no further measurement after this time")
    arguments = parser.parse_args()
    result, failed, start = {"machine": machine(), "rows": [], "left_out": {}}, False, time.monotonic()
    print(json.dumps(result["machine"]))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name, label, job in jobs():
        reason = available(name) or ("out of time" if time.monotonic() - start > arguments.seconds else None)
        if reason is None:
            try:
                row = {k: round(v, 3) if isinstance(v, float) else v for k, v in job().items()}
                result["rows"].append(row)
                print(json.dumps(row), flush=True)
            except Exception as error:  # the other figures are still worth having
                traceback.print_exc()
                reason, failed = f"failed: {type(error).__name__}: {str(error).splitlines()[0]}", True
        if reason is not None:
            result["left_out"][label] = reason
            print(f"{label}: {reason}", flush=True)
        partial = arguments.out.with_suffix(".partial")  # after each row: a run that is cut short keeps what it has
        partial.write_text(json.dumps(result, indent=1) + "\n")
        partial.replace(arguments.out)
    print(f"written to {arguments.out}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
