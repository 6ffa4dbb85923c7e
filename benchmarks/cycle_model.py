"""What the machine code of a CUDA kernel costs at least: instructions by pipe and bytes, as time on several GPUs.

    python benchmarks/cycle_model.py OBJECT ... [--arch 90]

reads the SASS of compiled `csrc/*_cuda.cu` (build/editable/.../*.cu.o, or cubins) by cuobjdump and prints a row for
each named workload whose kernel they hold. Every instruction outside of a loop counts once, one inside as often as the
workload says; what lies behind the last exit (slow paths of divisions, diverged shuffles) is left out, and of branches
both sides count. An access to shared memory takes a wavefront for each 128 bytes that its lanes read. A bound, then, of
what is issued, not a measurement: latency and bank conflicts come on top.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import math
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Warp instructions a multiprocessor takes in a cycle, by compute capability: "Throughput of Native Arithmetic
# Instructions" in the CUDA C++ programming guide, over 32 lanes; products of 16 x 8 x 8 in tf32 by the data sheets'
# dense peak. One access to memory, and one wavefront of shared memory, a cycle.
ISSUE = 4
COMMON = {"alu": 2, "special": 0.5, "memory": 1, "shared": 1}
RATES = {
    80: {"fma": 2, "fp64": 1, "tensor": 0.5} | COMMON,
    89: {"fma": 4, "fp64": 1 / 16, "tensor": 0.125} | COMMON,
    90: {"fma": 4, "fp64": 2, "tensor": 1} | COMMON,
    100: {"fma": 4, "fp64": 2, "tensor": 2} | COMMON,
}
# Compute capability, multiprocessors, GHz (boost), bytes a second: data sheets.
GPUS = {
    "A100": (80, 108, 1.41, 2.0e12),
    "RTX 4090": (89, 128, 2.52, 1.0e12),
    "H100": (90, 132, 1.98, 3.35e12),
    "H200": (90, 132, 1.98, 4.8e12),
    "B200": (100, 148, 1.97, 8.0e12),
}
PIPES = {
    "fma": r"FFMA|FMUL|FADD|IMAD|HFMA2|HMUL2|HADD2",
    "special": r"MUFU|F2I|I2F|F2F|POPC|FLO|S2R",
    "memory": r"LD|ST|SHFL|RED|ATOM",
    "fp64": r"DFMA|DMUL|DADD|DSETP",
    "control": r"BRA|BSSY|BSYNC|EXIT|BAR|WARPSYNC|CALL|RET|NOP|DEPBAR|VOTE|ELECT|U[A-Z]|R2UR|S2UR|CS2R",
    "tensor": r"HMMA",
}  # and the rest is the pipe for integers and comparisons


@dataclass(frozen=True)
class Workload:
    """Launches of one kernel.

    Attributes:
        name: operator, direction and size in words.
        source: the file in csrc, without its ending.
        kernel: a part of its mangled name that no other kernel has.
        warps: of the launch.
        trips: of a warp through the loops, in the order of their first instructions.
        bytes: read and written, each once.
        readers: by the number of a loop, how many lanes read different words of shared memory there; 32 elsewhere.
    """

    name: str
    source: str
    kernel: str
    warps: int
    trips: tuple[float, ...]
    bytes: float
    readers: Mapping[int, int] = field(default_factory=dict)


def workloads() -> list[Workload]:
    """Those of every operator: the `CYCLES` of cycles_<operator>.py beside this file."""
    files = sorted(Path(__file__).parent.glob("cycles_*.py"))
    return [workload for file in files for workload in importlib.import_module(file.stem).CYCLES]


def tool() -> str | None:
    """Cuobjdump, from Triton's package where the toolkit has none."""
    places = [os.environ["PATH"]]
    try:
        import triton

        places.insert(0, str(Path(triton.__file__).parent / "backends" / "nvidia" / "bin"))
    except ImportError:
        pass
    return shutil.which("cuobjdump", path=os.pathsep.join(places))


def instructions(compiled: Path, kernel: str, arch: int) -> list[tuple[int, str]]:
    """(address, text) of a kernel's instructions; `kernel` is part of its mangled name."""
    command = [tool(), "-arch", f"sm_{arch}", "-sass", str(compiled)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{compiled}: {done.stderr.strip()}")
    found = [part for part in done.stdout.split("Function : ")[1:] if kernel in part.split("\n")[0]]
    if len(found) != 1:
        raise LookupError(f"{compiled} holds {len(found)} kernels for sm_{arch} whose name has {kernel}")
    return [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,5})\*/\s+(.*?) ;", found[0])]


