"""What the CUDA kernels of memory_attention claim for themselves, run by the emulator."""

import os
import subprocess
import sys

import cuda_emulator
import pytest
import torch
from op_tester import poisoned_memory

import ppl_fast

pytestmark = pytest.mark.skipif(cuda_emulator.reason_against() is not None, reason=str(cuda_emulator.reason_against()))


@pytest.fixture(params=cuda_emulator.kinds())
def library(request):
    with cuda_emulator.emulation(kind=request.param) as loaded:
        yield loaded


def check_choice(tokens, prototypes, found):
    """Choice and values as the reference's to the bit, distances but for rounding."""
    expected = ppl_fast.memory_attention(tokens, prototypes, backend="reference")
    values, indices, distances = found
    assert torch.equal(indices, expected[1])
    assert torch.equal(values, expected[0])
    torch.testing.assert_close(distances, expected[2])


@pytest.mark.parametrize(("b", "k"), [(2, 700), (20, 600)], ids=["16-token-blocks", "64-token-blocks"])
def test_blocks_share_the_prototypes_of_a_bank(b, k, library):
    """Few tokens, many prototypes: several blocks take parts of a bank, and a second kernel compares their choices."""
    tokens, prototypes = torch.randn(b, 1, 5), torch.randn(1, k, 5)
    prototypes[0, k // 2 :] = prototypes[0, : k - k // 2]  # every distance twice, in different blocks
    before = library.cuda_emulator_launches()
    found = ppl_fast.memory_attention(tokens, prototypes, backend="emulated")
    assert library.cuda_emulator_launches() == before + 2
    check_choice(tokens, prototypes, found)


# Each build and dtype has one order in the quick loop, and another than its neighbours.
QUICK = {
    ("backwards", torch.float32, "plain"),
    ("shuffled", torch.float32, "contracted"),
    ("forwards", torch.float16, "contracted"),
}
TURNS = [
    pytest.param(*turn, marks=[*kind.marks, *([] if turn in QUICK else [pytest.mark.slow])])
    for kind in cuda_emulator.kinds()
    for order, dtype in [*((order, torch.float32) for order in cuda_emulator.ORDERS), ("forwards", torch.float16)]
    for turn in [(order, dtype, *kind.values)]
]


@pytest.mark.parametrize(("order", "dtype", "kind"), TURNS)
def test_tensor_cores_choose_what_to_compare(order, dtype, kind):
    """Rows, prototypes and elements that fill no tile; every distance twice, in different blocks; two launches."""
    tokens, prototypes = torch.randn(66, 1, 37).to(dtype), torch.randn(1, 1060, 37).to(dtype)
    prototypes[0, 530:] = prototypes[0, :530]
    with cuda_emulator.emulation(order, kind) as library, poisoned_memory():
        before = library.cuda_emulator_launches()
        found = ppl_fast.memory_attention(tokens, prototypes, backend="emulated")
        assert library.cuda_emulator_launches() == before + 2
    check_choice(tokens, prototypes, found)


@pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "not-aligned"])
def test_tensor_cores_take_whole_pieces_in_vectors_where_rows_are_aligned(offset, library):
    """Three pieces of 16 elements; one number further on in memory they are loaded one by one, to the same bits."""
    tokens = torch.randn(66 * 48 + offset)[offset:].view(66, 1, 48)
    prototypes = torch.randn(1060 * 48 + offset)[offset:].view(1, 1060, 48)
    found = ppl_fast.memory_attention(tokens, prototypes, backend="emulated")
    check_choice(tokens, prototypes, found)
    aligned = ppl_fast.memory_attention(tokens.clone(), prototypes.clone(), backend="emulated")
    assert all(torch.equal(a, b) for a, b in zip(found, aligned, strict=True))


@pytest.mark.parametrize("d", [37, 48])
def test_threads_of_the_tensor_core_kernel_do_not_race(d):
    """They change places at each access to shared memory, which is watched."""
    tokens, prototypes = torch.randn(18, 1, d), torch.randn(1, 1060, d)
    with cuda_emulator.emulation("interleaved", "watched"), poisoned_memory():
        check_choice(tokens, prototypes, ppl_fast.memory_attention(tokens, prototypes, backend="emulated"))


@pytest.mark.parametrize(
    ("version", "launched"), [("75", False), pytest.param("80", True, marks=pytest.mark.slow)]
)  # that newer ones launch it, every test above counts
def test_code_for_old_gpus_keeps_off_tensor_cores(version, launched):
    """PTX for sm_75 has no products in tf32, whatever GPU runs it: it must choose by differences."""
    code = f"""
import sys; sys.path[:] = {sys.path!r}
from pathlib import Path
import torch, cuda_emulator, ppl_fast
from test_cuda_memory_attention import check_choice
tokens, prototypes = torch.randn(20, 2, 9), torch.randn(2, 1060, 9)
with cuda_emulator.emulation() as library:
    check_choice(tokens, prototypes, ppl_fast.memory_attention(tokens, prototypes, backend="emulated"))
    module = cuda_emulator.python_module(Path(library._name))
print([r["blocks_per_multiprocessor"] for r in module.kernel_info() if "screen_kernel" in r["kernel"]])
"""
    environment = {**os.environ, "CUDA_EMULATOR_COMPILED_FOR": version}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == str([int(launched)])


