"""What every test module shares: backends and devices that can run here, and how the whole suite is spread."""

import os
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from ppl_fast import _backend, _devices, _library

WORKER = "PYTEST_XDIST_WORKER" in os.environ  # one of several, or started by one: they share the cores
# One thread for fixtures of every scope and processes that tests start, too: how many share a product rounds it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Spread the whole suite over the cores where pytest-xdist is there, a file at a time, since what a file builds its
    tests share; single files run in this process, as does all by -n 0. Workers come by here too, and start none."""
    option = config.option
    whole = all(Path(each).is_dir() for each in config.args)
    if whole and not WORKER and getattr(option, "numprocesses", 0) is None and option.dist == "no":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        option.numprocesses, option.dist, option.loadscopereorder = cores, "loadfile", False  # see below


STARTED, MINUTES = time.monotonic(), float(os.environ.get("PPL_FAST_TEST_MINUTES", "inf"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Leave out slow tests that would begin later than PPL_FAST_TEST_MINUTES say, on machines that have a limit."""
    if item.get_closest_marker("slow") and time.monotonic() - STARTED > 60 * MINUTES:
        pytest.skip(f"slow, and PPL_FAST_TEST_MINUTES={MINUTES:g} are over")


def pytest_collection_modifyitems(items):
    """Spread files with slow tests first: one that begins last would keep a single process busy for minutes."""
    if WORKER:
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


def cpu_backends() -> list[str]:
    """The backends of the CPU: the reference, and the C++ kernels once per instruction set."""
    kernels = _library.loaded("_C_cpu")
    return ["reference", *(f"cpp:{isa}" for isa in (kernels.available_isas() if kernels else []))]


@pytest.fixture(params=cpu_backends())
def backend(request) -> str:
    """Each CPU backend in turn, as `op_tester.running` takes it."""
    return request.param


@pytest.fixture
def choosing(monkeypatch):
    """Nothing was chosen or said yet, and no GPU, for it is not there, is asked for a self-test."""
    for cache in ("_selected", "_tested"):
        monkeypatch.setattr(_backend, cache, {})
    monkeypatch.setattr(_backend, "_warned", set())
    monkeypatch.setattr(_devices, "capturing", lambda kind: False)
    monkeypatch.setenv("PPL_FAST_SELF_TEST", "off")


@pytest.fixture
def gpu_answers():
    """After an illegal access a GPU never answers its process again: xdist then puts another worker in its place."""
    yield
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except RuntimeError as error:
        print(f"the GPU no longer answers: {error}", file=sys.stderr, flush=True)
        if WORKER:
            time.sleep(1)  # for the report of the test to be on its way
            os._exit(1)


@pytest.fixture(autouse=True)
def _start():
    """The same random numbers, and one thread: on a busy machine, several that share tiny steps wait for each other."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory):
    """What is kept between runs is kept between tests, those of other processes too, and not longer."""
    os.environ["PPL_FAST_CACHE"] = str(tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of ten small images to train on; tests leave it as it is."""
    from tiny import draw_images

    return draw_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """A config file of the tiny model and three steps."""
    import yaml
    from tiny import MODEL, TRAIN

    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(yaml.safe_dump({"architecture": "extended-ppl", "model": MODEL, "train": TRAIN | {"steps": 3}}))
    return path


@pytest.fixture(scope="session")
def run(images, tmp_path_factory):
    """A finished run of three steps on `images`; tests leave it as it is."""
    from tiny import run_steps

    run_steps(images, out := tmp_path_factory.mktemp("runs") / "run", 3)
    return out


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of clips, as frames and as videos; tests leave it as it is."""
    pytest.importorskip("av", reason="videos need the video extra")
    from video_files import write_clips

    return write_clips(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def published_class(monkeypatch):
    """A class of any name in any module, there only until `monkeypatch` is undone."""

    def make(module, name, base=nn.Module):
        parts = module.split(".")
        for count in range(1, len(parts) + 1):
            if ".".join(parts[:count]) not in sys.modules:
                monkeypatch.setitem(sys.modules, ".".join(parts[:count]), ModuleType(".".join(parts[:count])))
        made = type(name, (base,), {"__module__": module})
        monkeypatch.setattr(sys.modules[module], name, made, raising=False)
        return made

    return make
