"""What gpu_bench.py measures with; under --rehearse the CPU's clock and memory, and stand-ins for the GPU's kernels.

There the Triton kernels run in its interpreter, and those in CUDA C++ in the emulator of tests/, which takes the place
of the backend `cpp`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
REHEARSE = "--rehearse" in sys.argv
if REHEARSE:
    os.environ["TRITON_INTERPRET"] = "1"
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import torch  # noqa: E402
from harness import resident  # noqa: E402

from ppl_fast import _backend, _library  # noqa: E402

DEVICE = "cpu" if REHEARSE else "cuda"
COMPILER = "aot_eager" if REHEARSE else "inductor"  # traces and derives all the same, and writes no code


def stand_in(kind: str = "plain"):
    """Let `cpp` be the emulator's build of this kind from now on, Triton's interpreter fast, and VGG's images small."""
    import cuda_emulator
    import interpreted
    from formula_layers import PublishedVGG

    from ppl_fast.models import perceptual

    interpreted.faster()
    interpreted.use_large_tiles()
    PublishedVGG.side = perceptual.SIZE = 32
    library = cuda_emulator.register(kind)
    by_name, against = _backend._overload, _backend.reason_against

    def overload(op, name):
        return _library.OPERATORS[op].overload(f"_{kind}") if name == "cpp" else by_name(op, name)

    def reason_against(op, name, device):
        return None if name == "cpp" else against(op, name, device)

    reason_against._dynamo_marked_constant = True
    _backend._overload, _backend.reason_against = overload, reason_against
    _backend._selected.clear()
    return library


def eager_time(call) -> float:
    """The median time of a call in microseconds, launches included."""
    if REHEARSE:
        return _once(call)
    from triton.testing import do_bench

    return do_bench(call, warmup=20, rep=60, return_mode="median") * 1e3


def graph_time(call) -> float | None:
    """The median time in microseconds of a call in the replay of a CUDA graph, None if it is not captured."""
    if REHEARSE:
        return _once(call)
    from triton.testing import do_bench_cudagraph

    gc.collect()
    torch.cuda.empty_cache()  # the graph has memory of its own
    try:
        return do_bench_cudagraph(call, rep=30, return_mode="median") * 1e3
    except RuntimeError as error:  # a formula that waits for the GPU, or twice its memory
        torch.cuda.synchronize()
        print(f"not captured: {str(error).splitlines()[0]}")
        return None


def _once(call) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def peak_memory(call) -> float:
    """The most memory, in MB, that the call held above what was allocated before."""
    gc.collect()
    if REHEARSE:
        with resident() as held:
            call()
        return held()
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def launched(call) -> set[str] | None:
    """The kernels of this package that a call launches, as torch's profiler names them; None where it sees none."""
    return set(kernel_times(call, 1)) or None


def kernel_times(call, calls: int = 20) -> dict[str, float]:
    """Microseconds that each kernel of this package takes of a call, the mean over some; empty under --rehearse."""
    if REHEARSE:
        return {}  # a test compares what the emulator launches
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(calls):
            call()
        torch.cuda.synchronize()
    ours = re.compile("|".join({name for op in _library.OPERATORS.values() for name in (op.name, op.home)}))
    found: dict[str, float] = {}
    for event in profile.events():
        if ours.search(event.name) and event.device_type == torch.autograd.DeviceType.CUDA:
            found[event.name] = found.get(event.name, 0.0) + event.self_device_time_total / calls
    return {name: round(time, 2) for name, time in found.items()}


def settle() -> bool:
    """Whether the GPU still answers: after an illegal access it never does again in this process."""
    gc.collect()
    with contextlib.suppress(RuntimeError):
        if not REHEARSE:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        return True
    return False


def copy_bandwidth() -> float:
    """GB/s, read and written, of a large copy: the ceiling of what only moves bytes."""
    source = torch.empty(1 << (10 if REHEARSE else 30), device=DEVICE, dtype=torch.float32)
    target = torch.empty_like(source)
    return round(2 * source.nbytes / eager_time(lambda: target.copy_(source)) / 1e3, 1)
