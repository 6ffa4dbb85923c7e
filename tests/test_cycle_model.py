"""benchmarks/cycle_model.py against counts made by hand."""

import cycle_model
import pytest
import test_cuda_compiles


def test_the_cycle_model_asks_for_each_loop():
    code = [(0, "MOV R1, R2"), (16, "FADD R1, R1, R2"), (32, "@!P0 BRA 0x10"), (48, "EXIT"), (64, "BRA 0x40")]
    assert cycle_model.counts(code, (10,)) == {"alu": 1, "fma": 10, "control": 11}
    with pytest.raises(ValueError, match="the workload names 0 loops, the kernel has 1: 0x10 to 0x20"):
        cycle_model.counts(code, ())


def test_shared_memory_takes_a_wavefront_for_each_128_bytes():
    code = [(0, "LDS R1, [R2]"), (16, "@P0 STS.128 [R2], R4"), (32, "LDS.U16 R1, [R3]"), (48, "LDS.128 R4, [R2]")]
    code += [(64, "@!P0 BRA 0x30"), (80, "EXIT")]
    for readers, in_the_loop in ((32, 4), (8, 1), (12, 1.5), (1, 1)):
        workload = cycle_model.Workload("", "", "", 1, (10,), 0.0, {0: readers})
        assert cycle_model.wavefronts(code, workload) == 1 + 4 + 1 + 10 * in_the_loop
    assert "wavefronts of shared memory a warp" in cycle_model.report(workload, code, 90)
    other = cycle_model.Workload("draw", "", "", 1, (), 0.0)
    assert cycle_model.report(other, code, 90).startswith("draw: the workload names 0 loops, the kernel has 1")


needs_nvcc = pytest.mark.skipif(
    test_cuda_compiles.reason_against() is not None, reason=str(test_cuda_compiles.reason_against())
)


def code_of(workload, arch: str) -> list[tuple[int, str]]:
    """The instructions of a workload's kernel, as the package has it."""
    if cycle_model.tool() is None:
        pytest.skip("there is no cuobjdump here; Triton's package has one")
    (compiled,) = (test_cuda_compiles.build() / "temp").rglob(f"{workload.source}.cu.o")
    return cycle_model.instructions(compiled, workload.kernel, int(arch))


@pytest.mark.slow
@needs_nvcc
@pytest.mark.parametrize("arch", test_cuda_compiles.ARCHITECTURES)
@pytest.mark.parametrize("workload", cycle_model.workloads(), ids=lambda workload: workload.kernel)
def test_a_workload_names_the_loops_of_its_kernel(workload, arch):
    code = code_of(workload, arch)
    issued = cycle_model.counts(code, workload.trips)
    once = sum(at <= cycle_model.last_exit(code) for at, _ in code)
    assert sum(issued.values()) > once if max(workload.trips, default=1) > 1 else sum(issued.values()) == once
    gpu = next(name for name, (number, *_) in cycle_model.GPUS.items() if number == int(arch))
    times = cycle_model.bound(workload, code, gpu)
    assert 0 < times["issue"] < 1000 and times["bytes"] > 0
