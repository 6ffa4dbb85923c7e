"""_C_cuda as setup.py builds it, with nvcc for real GPUs: no spills, no local memory, the instructions that were meant,
and a library that loads and registers. There need be no GPU."""

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cuda_emulator
import pytest
import torch
from filelock import FileLock

NVCC = os.environ.get("CUDACXX") or shutil.which("nvcc")
ARCHITECTURES = ("80", "90")
NO_SPILLS = ("86", "89", "100", "120")  # compiled besides, to see that registers suffice
ROOT = cuda_emulator.ROOT
BUILDS = ROOT / "build" / "nvcc"
SHARED = {"80": 164 * 1024, "90": 228 * 1024}  # bytes of a multiprocessor


def reason_against() -> str | None:
    if NVCC is None:
        return "there is no nvcc here: put it on the PATH or name it by CUDACXX"
    beside = Path(sys.executable).parent
    missing = [t for t in ("cmake", "ninja") if not shutil.which(t, path=f"{beside}{os.pathsep}{os.environ['PATH']}")]
    return f"there is no {' and no '.join(missing)} here to build with" if missing else None


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(reason_against() is not None, reason=str(reason_against())),
]


@functools.cache
def build() -> Path:
    """Build the package and return the folder: `lib` is what a wheel holds, `temp` has the objects, `log` is what
    ptxas said. What was compiled is kept under build/ by the hash of what went in."""
    version = subprocess.run([NVCC, "--version"], capture_output=True, text=True, check=True).stdout
    sources = [ROOT / "setup.py", ROOT / "CMakeLists.txt", *(ROOT / "cmake").iterdir(), *(ROOT / "csrc").iterdir()]
    key = hashlib.sha256("".join([version, *(s.read_text() for s in sorted(sources))]).encode()).hexdigest()[:16]
    folder = BUILDS / key
    ROOT.joinpath("build").mkdir(exist_ok=True)
    with FileLock(BUILDS.with_suffix(".lock")):  # of several processes one builds, and the others wait for it
        if not (folder / "log").exists():
            shutil.rmtree(BUILDS, ignore_errors=True)
            _compile(folder)
        command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", folder / "lib"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


