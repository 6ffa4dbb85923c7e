"""What the CUDA kernels of memory_attention claim for themselves, run by the emulator."""

import contextlib
import ctypes
import functools
import os
import subprocess
import sys

import cuda_emulator
import pytest
import torch
from cases import Case, with_changes
from cases.memory_attention import random_tokens
from op_tester import check, poisoned_memory

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


@pytest.mark.parametrize("k", [1, 9, 16])
def test_few_prototypes_let_nothing_pass_that_is_no_number(k, library):
    """Blocks and warps that tokens and prototypes do not fill; infinite distances are of the first prototype."""
    tokens, prototypes = torch.randn(13, 2, 37), torch.randn(2, k, 37)
    check_choice(tokens, prototypes, ppl_fast.memory_attention(tokens, prototypes, backend="emulated"))
    tokens[3, 0, 36], prototypes[1, -1, 0] = torch.nan, torch.nan
    tokens[12, 0] = 1e30
    _, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend="emulated")
    assert distances[3, 0].isnan() and distances[12, 0].isinf() and distances[:, 0].isfinite().sum() == 11
    assert distances[:, 1].isnan().all() and torch.all(indices[:, 1] == 0)
    assert indices[3, 0] == indices[12, 0] == 0


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


@pytest.mark.parametrize("offset", [pytest.param(0, marks=pytest.mark.slow), 1], ids=["aligned", "not-aligned"])
def test_tensor_cores_take_whole_pieces_in_vectors_where_rows_are_aligned(offset, library):
    """Three pieces of 16 elements; one number further on in memory they are loaded one by one, to the same bits."""
    tokens = torch.randn(66 * 48 + offset)[offset:].view(66, 1, 48)
    prototypes = torch.randn(1060 * 48 + offset)[offset:].view(1, 1060, 48)
    found = ppl_fast.memory_attention(tokens, prototypes, backend="emulated")
    check_choice(tokens, prototypes, found)
    aligned = ppl_fast.memory_attention(tokens.clone(), prototypes.clone(), backend="emulated")
    assert all(torch.equal(a, b) for a, b in zip(found, aligned, strict=True))
    found, aligned = (
        ppl_fast.memory_attention(t, p, 5.0, backend="emulated")
        for t, p in ((tokens[:20], prototypes[:, :300]), (tokens[:20].clone(), prototypes[:, :300].clone()))
    )
    assert all(torch.equal(a, b) for a, b in zip(found, aligned, strict=True))


@pytest.mark.parametrize(
    ("d", "few"),
    [
        pytest.param(37, contextlib.nullcontext, id="37-a-step"),
        pytest.param(48, contextlib.nullcontext, id="48-a-step", marks=pytest.mark.slow),
        pytest.param(37, cuda_emulator.few_blocks, id="37-all-steps", marks=pytest.mark.slow),
        pytest.param(48, cuda_emulator.few_blocks, id="48-all-steps", marks=pytest.mark.slow),
    ],
)
def test_threads_of_the_tensor_core_kernels_do_not_race(d, few):
    """They change places at each access to shared memory, which is watched; of soft mode every bit stays the same."""
    tokens, prototypes, soft = torch.randn(18, 1, d), torch.randn(1, 1060, d), []
    for order, kind in (("interleaved", "watched"), ("forwards", "plain"), ("shuffled", "plain")):
        with cuda_emulator.emulation(order, kind) as library, poisoned_memory(), few(library):
            soft.append(ppl_fast.memory_attention(tokens, prototypes[:, :300], 5.0, backend="emulated"))
            if kind == "watched":
                check_choice(tokens, prototypes, ppl_fast.memory_attention(tokens, prototypes, backend="emulated"))
    for other in soft[1:]:
        assert all(torch.equal(a, b) for a, b in zip(soft[0], other, strict=True))


BACKWARD = "weights", "products", "tokens", "combine", "prototypes"


