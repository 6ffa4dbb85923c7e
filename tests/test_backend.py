"""Backends that cannot lie: `use_backend`, operators without a kernel, self-tests on GPUs, and what is said of each."""

import json
import re
import threading
from pathlib import Path

import pytest
import torch

import ppl_fast
from ppl_fast import _backend, _devices, _library, _selftest
from ppl_fast._library import OPERATORS

OP = "link_heatmap"
KEYPOINTS, WEIGHTS = torch.rand(1, 3, 2), torch.rand(3)
CPU = torch.device("cpu")


def suffix_in_force() -> str:
    """Which sibling `auto` takes."""
    return _backend.select(OP, "auto", CPU).name().removeprefix(f"ppl_fast::{OP}")


def draw():
    return ppl_fast.link_heatmap(KEYPOINTS, WEIGHTS, 8, 0.1)


def test_use_backend_nests_and_ends():
    assert suffix_in_force() == ""
    with ppl_fast.use_backend("reference"):
        assert suffix_in_force() == "_reference"
        with ppl_fast.use_backend("cpp"):
            assert suffix_in_force() == ""
        with ppl_fast.use_backend("auto"):
            assert suffix_in_force() == ""
        with pytest.raises(KeyError), ppl_fast.use_backend("cpp"):
            raise KeyError
        assert suffix_in_force() == "_reference"
    assert suffix_in_force() == ""


def test_a_backend_named_in_a_call_wins():
    with ppl_fast.use_backend("reference"):
        assert _backend.select(OP, "cpp", CPU) is OPERATORS[OP].overload()


def test_an_unknown_name():
    message = "use_backend: backend must be one of auto, cpp, triton, reference, got 'cuda'"
    with pytest.raises(ValueError, match=message), ppl_fast.use_backend("cuda"):
        pass


def test_a_backend_that_cannot_run_raises(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with ppl_fast.use_backend("triton"), pytest.raises(RuntimeError, match="backend 'triton' cannot run on 'cpu'"):
        draw()


def test_threads_do_not_see_each_others():
    seen = {}
    with ppl_fast.use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.update(other=suffix_in_force()))
        thread.start()
        thread.join()
        seen["own"] = suffix_in_force()
    assert seen == {"other": "", "own": "_reference"}


def test_it_reaches_models(monkeypatch):
    called = []
    select = _backend.select
    monkeypatch.setattr(_backend, "select", lambda *a: called.append(select(*a)) or called[-1])
    model = ppl_fast.PPL(num_keypoints=4, image_size=32, width=0.1, reconstruction_loss="mse")
    with ppl_fast.use_backend("reference"):
        model(torch.rand(2, 3, 32, 32)).loss.backward()
    assert len(called) >= 3 and all(op.name().endswith("_reference") for op in called)


def test_a_compiled_function_sees_a_change():
    graphs = []

    def note(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes if f"ppl_fast.{OP}" in str(node.target)])
        return graph

    compiled = torch.compile(draw, backend=note, fullgraph=True)
    compiled()
    with ppl_fast.use_backend("reference"):
        compiled()
        thread = threading.Thread(target=compiled)  # as outside
        thread.start()
        thread.join()
    compiled()
    assert graphs == [[f"ppl_fast.{OP}.default"], [f"ppl_fast.{OP}_reference.default"]]


@pytest.fixture
def without_kernels(monkeypatch, choosing):
    """Take the C++ kernels of some torch ops away."""

    def take(*names):
        has = _library.has_kernel
        monkeypatch.setattr(_library, "has_kernel", lambda op, key: op not in names and has(op, key))

    return take


@pytest.mark.parametrize("missing", [OP, f"{OP}_backward"])
def test_an_operator_without_a_kernel_says_so_and_auto_goes_on(missing, without_kernels):
    without_kernels(missing)
    with pytest.raises(
        RuntimeError, match=f"{OP}: backend 'cpp' cannot run on 'cpu': ppl_fast._C_cpu has no kernel of"
    ):
        _backend.select(OP, "cpp", CPU)
    with pytest.warns(RuntimeWarning, match="no compiled kernels on 'cpu', so the slow PyTorch reference is used"):
        assert suffix_in_force() == "_reference"
    other = next(op for op in OPERATORS if op != OP)
    assert _backend.select(other, "auto", CPU) is OPERATORS[other].overload()


def test_a_triton_file_without_the_operator(monkeypatch, choosing):
    from ppl_fast import kernels

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(kernels, "implementation", lambda op: None)
    assert _backend.reason_against(OP, "triton", "cpu") == f"ppl_fast.kernels has no kernel of {OP}"


def test_it_is_said_once_a_device(monkeypatch, without_kernels):
    without_kernels(*(name for op in OPERATORS.values() for name in op.ops))
    with pytest.warns(RuntimeWarning, match="on 'cpu'") as said:
        for op in OPERATORS:
            _backend.select(op, "auto", CPU)
    assert len(said) == 1
    with pytest.warns(RuntimeWarning, match="on 'meta'"):
        _backend.select(OP, "auto", torch.device("meta"))


def test_the_warning_names_the_dtype_where_it_is_the_reason(monkeypatch, choosing):
    """On a GPU with Triton's kernels alone."""
    monkeypatch.setattr(_backend, "reason_against", lambda op, backend, device: None if backend == "triton" else "no")
    with pytest.warns(RuntimeWarning, match=r"no compiled kernels for float64 \(Triton's take float16, bfloat16 and"):
        chosen = _backend.select(OP, "auto", torch.device("cuda:0"), torch.float64)
    assert chosen is OPERATORS[OP].overload("_reference")