def last_exit(code: list[tuple[int, str]]) -> int:
    return max(at for at, text in code if "EXIT" in text)


def loops(code: list[tuple[int, str]]) -> list[tuple[int, int]]:
    """The first and last address of each loop: a branch backwards ends one."""
    found: dict[int, int] = {}
    end = last_exit(code)
    for at, text in code:
        branch = re.match(r"(?:@\S+ )?BRA (?:!?U?P\d, )?0x([0-9a-f]+)", text)
        if branch and int(branch[1], 16) <= at < end:
            first = int(branch[1], 16)
            found[first] = max(at, found.get(first, 0))
    return sorted(found.items())


def pipe_of(text: str) -> str:
    name = re.sub(r"^@\S+ ", "", text)
    return next((pipe for pipe, pattern in PIPES.items() if re.match(pattern, name)), "alu")


def times(code: list[tuple[int, str]], trips: tuple[float, ...]) -> list[tuple[str, float, list[int]]]:
    """Each instruction up to the last exit, how often a warp issues it, and the loops that it lies in."""
    ranges = loops(code)
    if len(ranges) != len(trips):
        places = ", ".join(f"{first:#x} to {last:#x}" for first, last in ranges)
        raise ValueError(f"the workload names {len(trips)} loops, the kernel has {len(ranges)}: {places or 'none'}")
    end, found = last_exit(code), []
    for at, text in code:
        inside = [number for number, (first, last) in enumerate(ranges) if first <= at <= last]
        if at <= end:
            found.append((text, math.prod(trips[number] for number in inside), inside))
    return found


def counts(code: list[tuple[int, str]], trips: tuple[float, ...]) -> Counter:
    """What a warp issues, by pipe."""
    total: Counter = Counter()
    for text, often, _ in times(code, trips):
        total[pipe_of(text)] += often
    return total


def wavefronts(code: list[tuple[int, str]], workload: Workload) -> float:
    """Wavefronts of shared memory that a warp takes: 128 bytes each, of as many lanes as read different words."""
    total = 0.0
    for text, often, inside in times(code, workload.trips):
        access = re.match(r"(?:@\S+ )?(?:LDS|STS|ATOMS|LDSM)\b(?:\.[A-Z]\w*)*(?:\.(64|128))?", text)
        if access:
            lanes = workload.readers.get(inside[-1], 32) if inside else 32
            total += often * max(1, lanes * int(access[1] or 32) / 8 / 128)
    return total


def bound(workload: Workload, code: list[tuple[int, str]], gpu: str) -> dict[str, float]:
    """Microseconds by pipe, for all that is issued, and for the bytes; the largest is the bound."""
    arch, multiprocessors, clock, bandwidth = GPUS[gpu]
    issued = counts(code, workload.trips)
    cycles = {pipe: issued[pipe] / rate for pipe, rate in RATES[arch].items()} | {"issue": sum(issued.values()) / ISSUE}
    cycles["shared"] = wavefronts(code, workload) / RATES[arch]["shared"]
    scale = workload.warps / multiprocessors / clock / 1e3
    return {pipe: value * scale for pipe, value in cycles.items()} | {"bytes": workload.bytes / bandwidth * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("objects", nargs="+", metavar="OBJECT", type=Path, help="a compiled csrc/*_cuda.cu")
    parser.add_argument("--arch", type=int, default=90, choices=sorted(RATES), help="whose code is read")
    arguments = parser.parse_args()
    if tool() is None:
        parser.error("there is no cuobjdump on the PATH; Triton's package has one")
    for workload, compiled in itertools.product(workloads(), arguments.objects):
        with contextlib.suppress(LookupError):
            code = instructions(compiled, workload.kernel, arguments.arch)
            print(report(workload, code, arguments.arch))


def report(workload: Workload, code: list[tuple[int, str]], arch: int) -> str:
    """What a workload's kernel costs, and its bounds on the GPUs of an architecture; or that its loops are others."""
    try:
        issued = counts(code, workload.trips)
    except ValueError as error:  # another compiler may unroll otherwise
        return f"{workload.name}: {error}"
    pipes = ", ".join(f"{pipe} {number:.0f}" for pipe, number in issued.items())
    shared = f"{wavefronts(code, workload):.0f} wavefronts of shared memory"
    lines = [f"{workload.name}: {sum(issued.values()):.0f} instructions and {shared} a warp ({pipes})"]
    for gpu in (name for name, (of, *_) in GPUS.items() if of == arch):
        cost = bound(workload, code, gpu)
        row = ", ".join(f"{pipe} {value:.2f}" for pipe, value in cost.items() if value)
        lines.append(f"  {gpu}: {max(cost.values()):.2f} us at least ({row})")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