@pytest.mark.slow
@pytest.mark.parametrize(("version", "launched"), [("75", False), ("80", True)])
def test_code_for_old_gpus_keeps_off_tensor_cores(version, launched):
    """PTX for sm_75 has no products in tf32, whatever GPU runs it: it must choose by differences."""
    code = f"""
import sys; sys.path[:] = {sys.path!r}
from pathlib import Path
import torch, cuda_emulator, ppl_fast
from test_cuda_memory_attention import check_choice
from op_tester import evaluate
tokens, prototypes = torch.randn(20, 2, 9), torch.randn(2, 1060, 9)
inputs = dict(tokens=tokens, prototypes=prototypes[:, :300].contiguous(), temperature=5.0)
with cuda_emulator.emulation() as library:
    check_choice(tokens, prototypes, ppl_fast.memory_attention(tokens, prototypes, backend="emulated"))
    soft, expected = (ppl_fast.memory_attention(tokens, prototypes, 5.0, backend=b) for b in ("emulated", "reference"))
    torch.testing.assert_close(soft, expected)
    soft, expected = (evaluate("memory_attention", inputs, b)[1] for b in ("emulated", "reference"))
    torch.testing.assert_close(soft, expected, rtol=1e-4, atol=1e-5)
    module = cuda_emulator.python_module(Path(library._name))
names = "screen_kernel", "soft_tensor_kernel", *(f"soft_tensor_bwd_{{n}}_" for n in {BACKWARD!r})
print([r["blocks_per_multiprocessor"] for n in names for r in module.kernel_info() if n in r["kernel"]])
"""
    environment = {**os.environ, "CUDA_EMULATOR_COMPILED_FOR": version}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == str([int(launched)] * (2 + len(BACKWARD)))


def test_tensor_cores_let_nothing_pass_that_is_no_number(library):
    tokens, prototypes = torch.randn(20, 2, 9), torch.randn(2, 1024, 9)
    tokens[3, 0, 4], prototypes[1, 700, 0] = torch.nan, torch.nan
    tokens[5, 0] = 1e30  # its distances overflow
    _, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend="emulated")
    _, expected, _ = ppl_fast.memory_attention(tokens, prototypes, backend="reference")
    assert torch.equal(indices[:, 0], expected[:, 0])
    assert distances[3, 0].isnan() and distances[5, 0].isinf() and distances[:, 0].isfinite().sum() == 18
    assert distances[:, 1].isnan().all() and torch.all(indices[:, 1] == 0)
    found = ppl_fast.memory_attention(tokens, prototypes[:, 500:800], 5.0, backend="emulated")
    expected = ppl_fast.memory_attention(tokens, prototypes[:, 500:800], 5.0, backend="reference")
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found[0][3, 0].isnan().all() and found[0][:, 1].isnan().all() and found[0][:, 0].isfinite().sum() == 9 * 18


# The bank's first prototype, to which products are relative, lies among the others or a thousand times as far off.
@pytest.mark.parametrize("first", [0, 10], ids=["among", "apart"])
@pytest.mark.parametrize("temperature", [None, 5e-3], ids=["hard", "soft"])
@pytest.mark.parametrize("k", [50, pytest.param(1100, marks=pytest.mark.slow)], ids=["differences", "tensor-cores"])
def test_near_ties_resolve_as_float64_has_them(k, temperature, first, library):
    """Far from the origin |t|^2 - 2 t.p + |p|^2 loses every digit of such distances; differences keep them."""
    prototypes = (100 + 1e-2 * torch.randn(1, k, 64)).float()
    tokens = (prototypes[0, :50] + 1e-3 * torch.randn(50, 64)).unsqueeze(1).float()
    prototypes[0, 0] += first
    if temperature is not None:
        prototypes = prototypes[:, :270]  # enough for soft mode
    values, indices, distances = ppl_fast.memory_attention(tokens, prototypes, temperature, backend="emulated")
    exact = (tokens.double().unsqueeze(2) - prototypes.double()).square().sum(-1)
    assert torch.equal(indices, exact.argmin(-1))
    torch.testing.assert_close(distances.double(), exact.amin(-1), rtol=1e-5, atol=0)
    if temperature is not None:
        expected = soft_reference(tokens, prototypes, temperature)[0]
        torch.testing.assert_close(values.double(), expected, rtol=1e-6, atol=0)  # eight of float32's last bits


