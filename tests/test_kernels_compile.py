"""Every Triton kernel compiles, without a GPU, for the architectures in use: no spills, shared memory within limits."""

import re
import subprocess

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")

from cases import CASES, Case, of  # noqa: E402
from interpreted import kernel_modules  # noqa: E402
from op_tester import called  # noqa: E402
from ppl_fast.kernels._launch import COMPILER  # noqa: E402

from ppl_fast import kernels  # noqa: E402
from ppl_fast._library import OPERATORS  # noqa: E402

SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}  # bytes a block may ask for
TYPES = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int16: "*i16", torch.int64: "*i64",
    torch.int32: "*i32", torch.uint8: "*u8",
}  # fmt: skip


def launched(op: str, makes, dtype: torch.dtype) -> None:
    """Call the launchers of an operator, forward and backward, with inputs of these shapes, as meta tensors."""
    for make in makes:
        inputs = Case(op, make).inputs(dtype, "meta")
        for call, arguments in called(op, "reference", inputs, OPERATORS[op].differentiable):
            name = call.name().removeprefix("ppl_fast::").removesuffix("_reference")
            kernels.implementation(name)(*arguments)


def specialise(kernel, arguments, options):
    """The source and Triton's options that its launcher would compile, and what is constant, as text."""
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


def recorded(ops, what: str, dtype: torch.dtype) -> dict:
    """What `specialise` makes of the launches at the inputs called `what` of each operator's cases: one for each
    choice of constants and warps."""
    found = {}

    def record(kernel, programs, *arguments, **options):
        found.setdefault((kernel.__name__, str(options)), specialise(kernel, arguments, options))

    with pytest.MonkeyPatch.context() as patch:
        for module in kernel_modules():
            patch.setattr(module, "launch", record)
        for op in ops:
            launched(op, of(op, what), dtype)
    return found


def inspect(binary, folder) -> dict:
    """What the compiled kernel takes: registers, bytes of stack, shared memory, instructions, spills."""
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
    launches = recorded(CASES, "SIZES", dtype)
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
    written = {name for module in kernel_modules() for name in vars(module) if name.endswith("_kernel")}
    assert names == written, "a kernel that no launcher was seen to launch was not compiled"


def test_one_operator_compiles_without_spills(tmp_path):
    """What the quick loop sees of the above."""
    op = next(iter(CASES))
    launches = recorded([op], "SIZES", torch.float32)
    assert {source.name for source, _, _ in launches.values()} == set(sum(of(op, "TRITON_LAUNCHES"), []))
    for source, options, _ in launches.values():
        target = triton.backends.compiler.GPUTarget("cuda", 90, 32)
        took = inspect(triton.compile(source, target=target, options=options), tmp_path)
        assert took["stack"] == took["spills"] == 0 and took["instructions"] > 20, took


@pytest.mark.slow
def test_sizes_of_one_compile():
    for source, options, _ in recorded(CASES, "ONES", torch.float32).values():
        triton.compile(source, target=triton.backends.compiler.GPUTarget("cuda", 90, 32), options=options)
