"""The emulator itself: each planted fault is caught, and the same kernel without it passes."""

import ctypes
import functools
import os
import subprocess
import sys
from pathlib import Path

import cuda_emulator
import pytest

pytestmark = pytest.mark.skipif(cuda_emulator.reason_against() is not None, reason=str(cuda_emulator.reason_against()))

ORDERS = list(cuda_emulator.ORDERS)
DEPENDS_ON_ORDER = ["missing_barrier", "missing_warp_barrier", "race", "race_of_blocks", "lost_update"]
DEPENDS_ON_ORDER += ["race_in_static_shared_memory"]
REFUSED = {
    "divergent_barrier": "no thread can go on: thread 0 waits at the barrier of faults.cu",
    "unreached_barrier": "thread 48 has ended",
    "unreached_shuffle": "thread 0 waits at the warp collective of faults.cu",
    "shuffle_outside_mask": "a shuffle reads from a lane outside its mask",
    "masks_that_disagree": "lanes of a warp meet with the masks 0000ffff and ffffffff",
    "one_collective_in_two_places": "thread 0 waits at the warp collective of faults.cu",
    "collective_after_lanes_have_ended": "for lane 16, which has ended",
    "overlapping_kernel_that_does_not_wait": "a thread has ended that never waited for the kernel before",
}
NO_BARRIER = "without a barrier between"
WATCHED = {name: NO_BARRIER for name in DEPENDS_ON_ORDER if name != "race_of_blocks"}
WATCHED |= {"lost_update_between_accesses": NO_BARRIER, "shuffle_that_orders_nothing": NO_BARRIER}
WATCHED |= {"misaligned_vector": "an access is not aligned to its type"}
SANITIZED = {
    "write_past_the_end": "heap-buffer-overflow",
    "shared_memory_past_the_end": "use-after-poison",
}


def library(kind="plain") -> Path:
    return cuda_emulator.build([cuda_emulator.HERE / "faults.cu"], kind)


@functools.cache
def loaded(kind="plain"):
    return cuda_emulator.load(library(kind))


def run(name: str, fault: bool, order: str, kind: str = "plain") -> tuple[list[int], str]:
    """What the kernel wrote and the emulator's objection, if any."""
    out, message = (ctypes.c_int * 64)(), ctypes.create_string_buffer(1000)
    with cuda_emulator.order_of_threads(loaded(kind), order, seed=1):
        failed = loaded(kind).run_fault(name.encode(), ctypes.c_bool(fault), out, message)
    assert failed != 2, f"faults.cu has no kernel {name}"
    assert bool(failed) == bool(message.value)
    return list(out), message.value.decode()


@pytest.mark.parametrize("name", DEPENDS_ON_ORDER)
def test_a_race_depends_on_the_order_of_threads(name):
    faulty = [run(name, True, order)[0] for order in ORDERS]
    assert faulty[0] != faulty[1]
    assert faulty[0] != faulty[2]
    right = [run(name, False, order) for order in ORDERS]
    assert right[0] == right[1] == right[2]
    assert right[0][1] == ""


@pytest.mark.parametrize("order", cuda_emulator.INTERLEAVED)
@pytest.mark.parametrize("name", list(WATCHED))
def test_watching_finds_a_fault_in_every_order(name, order):
    assert WATCHED[name] in run(name, True, order, "watched")[1]
    assert run(name, False, order, "watched") == run(name, False, "forwards")


def test_only_interleaving_loses_an_update_between_two_accesses():
    """With nobody to find the race: threads that run one after the other get it right, whatever their order."""
    name, library = "lost_update_between_accesses", loaded("watched")
    library.cuda_emulator_find_races(False)
    try:
        assert [set(run(name, True, order, "watched")[0]) for order in ORDERS] == [{64}] * 3
        assert max(run(name, True, "interleaved", "watched")[0]) < 64
        assert set(run(name, False, "interleaved", "watched")[0]) == {64}
    finally:
        library.cuda_emulator_find_races(True)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", list(REFUSED))
def test_a_broken_collective_is_refused(name, order):
    assert REFUSED[name] in run(name, True, order)[1]
    out, objection = run(name, False, order)
    assert objection == ""
    assert any(out)


def test_the_emulator_works_after_a_refusal():
    run("unreached_barrier", True, "forwards")
    assert run("missing_barrier", False, "forwards") == (list(range(63, -1, -1)), "")


@pytest.mark.parametrize("name", ["unwritten_shared_memory", "unwritten_static_shared_memory"])
def test_unwritten_shared_memory_is_not_a_number(name):
    assert set(run(name, False, "forwards")[0]) == {1}
    out, _ = run(name, True, "forwards")
    assert {int(v) & 0xFFFFFFFF for v in out} == {0xFFFFFFFF}


def test_tensor_cores_cut_off_what_a_sum_does_not_hold():
    """Two additions of three quarters of the last bit: none is left of them, where float32 rounds each up to one."""
    assert set(run("sum_on_tensor_cores", False, "forwards")[0]) == {2}
    assert set(run("sum_on_tensor_cores", True, "forwards")[0]) == {0}


@pytest.mark.parametrize("name", list(SANITIZED))
def test_an_access_out_of_bounds_stops_the_sanitized_emulator(name):
    code = (
        "import ctypes, sys; library, name, fault = ctypes.CDLL(sys.argv[1]), sys.argv[2], sys.argv[3] == 'fault'\n"
        "out, message = (ctypes.c_int * 64)(), ctypes.create_string_buffer(1000)\n"
        "assert library.run_fault(name.encode(), ctypes.c_bool(fault), out, message) == 0"
    )
    command = [sys.executable, "-c", code, str(library("sanitized")), name]
    environment = {**os.environ, **cuda_emulator.sanitizer_environment()}
    right = subprocess.run([*command, "right"], env=environment, capture_output=True, text=True)
    assert right.returncode == 0, right.stderr
    wrong = subprocess.run([*command, "fault"], env=environment, capture_output=True, text=True)
    assert wrong.returncode != 0
    assert SANITIZED[name] in wrong.stderr, wrong.stderr[-2000:]


def test_an_object_is_named_after_all_that_it_is_compiled_from():
    """By the compiler's own list of the files that a source includes."""
    root = cuda_emulator.ROOT
    source = root / "csrc" / "link_heatmap_backward_cuda.cu"
    command = ["g++", *cuda_emulator.flags_of("plain"), "-x", "c++", "-M", str(source)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.replace("\\\n", " ").split()[1:]
    ours = {Path(path).resolve() for path in listed}
    ours = {path for path in ours if path.parent in (root / "csrc", cuda_emulator.HERE)}
    assert len(ours) > 5
    assert ours == cuda_emulator.included(source) | cuda_emulator.included(cuda_emulator.HERE / "cuda_runtime.h")