@pytest.mark.parametrize("few", [contextlib.nullcontext, cuda_emulator.few_blocks], ids=["a-step", "all-steps"])
def test_tensor_cores_give_no_weight_to_what_overflows(few, library):
    """A first step of prototypes that lie infinitely far in float32, and a token that lies so far from all."""
    tokens, prototypes = torch.randn(18, 1, 8), torch.randn(1, 300, 8)
    prototypes[:, :128] *= 1e30
    tokens[4] = 1e32
    with few(library):
        found = ppl_fast.memory_attention(tokens, prototypes, 5.0, backend="emulated")
    expected = ppl_fast.memory_attention(tokens, prototypes, 5.0, backend="reference")
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found[0].isnan().sum() == 8 and found[2].isinf().sum() == 1


def test_twins_share_a_cold_choice_of_tensor_cores(library):
    """Every prototype twice, in different blocks: the lower index, half of the gradient to either, and both exact."""
    inputs = random_tokens(18, 1, 270, 20, 1e-12)
    twins = with_changes(inputs, prototypes=lambda a: torch.cat([a["prototypes"][:, :135]] * 2, 1))
    before = library.cuda_emulator_launches()
    check("memory_attention", Case("twins", twins), "emulated", torch.float32)
    assert library.cuda_emulator_launches() >= before + 7


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


@functools.cache
def bounds() -> ctypes.CDLL:
    sources = [cuda_emulator.HERE / f"{name}" for name in ("torch_stand_in.cpp", "bounds.cu")]
    loaded = cuda_emulator.load(cuda_emulator.build(sources))
    loaded.error_in_slacks.restype = ctypes.c_double
    return loaded


def error_in_slacks(tokens, prototypes, split: bool, slack_of_split: bool) -> float:
    data = [x.float().contiguous() for x in (tokens, prototypes)]
    pointers = [ctypes.c_void_p(x.data_ptr()) for x in data]
    return bounds().error_in_slacks(*pointers, ctypes.c_int64(data[0].shape[1]), split, slack_of_split)


LAST_BITS = 1 + (2**11 - 1) / 2**23  # what is cut off to make it tf32, all of it
ROWS = {
    "normal": lambda *shape: torch.randn(shape),
    "positive": lambda *shape: torch.rand(shape) + 0.5,
    "cut-off": lambda *shape: torch.full(shape, LAST_BITS) * 2.0 ** torch.randint(-2, 3, shape),
    "apart": lambda *shape: 100 + 1e-2 * torch.randn(shape),
}


@pytest.mark.parametrize("d", [3, 64, 200])
@pytest.mark.parametrize("rows", ROWS)
def test_products_are_off_by_less_than_their_slack(rows, d):
    """Against float64: 64 tokens and 128 prototypes, from one factor each and from split ones."""
    tokens, prototypes = ROWS[rows](64, d), ROWS[rows](128, d)
    prototypes[0] = 0  # the centre
    for split in (False, True):
        assert 1e-4 < error_in_slacks(tokens, prototypes, split, split) < 1
    assert rows == "apart" or error_in_slacks(tokens, prototypes, False, True) > 1  # which split factors alone keep


# Rows, prototypes and elements that fill no tile, and such as do; temperatures that leave one prototype and all.
SOFT = [(66, 270, 37, 5.0), (18, 300, 48, 0.02), (20, 256, 64, 1e3), (17, 640, 4, 1e-6), (17, 256, 3, 1e-300)]


def soft_reference(tokens, prototypes, temperature):
    return ppl_fast.memory_attention(tokens.double(), prototypes.double(), temperature, backend="reference")


@pytest.mark.parametrize(
    "few", [contextlib.nullcontext, pytest.param(cuda_emulator.few_blocks, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(("b", "k", "d", "temperature"), SOFT)
def test_tensor_cores_take_soft_mode(b, k, d, temperature, few, library):
    """Two launches, whose results are as exact as those of differences: the choice that of the reference."""
    tokens, prototypes = torch.randn(b, 1, d), torch.randn(1, k, d)
    with poisoned_memory(), few(library):
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
