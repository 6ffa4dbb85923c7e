"""Every Triton kernel compiles, without a GPU, for the architectures in use: no spills, shared memory within limits."""

import re
import subprocess

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")

from ppl_fast.kernels import affine_warp, link_heatmap, link_heatmap_backward, memory_attention  # noqa: E402
from ppl_fast.kernels import memory_attention_backward as attention_backward  # noqa: E402
from ppl_fast.kernels._launch import COMPILER  # noqa: E402

from ppl_fast import default_links  # noqa: E402

MODULES = (affine_warp, link_heatmap, link_heatmap_backward, memory_attention, attention_backward)
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # bytes a block may ask for
TYPES = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int16: "*i16", torch.int64: "*i64",
    torch.int32: "*i32", torch.uint8: "*u8",
}  # fmt: skip


def meta(*shape, dtype=torch.float32):
    return torch.empty(shape, device="meta", dtype=dtype)


def draw(b, n, size, dtype=torch.float32, shared=True) -> None:
    links = default_links(n, "meta")
    keypoints, weights = meta(b, n, 2, dtype=dtype), meta(*([] if shared else [b]), len(links), dtype=dtype)
    heatmap, winner = link_heatmap.link_heatmap(keypoints, weights, links, *size, 1e-3)
    link_heatmap_backward.link_heatmap_backward(heatmap, keypoints, weights, links, winner, 1e-3)


def attend(b, m, k, d, temperature, dtype=torch.float32) -> None:
    tokens, prototypes = meta(b, m, d, dtype=dtype), meta(m, k, d, dtype=dtype)
    values, indices, distances, lse = memory_attention.memory_attention(tokens, prototypes, temperature)
    attention_backward.memory_attention_backward(
        values, distances, tokens, prototypes, values, indices, lse, temperature, True
    )
    memory_attention.prototype_sums(tokens, indices, k)


def warp(b, n, shared, dtype=torch.float32) -> None:
    keypoints, affine = meta(*([] if shared else [b]), n, 2, dtype=dtype), meta(b, n, 2, 3, dtype=dtype)
    points = affine_warp.affine_warp(keypoints, affine)
    affine_warp.affine_warp_backward(points, keypoints, affine)


def workloads(dtype: torch.dtype) -> None:
    """Call every launcher with the sizes that choose every block size in use."""
    for n in (16, 32, 64):  # 120, 496 and 2016 links
        draw(64, n, (128, 128), dtype)
    for temperature, d in ((None, 512), (1.0, 512), (1.0, 33)):
        attend(64, 34, 16, d, temperature, dtype)
    for shared in (True, False):
        warp(64, 16, shared, dtype)


def ones(dtype: torch.dtype) -> None:
    """Sizes of 1, which Triton takes as constants, and so compiles another kernel."""
    draw(1, 2, (1, 1), dtype, shared=False)
    attend(1, 1, 1, 1, None, dtype)
    attend(1, 1, 1, 1, 1.0, dtype)
    for shared in (True, False):
        warp(1, 1, shared, dtype)


def specialise(kernel, arguments, options):
    """Return the source and Triton's options that its launcher would compile, and what is constant, as text."""
    given = dict(zip(kernel.arg_names, arguments, strict=False)) | options
    signature, constants, attributes = {}, {}, {}
    for i, parameter in enumerate(kernel.params):
        value = given[parameter.name]
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
            continue
        tensor = isinstance(value, torch.Tensor)
        signature[parameter.name] = TYPES[value.dtype] if tensor else "i32" if isinstance(value, int) else "fp32"
        if tensor or (isinstance(value, int) and value % 16 == 0):
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = triton.compiler.ASTSource(kernel, signature, constants, attributes)
    constant = " ".join(f"{p.name}={given[p.name]}" for p in kernel.params if p.is_constexpr)
    return source, {k: v for k, v in options.items() if k not in kernel.arg_names} | COMPILER, constant


def recorded(calls, dtype: torch.dtype) -> dict:
    """Return what `specialise` makes of the launches of `calls`, one for each choice of constants and warps."""
    found = {}

    def record(kernel, programs, *arguments, **options):
        found.setdefault((kernel.__name__, str(options)), specialise(kernel, arguments, options))

    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "launch", record)
        calls(dtype)
    return found


def inspect(binary, folder) -> dict:
    """Return what the compiled kernel takes: registers, bytes of stack, shared memory, instructions, spills."""
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(binary.asm["cubin"])
    tool = triton.knobs.nvidia.cuobjdump.path
    usage, sass = (
        subprocess.run([tool, flag, cubin], capture_output=True, text=True, check=True).stdout
        for flag in ("-res-usage", "-sass")
    )
    registers, stack, local = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))
    instructions = re.findall(r"/\*[0-9a-f]{4,}\*/ +(?:@\S+ +)?([A-Z][\w.]*)", sass)
    return {
        "registers": registers,
        "stack": stack + local,
        "shared": binary.metadata.shared,
        "instructions": sum(name != "NOP" for name in instructions),
        "spills": sum(name.startswith(("LDL", "STL")) for name in instructions),
    }


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [
        pytest.param(90, torch.float32, id="sm_90", marks=pytest.mark.slow),
        pytest.param(80, torch.float32, id="sm_80", marks=pytest.mark.slow),
        pytest.param(100, torch.float32, id="sm_100", marks=pytest.mark.slow),
        pytest.param(90, torch.bfloat16, id="sm_90-bfloat16", marks=pytest.mark.slow),
    ],
)
def test_compiles_without_spills(architecture, dtype, tmp_path, capsys):
    launches = recorded(workloads, dtype)
    target = triton.backends.compiler.GPUTarget("cuda", architecture, 32)
    table = [f"{'kernel':<40} {'warps':>5} {'registers':>9} {'shared':>7} {'instructions':>12}  constants"]
    faults = []
    for source, options, constant in launches.values():
        binary = triton.compile(source, target=target, options=options)
        took = inspect(binary, tmp_path)
        warps = binary.metadata.num_warps
        table.append(
            f"{source.name:<40} {warps:>5} {took['registers']:>9} {took['shared']:>7} {took['instructions']:>12}  "
            f"{constant}"
        )
        if took["stack"] or took["spills"]:
            faults.append(f"{source.name} {constant}: {took['spills']} spills, {took['stack']} bytes of stack")
        if took["shared"] > SHARED_LIMIT[architecture] or took["registers"] * warps * 32 > 65536:
            faults.append(f"{source.name} {constant} does not fit a multiprocessor: {took}")
        assert took["instructions"] > 20
    with capsys.disabled():
        print(f"\n\nsm_{architecture}, {dtype}\n" + "\n".join(table))
    assert not faults, "\n".join(faults)
    names = {source.name for source, _, _ in launches.values()}
    written = {name for module in MODULES for name in vars(module) if name.endswith("_kernel")}
    assert names == written, "a kernel that no launcher was seen to launch was not compiled"


def test_one_operator_compiles_without_spills(tmp_path):
    """What the quick loop sees of the above."""
    launches = recorded(lambda dtype: warp(64, 16, True, dtype), torch.float32)
    assert {source.name for source, _, _ in launches.values()} == {"affine_warp_fwd_kernel", "affine_warp_bwd_kernel"}
    for source, options, _ in launches.values():
        target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
        took = inspect(triton.compile(source, target=target, options=options), tmp_path)
        assert took["stack"] == took["spills"] == 0 and took["instructions"] > 20, took


@pytest.mark.slow
def test_sizes_of_one_compile():
    for source, options, _ in recorded(ones, torch.float32).values():
        triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", 90, 32), options=options)
