"""What gpu_bench.py measures of whole models: steps, passes, estimates, and training from files."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from gpu_clock import DEVICE, REHEARSE, eager_time, graph_time, peak_memory  # it says where the tests are

# isort: split
import loading
import torch
import whole_model
from op_tester import assert_close

import ppl_fast
from ppl_fast.data.figures import make_figures
from ppl_fast.options.demo import LEARNING
from ppl_fast.options.demo import MODEL as DEMO
from ppl_fast.training import TrainConfig, train

MODEL = whole_model.ModelWorkload(1, whole_model.SMALL) if REHEARSE else whole_model.PUBLISHED


def measure_model(task, name, precision, compiler) -> dict:
    torch.compiler.reset()  # what was compiled for the models before counts against a limit, past which nothing is
    counters = torch._dynamo.utils.counters
    counters.clear()
    torch._inductor.config.fallback_random = True  # else it drops other blocks than the formula
    subject = whole_model.Subject(name, MODEL, DEVICE, precision, compiler)
    whole_model.gate(subject, task, MODEL, DEVICE)
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    if bool(graphs) != bool(compiler):
        raise AssertionError(f"{graphs} graphs were compiled")
    call = subject.task(task)
    row = {"op": task, "shape": MODEL.label, "backend": name, "precision": precision}
    row |= {"compiled": compiler is not None, "graph_breaks": breaks}
    return row | timed(call, MODEL.batch)


def measure_estimate(batch: int, how: str, iterations: int) -> dict:
    """Keypoints of images that lie on the device, by the model as it is or by `optimize`'s copy, TF32 allowed."""
    subject = whole_model.Subject("cpp", replace(MODEL, batch=batch), DEVICE, "tf32")
    model, images = subject.model.eval(), subject.images
    if how != "plain":
        dtype = torch.bfloat16 if how.endswith("bfloat16") else None
        model, plain = ppl_fast.optimize(model, dtype), model
        subject.precision = "float32"
        with subject.computing():
            expected, actual = (each.estimate(images) for each in (plain, model))
        assert_close(f"estimate, {how}", actual, expected, whole_model.ROUNDED if dtype else whole_model.VALUES)
        subject.precision = "tf32"

    def call():
        with subject.computing():
            return model.estimate(images, iterations=iterations)

    row = {"op": "estimate", "shape": f"B={batch} passes={iterations}", "backend": "cpp"}
    row |= {"precision": "tf32", "how": how}
    return row | timed(call, batch)


def timed(call, images: int) -> dict:
    """Time and memory of a call, and by the faster of calls and replays how many of its images come in a second."""
    row = {"eager_total_us": eager_time(call), "peak_mb": peak_memory(call), "graph_total_us": graph_time(call)}
    fastest = min(filter(None, (row["eager_total_us"], row["graph_total_us"])))
    return row | {"images_per_second": images * 1e6 / fastest}


def measure_loading(kernels: str | None) -> dict:
    """Images a second by as many workers as there are processors, up to 8; trained on in bfloat16, or copied alone."""
    workers = 1 if REHEARSE else min(8, len(os.sched_getaffinity(0)))
    size, step = ppl_fast.PPL.Config(**MODEL.options).image_size, None
    if kernels:
        subject = whole_model.Subject(kernels, MODEL, DEVICE, "bfloat16")

        def step(images):
            subject.images.copy_(images)
            subject.step()

    with tempfile.TemporaryDirectory() as folder:
        loading.draw_photographs(Path(folder), 8 if REHEARSE else 512)
        rate = loading.images_per_second(
            Path(folder), size, MODEL.batch, workers, DEVICE, 0.0 if REHEARSE else 3.0, step
        )
    row = {"op": "training from JPEG files" if kernels else "loading JPEG files", "shape": MODEL.label}
    return row | {"backend": kernels or "loader", "workers": workers, "images_per_second": rate}


def measure_demo(replayed: bool) -> dict:
    """Images a second that the demo's recipe trains on by `train`: with files, masks and log, in TF32.

    That replayed steps are those of an eager run is what tests/test_gpu_models.py compares: in TF32 two eager runs
    differ by more than 2 % after 20 steps.
    """
    steps, every, count = (2, 1, 8) if REHEARSE else (240, 20, 256)
    with tempfile.TemporaryDirectory() as folder, replays() as counted:
        figures, run = Path(folder) / "figures", Path(folder) / "run"
        make_figures(figures, count, size=DEMO["image_size"])
        config = TrainConfig(
            **LEARNING, steps=steps, log_every=every, cuda_graph=replayed and not REHEARSE,
            device=DEVICE, cache="memory", workers=0, tracker="none", picture_every=0,
        )  # fmt: skip
        train(DEMO, config, figures, run, architecture="extended-ppl")
        records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    if not REHEARSE and bool(counted) != replayed:
        raise AssertionError(f"{len(counted)} steps were replayed")
    row = {"op": "demo's training", "shape": f"B={LEARNING['batch_size']} {DEMO['image_size']}x{DEMO['image_size']}"}
    later = [record["images_per_second"] for record in records[len(records) // 2 :]]
    return row | {"backend": "cpp", "replayed": replayed, "images_per_second": median(later)}


@contextmanager
def replays() -> Iterator[list]:
    """The replays of CUDA graphs inside of the block."""
    replay, counted = torch.cuda.CUDAGraph.replay, []
    torch.cuda.CUDAGraph.replay = lambda graph: (counted.append(graph), replay(graph))[1]
    try:
        yield counted
    finally:
        torch.cuda.CUDAGraph.replay = replay
