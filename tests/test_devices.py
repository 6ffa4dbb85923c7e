"""Devices by name, through torch.accelerator; what a command does with one that is not here."""

import os

import pytest
import torch
from tiny import fails, run_steps

import ppl_fast
from ppl_fast import _backend, _devices
from ppl_fast.data import training_loader
from ppl_fast.training import TrainConfig
from ppl_fast.training.setup import DEVICE_VARIABLE, LAUNCHER, new_accelerator


@pytest.fixture
def accelerators(monkeypatch):
    """Let torch find so many accelerators of a kind."""

    def pretend(kind: str, count: int):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device(kind))
        monkeypatch.setattr(torch.accelerator, "device_count", lambda: count)

    return pretend


def test_auto_is_the_cpu_where_there_is_nothing_else(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert _devices.pick() == torch.device("cpu")
    assert _devices.available() == [torch.device("cpu")]


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_auto_is_the_accelerator_there_is(kind, accelerators):
    accelerators(kind, 2)
    assert _devices.pick() == torch.device(kind)
    assert _devices.pick(f"{kind}:1") == torch.device(kind, 1)
    assert _devices.pick("cpu") == torch.device("cpu")
    assert _devices.loads_from_pinned_memory() == (kind != "mps")
    with pytest.raises(ValueError, match=f"device {kind}:2 is not here; torch finds cpu, {kind}:0, {kind}:1"):
        _devices.pick(f"{kind}:2")


def test_no_name_of_a_device():
    message = "device must be auto, cpu or a device of torch such as cuda:1, mps or xpu, got 'gpu'"
    with pytest.raises(ValueError, match=message):
        _devices.pick("gpu")


def test_where_there_are_no_kernels_the_reference_serves_and_says_so(choosing):
    """As on a GPU of Apple's or Intel's: no operator has kernels there."""
    with pytest.warns(RuntimeWarning, match="no compiled kernels on 'meta', so the slow PyTorch reference is used"):
        out = ppl_fast.link_heatmap(torch.rand(2, 3, 2, device="meta"), torch.rand(3, device="meta"), 8, 0.1)
    assert out.shape == (2, 1, 8, 8)
    for backend in ("cpp", "triton"):
        assert "for the device type 'mps'" in _backend.reason_against("link_heatmap", backend, "mps:0")


def test_training_names_the_device_that_is_not_here(images, tmp_path):
    with pytest.raises(ValueError, match="TrainConfig: device xpu is not here; torch finds cpu"):
        run_steps(images, tmp_path / "run", 1, device="xpu")
    assert not (tmp_path / "run").exists()


def test_training_takes_the_device_that_is_named(monkeypatch, accelerators):
    accelerators("cuda", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert new_accelerator(TrainConfig(device="cuda:1")).device == torch.device("cuda:1")
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device must name a kind, as cuda, for 2 processes, which each take one"):
        new_accelerator(TrainConfig(device="cuda:1"))


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "1"}, {"WORLD_SIZE": "1", "LOCAL_RANK": "0"}, {"WORLD_SIZE": ""}])
def test_one_process_needs_no_launcher(monkeypatch, variables):
    """Clusters and notebooks set some of its variables."""
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    accelerator = new_accelerator(TrainConfig(device="cpu"))
    assert accelerator.num_processes == 1 and accelerator.is_main_process
    assert {name: os.environ[name] for name in LAUNCHER if name in os.environ} == variables


@pytest.mark.parametrize(
    ("size", "sentence"), [("2", "WORLD_SIZE is 2, but RANK is not set; start several"), ("two", "got 'two'")]
)
def test_a_launcher_that_says_half(monkeypatch, size, sentence):
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match=sentence):
        new_accelerator(TrainConfig(device="cpu"))


def test_commands_name_the_device_that_is_not_here(capsys, images, tmp_path):
    run = tmp_path / "run"
    run_steps(images, run, 1)
    sentence = fails(capsys, "estimate", run, images, "--out", tmp_path / "poses.csv", "--device", "cuda:7")
    assert sentence.startswith("device cuda:7 is not here; torch finds cpu")


def test_no_more_loading_processes_than_cores(images, tmp_path, monkeypatch):
    """A scheduler that gives one core of many gets one process, and no warning of torch's; kept images need none."""
    asked = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    monkeypatch.setattr(
        "ppl_fast.training.trainer.training_loader",
        lambda data, size, seed, step, workers, *rest, **options: (
            asked.append(workers) or training_loader(data, size, seed, step, 0, *rest, **options)
        ),
    )
    for cache in ("no", "auto"):
        run_steps(images, tmp_path / cache, 1, workers=2, cache=cache)
    assert asked == [1, 0]
