"""The CUDA kernels compiled by nvcc for real GPUs: no spills, no local memory, the instructions that were meant."""

import functools
import hashlib
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda_emulator
import pytest

NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")
ARCHITECTURES = ("80", "90")
OBJECTS = cuda_emulator.ROOT / "build" / "nvcc"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NVCC is None, reason="there is no nvcc here: put it on the PATH or name it by CUDACXX"),
]


@functools.cache
def compiled() -> dict[Path, str]:
    """Return what ptxas says of each source's object; both are kept under build/ by the hash of what went in."""
    flags = ["-std=c++17", "-O3", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000", "-Xptxas", "-v"]
    flags += ["-isystem", str(cuda_emulator.TORCH / "include"), "-c"]
    flags += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    csrc = cuda_emulator.ROOT / "csrc"
    version = subprocess.run([NVCC, "--version"], capture_output=True, text=True, check=True).stdout
    headers = "".join(h.read_text() for h in sorted([*csrc.glob("*.h"), *csrc.glob("*.cuh")]))
    OBJECTS.mkdir(parents=True, exist_ok=True)

    def compile_one(source: Path) -> tuple[Path, str]:
        key = hashlib.sha256("".join([version, *flags, headers, source.read_text()]).encode()).hexdigest()[:16]
        target = OBJECTS / f"{source.stem}-{key}.o"
        log = target.with_suffix(".log")
        if not log.exists():
            done = subprocess.run([NVCC, *flags, str(source), "-o", str(target)], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[:4000]
            log.write_text(done.stderr)
        return target, log.read_text()

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        return dict(pool.map(compile_one, sorted(csrc.glob("*_cuda.cu"))))


def kernels() -> list[dict]:
    """Return one row per kernel, storage type and architecture."""
    rows = []
    for log in compiled().values():
        for entry in log.split("Compiling entry function ")[1:]:
            name, arch = re.match(r"'(\S+)' for 'sm_(\d+)'", entry).groups()
            numbers = {
                key: sum(int(n) for n in re.findall(pattern, entry))
                for key, pattern in {
                    "registers": r"Used (\d+) registers",
                    "stack": r"(\d+) bytes stack frame",
                    "spills": r"(\d+) bytes spill",
                    "static shared": r"(\d+) bytes smem",
                    "local": r"(\d+) bytes lmem",
                }.items()
            }
            rows.append({"kernel": name, "arch": arch, **numbers})
    names = subprocess.run(
        ["c++filt", "-p"], input="\n".join(r["kernel"] for r in rows), capture_output=True, text=True
    )
    for row, name in zip(rows, names.stdout.splitlines(), strict=True):
        row["kernel"] = re.sub(r"ppl_fast::|\(anonymous namespace\)::|_GLOBAL__N\w*::|c10::", "", name)
    return rows


def test_no_kernel_spills_or_uses_local_memory(capsys):
    rows = kernels()
    with capsys.disabled():
        print(f"\n{'kernel':72} {'sm':>3} {'registers':>9} {'stack':>5} {'spills':>6}")
        for row in rows:
            print(f"{row['kernel']:72} {row['arch']:>3} {row['registers']:9} {row['stack']:5} {row['spills']:6}")
    assert len({row["kernel"] for row in rows}) >= 30
    assert {row["arch"] for row in rows} == set(ARCHITECTURES)
    bad = [row for row in rows if row["stack"] or row["spills"] or row["local"]]
    assert not bad, bad


def test_registers_leave_the_occupancy_that_the_kernels_count_on():
    """Four blocks of 256 threads of link_heatmap's forward, eight of 128 of its backward's first kernel."""
    registers = {(row["kernel"], row["arch"]): row["registers"] for row in kernels()}
    for arch in ARCHITECTURES:
        assert registers["link_heatmap_fwd_kernel<float>", arch] <= 64
        assert registers["link_heatmap_bwd_sums_kernel<float>", arch] <= 64
        assert registers["memory_attention_fwd_kernel<float, PairShape<float, 1, 4> >", arch] <= 128


def sass(source: str, kernel: str, arch: str) -> list[str]:
    """Return the instructions of one kernel, by cuobjdump (from Triton's package where the toolkit has none)."""
    tools = []
    try:
        import triton

        tools.append(Path(triton.__file__).parent / "backends" / "nvidia" / "bin")
    except ImportError:
        pass
    tool = shutil.which("cuobjdump", path=os.pathsep.join([*map(str, tools), os.environ["PATH"]]))
    if tool is None:
        pytest.skip("there is no cuobjdump here; Triton's package has one")
    objects = [o for o in compiled() if o.name.startswith(f"{source}-")]
    done = subprocess.run([tool, "-arch", f"sm_{arch}", "-sass", str(objects[0])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [part for part in done.stdout.split("Function : ")[1:] if kernel in part.split("\n")[0]]
    assert len(found) == 1
    return re.findall(r"/\*[0-9a-f]{4,5}\*/\s+(.*?) ;", found[0])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_one_power_of_two_a_pixel(arch):
    """link_heatmap's forward: an exponential for each of a thread's four pixels, and none in the loop over links, which
    clamps with a modifier of the multiply-add."""
    instructions = sass("link_heatmap_cuda", "link_heatmap_fwd_kernelIf", arch)
    assert sum("MUFU.EX2" in i for i in instructions) == 4
    loop = inner_loop(instructions)
    assert sum("FFMA.SAT" in i for i in loop) == 4
    assert sum("FFMA" in i for i in loop) == 4 * 5  # t, r (two), and the value (two)
    assert len(loop) <= 4 * 14  # what comes before the loop included


def inner_loop(instructions: list[str]) -> list[str]:
    """Return the straight piece of code that holds four FFMA.SAT: the walk over the links of 4 pixels."""
    branches = [i for i, text in enumerate(instructions) if re.search(r"\bBRA\b|BSYNC|BSSY|EXIT|RET", text)]
    pieces = [instructions[a + 1 : b + 1] for a, b in zip([-1, *branches], branches, strict=False)]
    (loop,) = [p for p in pieces if sum("FFMA.SAT" in i for i in p) == 4]
    return loop