def test_a_missing_library_names_the_installation(monkeypatch, choosing):
    monkeypatch.setitem(_library._failures, "_C_cpu", "ppl_fast._C_cpu is not part of this installation")
    monkeypatch.delitem(_library._loaded, "_C_cpu", raising=False)
    with pytest.raises(RuntimeError) as caught:
        _backend.select(OP, "cpp", CPU)
    command = f"pip install --no-build-isolation --no-deps --force-reinstall {_backend._source()}"
    assert f"; to build it, with a C++ compiler at hand: {command}; " in str(caught.value)


# On a GPU, kernels that no result file covers are put to a test before `auto` takes them.


@pytest.fixture
def gpu(monkeypatch, choosing):
    """A GPU that has all backends, whose self-tests run on the CPU and are counted."""
    tests = []

    def largest_error(op, backend, device):
        tests.append((op, backend, device))
        return error(op, backend)

    error = lambda op, backend: 1e-7  # noqa: E731

    def let(function):
        nonlocal error
        error = function

    monkeypatch.delenv("PPL_FAST_SELF_TEST")
    monkeypatch.setattr(_selftest, "largest_error", largest_error)
    monkeypatch.setattr(_backend, "PROVEN", frozenset())
    monkeypatch.setattr(_backend, "reason_against", lambda op, backend, device: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    tests_and_error = tests, let
    return tests_and_error


def chosen(op=OP, device="cuda:0") -> str:
    return _backend.select(op, "auto", torch.device(device)).name().removeprefix(f"ppl_fast::{op}")


def test_the_self_test_runs_once_an_operator_and_device(gpu):
    tests, _ = gpu
    assert [chosen() for _ in range(3)] == [""] * 3 and tests == [(OP, "cpp", "cuda:0")]
    chosen(device="cuda:1")
    assert tests[1:] == [(OP, "cpp", "cuda:1")]


def test_a_kernel_that_fails_is_left_out_with_its_reason(gpu):
    tests, let = gpu
    let(lambda op, backend: 0.01 if backend == "cpp" else 1e-7)
    assert chosen() == "_triton"
    assert _backend.failed_test(OP, "cpp", "cuda:0") == "its self-test on cuda:0 found a relative error of 1.0e-02"
    assert _backend.select(OP, "cpp", torch.device("cuda:0")) is OPERATORS[OP].overload()  # asked for by name


def test_a_kernel_that_crashes_or_gives_nan_is_left_out(gpu):
    def error(op, backend):
        if backend == "cpp":
            raise RuntimeError("an illegal instruction was encountered\nmore")
        return float("nan")

    gpu[1](error)
    with pytest.warns(RuntimeWarning, match="reference is used"):
        assert chosen() == "_reference"
    expected = "its self-test on cuda:0 ended in RuntimeError: an illegal instruction was encountered"
    assert _backend.failed_test(OP, "cpp", "cuda:0") == expected


def test_no_self_test_is_run_for_what_is_proven_or_switched_off_or_captured(gpu, monkeypatch):
    tests, _ = gpu
    monkeypatch.setattr(_devices, "capturing", lambda kind: True)
    assert chosen() == "" and not tests
    monkeypatch.setattr(_devices, "capturing", lambda kind: False)
    assert chosen() == "" and len(tests) == 1  # taken on trust in the capture alone
    monkeypatch.setattr(_backend, "_selected", {})
    monkeypatch.setattr(_backend, "_tested", {})
    monkeypatch.setattr(_backend, "PROVEN", frozenset({("cpp", "9.0")}))
    assert chosen() == "" and len(tests) == 1
    monkeypatch.setattr(_backend, "PROVEN", frozenset())
    monkeypatch.setattr(_backend, "_selected", {})
    monkeypatch.setenv("PPL_FAST_SELF_TEST", "off")
    assert chosen() == "" and len(tests) == 1


def test_what_counts_as_proven_is_what_result_files_cover():
    """All of the tests on the GPU and both checkers passed, and no measured workload of its kernels failed its gate.

    Triton's kernels never do: they are compiled where they run, by the Triton that is there.
    """
    covered = set()
    for path in (Path(__file__).parents[1] / "benchmarks" / "results").glob("gpu*.json"):
        result = json.loads(path.read_text())
        capability, found = result["machine"]["capability"], result["checks"]
        passed = re.match(r"\d+ passed", found["tests"]) and "failed" not in found["tests"]
        clean = "0 errors" in found["memcheck"] and "0 hazards" in found["racecheck"]
        measured = any(row["backend"] == "cpp" and row["op"] in OPERATORS for row in result["rows"])
        left_out = [job for job in result["left_out"] if job.endswith(" cpp")]
        if passed and clean and measured and not left_out:
            covered.add(("cpp", capability))
    assert covered == _backend.PROVEN


@pytest.mark.parametrize("op", OPERATORS)
def test_the_self_test_ignores_the_modes_of_its_caller(op):
    from torch._subclasses.fake_tensor import FakeTensorMode

    for mode in (torch.inference_mode(), torch.no_grad(), FakeTensorMode(), torch.device("meta")):
        with mode:
            assert _selftest.largest_error(op, "cpp", "cpu") <= _selftest.TOLERANCE