def test_tensor_cores_let_nothing_pass_that_is_no_number(library):
    tokens, prototypes = torch.randn(20, 2, 9), torch.randn(2, 1024, 9)
    tokens[3, 0, 4], prototypes[1, 700, 0] = torch.nan, torch.nan
    tokens[5, 0] = 1e30  # its distances overflow
    _, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend="emulated")
    _, expected, _ = ppl_fast.memory_attention(tokens, prototypes, backend="reference")
    assert torch.equal(indices[:, 0], expected[:, 0])
    assert distances[3, 0].isnan() and distances[5, 0].isinf() and distances[:, 0].isfinite().sum() == 18
    assert distances[:, 1].isnan().all() and torch.all(indices[:, 1] == 0)


@pytest.mark.parametrize("k", [50, 1100], ids=["differences", "tensor-cores"])
def test_near_ties_resolve_as_float64_has_them(k, library):
    """Far from the origin |t|^2 - 2 t.p + |p|^2 loses every digit of such distances; differences keep them."""
    prototypes = (100 + 1e-2 * torch.randn(1, k, 64)).float()
    tokens = (prototypes[0, :50] + 1e-3 * torch.randn(50, 64)).unsqueeze(1).float()
    _, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend="emulated")
    exact = (tokens.double().unsqueeze(2) - prototypes.double()).square().sum(-1)
    assert torch.equal(indices, exact.argmin(-1))
    torch.testing.assert_close(distances.double(), exact.amin(-1), rtol=1e-5, atol=0)


def test_soft_mode_survives_extreme_temperatures(library):
    tokens, prototypes = torch.randn(5, 2, 16), torch.randn(2, 130, 16)
    hard, indices, _ = ppl_fast.memory_attention(tokens, prototypes, backend="emulated")
    cold, cold_indices, _ = ppl_fast.memory_attention(tokens, prototypes, 1e-6, backend="emulated")
    hot, _, _ = ppl_fast.memory_attention(tokens, prototypes, 1e9, backend="emulated")
    assert torch.equal(indices, cold_indices)
    torch.testing.assert_close(cold, hard)
    torch.testing.assert_close(hot, prototypes.mean(1).expand(5, 2, 16), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_prototype_sums_count_and_sum(dtype, library):
    tokens, indices = torch.randn(70, 3, 300).to(dtype), torch.randint(9, (70, 3))
    indices[:, 1] = 2
    with poisoned_memory():
        counts, sums = ppl_fast.prototype_sums(tokens, indices, 9, backend="emulated")
    expected = ppl_fast.prototype_sums(tokens, indices, 9, backend="reference")
    assert torch.equal(counts, expected[0])
    torch.testing.assert_close(sums, expected[1], rtol=1e-5, atol=1e-5)
    assert counts.dtype == sums.dtype == torch.promote_types(dtype, torch.float32)


# Rows, prototypes and elements that fill no tile, and such as do; temperatures that leave one prototype and all.
SOFT = [(66, 530, 37, 5.0), (18, 300, 48, 0.02), (20, 256, 64, 1e3), (17, 640, 4, 1e-6)]


def soft_reference(tokens, prototypes, temperature):
    return ppl_fast.memory_attention(tokens.double(), prototypes.double(), temperature, backend="reference")


@pytest.mark.parametrize(("b", "k", "d", "temperature"), SOFT)
def test_tensor_cores_take_soft_mode(b, k, d, temperature, library):
    """Two launches, whose results are as exact as those of differences: the choice that of the reference."""
    tokens, prototypes = torch.randn(b, 1, d), torch.randn(1, k, d)
    with poisoned_memory():
        before = library.cuda_emulator_launches()
        values, indices, distances = ppl_fast.memory_attention(tokens, prototypes, temperature, backend="emulated")
        assert library.cuda_emulator_launches() == before + 2
    expected = soft_reference(tokens, prototypes, temperature)
    assert torch.equal(indices, expected[1])
    torch.testing.assert_close(distances.double(), expected[2], rtol=1e-5, atol=0)
    parts = [ppl_fast.memory_attention(t, prototypes, temperature, backend="emulated") for t in tokens.split(16)]
    by_differences = torch.cat([part[0] for part in parts])
    error, of_differences = ((x - expected[0]).abs().max() for x in (values, by_differences))
    assert error <= 2 * of_differences + 3e-7