def _compile(folder: Path) -> None:
    command = [sys.executable, "setup.py", "build", "--build-base", folder / "temp", "--build-lib", folder / "lib"]
    wanted = {"PPL_FAST_CUDA": "on", "TORCH_CUDA_ARCH_LIST": ";".join(f"{a[:-1]}.{a[-1]}" for a in ARCHITECTURES)}
    wanted |= {"PPL_FAST_SIMD_LEVELS": "baseline"}  # the CPU's kernels are beside the point here
    environment = {**os.environ, **wanted, "CUDACXX": NVCC, "NVCC_APPEND_FLAGS": "-Xptxas -v"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    (folder / "log").write_text(done.stdout)


def kernels() -> list[dict]:
    """One row per kernel, storage type and architecture of the build."""
    return took((build() / "log").read_text())


def took(log: str) -> list[dict]:
    """What each kernel takes, by what ptxas said."""
    rows = []
    for entry in log.split("Compiling entry function ")[1:]:
        name, arch = re.match(r"'(\S+)' for 'sm_(\d+)'", entry).groups()
        numbers = {
            key: sum(int(n) for n in re.findall(pattern, entry))
            for key, pattern in {
                "registers": r"Used (\d+) registers",
                "stack": r"(\d+) bytes stack frame",
                "spills": r"(\d+) bytes spill",
                "local": r"(\d+) bytes lmem",
            }.items()
        }
        rows.append({"kernel": name, "arch": arch, **numbers})
    names = subprocess.run(
        ["c++filt", "-p"], input="\n".join(r["kernel"] for r in rows), capture_output=True, text=True
    )
    for row, name in zip(rows, names.stdout.splitlines(), strict=True):
        row["kernel"] = spelled(re.sub(r"ppl_fast::|\(anonymous namespace\)::|_GLOBAL__N\w*::|c10::", "", name))
    return rows


def spelled(kernel: str) -> str:
    return kernel.replace("> >", ">>")


def blocks(row: dict, threads: int, shared: int) -> int:
    """How many blocks of a kernel a multiprocessor holds: by registers, threads and shared memory."""
    registers = -(-row["registers"] * 32 // 256) * 256 * (threads // 32)
    return min(65536 // registers, 2048 // threads, 32, SHARED[row["arch"]] // (shared + 1024))


def test_no_kernel_spills_or_uses_local_memory(capsys):
    rows, shapes = kernels(), {}
    with cuda_emulator.emulation() as library:
        for shape in cuda_emulator.python_module(Path(library._name)).kernel_info():
            shapes[shape["kernel"]] = shape["threads"], shape["shared_bytes"]
    assert set(shapes) <= {row["kernel"] for row in rows}
    with capsys.disabled():
        print(
            f"\n{'kernel':72} {'sm':>3} {'registers':>9} {'stack':>5} {'spills':>6} {'threads':>7} {'shared':>6} blocks"
        )
        for row in rows:
            shape = shapes.get(row["kernel"])  # of the float32 kernels: how they are launched
            launch = f"{shape[0]:7} {shape[1]:6} {blocks(row, *shape):6}" if shape else ""
            print(
                f"{row['kernel']:72} {row['arch']:>3} {row['registers']:9} {row['stack']:5} {row['spills']:6} {launch}"
            )
    assert len({row["kernel"] for row in rows}) >= 30
    assert {row["arch"] for row in rows} == set(ARCHITECTURES)
    bad = [row for row in rows if row["stack"] or row["spills"] or row["local"]]
    assert not bad, bad


def compile_alone(source: Path, arguments: list[str], to: Path) -> str:
    """Compile one source with nvcc, which takes less than a build, and return what was said."""
    command = [NVCC, "-std=c++17", "-O3", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    command += ["-I", ROOT / "csrc", "-isystem", cuda_emulator.TORCH / "include", *arguments, "-o", to, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@functools.cache
def known_architectures() -> str:
    return subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("arch", NO_SPILLS)
def test_no_kernel_spills_on_other_architectures(arch, tmp_path):
    if f"compute_{arch}\n" not in known_architectures():
        pytest.skip(f"this nvcc does not know sm_{arch}")
    sources = sorted((ROOT / "csrc").glob("*_cuda.cu"))

    def run(source):
        return compile_alone(source, ["-cubin", f"-arch=sm_{arch}", "-Xptxas", "-v"], tmp_path / f"{source.stem}.cubin")

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        rows = took("".join(pool.map(run, sources)))
    assert len({row["kernel"] for row in rows}) >= 30
    bad = [row for row in rows if row["stack"] or row["spills"] or row["local"]]
    assert not bad, bad


def test_registers_leave_the_occupancy_that_the_kernels_count_on():
    """Four blocks of 256 threads of link_heatmap's forward, eight of 128 of its backward's first kernel; of soft mode
    three of 128, and five of the gradient of prototypes."""
    registers = {(row["kernel"], row["arch"]): row["registers"] for row in kernels()}
    for arch in ARCHITECTURES:
        assert registers["link_heatmap_fwd_kernel<float>", arch] <= 64
        assert registers["link_heatmap_bwd_sums_kernel<float>", arch] <= 64
        assert registers["memory_attention_fwd_kernel<float, PairShape<float, 1, 4>>", arch] <= 128
        assert registers["memory_attention_screen_kernel<float>", arch] <= 128
        for name, most in (("fwd", 168), ("bwd_tokens", 168), ("bwd_prototypes", 96)):
            assert registers[f"memory_attention_soft_{name}_kernel<float, true>", arch] <= most
        for name in ("", *(f"bwd_{name}_" for name in ("weights", "products", "tokens", "prototypes"))):
            assert registers[f"memory_attention_soft_tensor_{name}kernel", arch] <= 128


def sass(source: str, kernel: str, arch: str) -> list[str]:
    """The instructions of one kernel, by cuobjdump (from Triton's package where the toolkit has none)."""
    tools = []
    try:
        import triton

        tools.append(Path(triton.__file__).parent / "backends" / "nvidia" / "bin")
    except ImportError:
        pass
    tool = shutil.which("cuobjdump", path=os.pathsep.join([*map(str, tools), os.environ["PATH"]]))
    if tool is None:
        pytest.skip("there is no cuobjdump here; Triton's package has one")
    (compiled,) = (build() / "temp").rglob(f"{source}.cu.o")
    done = subprocess.run([tool, "-arch", f"sm_{arch}", "-sass", str(compiled)], capture_output=True, text=True)
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


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_many_prototypes_are_multiplied_on_tensor_cores(arch):
    """Of 16 elements of 32 tokens and 32 prototypes 16 products, fed by nine wide loads, one of the centre's."""
    instructions = sass("memory_attention_screen_cuda", "memory_attention_screen_kernelIf", arch)
    assert sum("HMMA.1688.F32.TF32" in i for i in instructions) == 16
    barriers = [i for i, text in enumerate(instructions) if "BAR.SYNC" in text]
    products = [i for i, text in enumerate(instructions) if "HMMA" in text]
    loop = instructions[max(b for b in barriers if b < products[0]) : products[-1]]
    assert sum("LDS.128" in i for i in loop) == 9
    assert len(loop) <= 200


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_soft_mode_multiplies_split_factors(arch):
    """Three products for one: of 16 elements of 32 tokens and 32 prototypes, and of 8 prototypes and 32 columns; of the
    gradient of prototypes, of 8 tokens and 32 columns, twice."""
    backward = {"weights": 16, "products": 16, "tokens": 8, "prototypes": 8 + 8}
    expected = {("", "kernel"): 16 + 8} | {("backward_", f"bwd_{name}_"): n for name, n in backward.items()}
    for (file, kernel), products in expected.items():
        instructions = sass(f"memory_attention_soft_tensor_{file}cuda", f"memory_attention_soft_tensor_{kernel}", arch)
        assert sum("HMMA.1688.F32.TF32" in i for i in instructions) == 3 * products


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_links_are_read_from_two_arrays(arch):
    """Of rows of 16 bytes each, 256 rows apart: rows of 32 bytes would meet in the same banks of shared memory."""
    instructions = sass("link_heatmap_cuda", "link_heatmap_fwd_kernelIf", arch)
    loads = [re.search(r"\[(.*)\]", i)[1] for i in instructions if "LDS.128" in i]
    second = [place for place in loads if place.endswith("+0x1000")]
    assert len(second) == 5
    assert all(place.removesuffix("+0x1000") in loads for place in second)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_loads_travel_together(arch):
    """Four elements of eight tokens before the first sum; four choices of a lane, each in one piece."""
    sums = sass("memory_attention_sums_cuda", "memory_attention_sums_kernelIffLb0E", arch)
    first = next(i for i, text in enumerate(sums) if "FADD" in text)
    assert sum("LDG" in i for i in sums[:first]) >= 4 * 8
    assert sum("LDG.E.64" in i for i in sass("memory_attention_cuda", "memory_attention_compare_kernelIf", arch)) >= 4


def inner_loop(instructions: list[str]) -> list[str]:
    """The straight piece of code that holds four FFMA.SAT: the walk over the links of 4 pixels."""
    branches = [i for i, text in enumerate(instructions) if re.search(r"\bBRA\b|BSYNC|BSSY|EXIT|RET", text)]
    pieces = [instructions[a + 1 : b + 1] for a, b in zip([-1, *branches], branches, strict=False)]
    (loop,) = [p for p in pieces if sum("FFMA.SAT" in i for i in p) == 4]
    return loop


def in_process(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python code on the package that was built."""
    environment = {**os.environ, "PYTHONPATH": str(build() / "lib"), **environment}
    return subprocess.run([sys.executable, "-c", code], cwd=build(), env=environment, capture_output=True, text=True)


def test_the_package_runs_beside_a_torch_without_cuda_and_says_why():
    if torch.version.cuda is not None:
        pytest.skip("this torch was built with CUDA")
    done = in_process("import sys; from ppl_fast.doctor import main; sys.exit(main())")
    assert done.returncode == 0, done.stderr
    assert str(build()) in in_process("import ppl_fast; print(ppl_fast.__file__)").stdout
    reason = f"ppl_fast._C_cuda needs a torch that was built with CUDA, and torch {torch.__version__} was not"
    assert f"_C_cuda: {reason}" in done.stdout
    assert "No GPU is used: this torch is built without CUDA" in done.stdout


def test_the_library_loads_and_registers(tmp_path):
    """With stand-ins for the few functions that a torch without CUDA lacks."""
    stand_in = tmp_path / "stand_in.so"
    source = cuda_emulator.HERE / "torch_stand_in.cpp"
    subprocess.run(["g++", "-shared", "-fPIC", "-o", stand_in, source], check=True)
    done = in_process(
        """
import torch, ppl_fast
from ppl_fast import _C_cuda
from ppl_fast._library import OPERATORS
for operator in OPERATORS.values():
    for name in operator.ops:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"ppl_fast::{name}", "CUDA"), name
print(_C_cuda.build_info())
try:
    print(len(_C_cuda.kernel_info()))
except RuntimeError as error:
    print(error)
""",
        **({} if torch.version.cuda else {"LD_PRELOAD": str(stand_in)}),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    info, answer = done.stdout.splitlines()
    assert "'architectures': '80-real 90-real'" in info and "'torch_target': '0x020a000000000000'" in info
    if not torch.cuda.is_available():
        assert re.match(r"kernel_info: affine_warp_bwd_own_kernel<float>: .*(driver|device)", answer), answer
    else:
        assert int(answer) == cuda_emulator.reported_kernels()
