"""memory_attention beyond the shared tester: straight-through gradient, near ties, memory, prototype_sums."""

import pytest
import torch
from formulas import published_memory_attention
from op_tester import running

import ppl_fast
from ppl_fast import _library


def test_the_published_formula_and_straight_through_gradient(backend):
    tokens, prototypes = torch.randn(6, 4, 32, requires_grad=True), torch.randn(4, 9, 32, requires_grad=True)
    up_values, up_distances = torch.randn(6, 4, 32), torch.randn(6, 4)
    with running(backend) as name:
        values, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend=name)
        gradients = torch.autograd.grad((values, distances), (tokens, prototypes), (up_values, up_distances))
    e_values, e_indices, e_distances = published_memory_attention(tokens, prototypes)
    expected = torch.autograd.grad((e_values, e_distances), (tokens, prototypes), (up_values, up_distances))
    assert torch.equal(indices, e_indices)
    torch.testing.assert_close(values, e_values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(distances, e_distances, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-4)


def test_near_ties_resolve_as_float64_has_them(backend):
    """Far from the origin |t|^2 - 2 t.p + |p|^2 loses every digit of such distances; differences keep them."""
    centre = torch.full((64,), 100.0)
    prototypes = (centre + 1e-2 * torch.randn(1, 50, 64)).float()
    tokens = (prototypes[0, torch.arange(50)] + 1e-3 * torch.randn(50, 64)).unsqueeze(1).float()
    with running(backend) as name:
        _, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend=name)
    exact = (tokens.double().unsqueeze(2) - prototypes.double()).square().sum(-1)
    assert torch.equal(indices, exact.argmin(-1))
    torch.testing.assert_close(distances.double(), exact.amin(-1), rtol=1e-5, atol=0)


def _far_from_the_origin(tokens, prototypes):
    return 100 + 1e-3 * tokens, 100 + 1e-2 * prototypes


def _twins(tokens, prototypes):
    half = prototypes.shape[1] // 2
    prototypes[:, half:] = prototypes[:, :half]
    return prototypes.transpose(0, 1)[half // 4 :].clone(), prototypes  # at distance 0 of two


def _not_finite(tokens, prototypes):
    k = prototypes.shape[1]
    prototypes[0, k * 3 // 4, 3], prototypes[1, k - 1, 0], tokens[2, 2, 5] = torch.nan, torch.inf, -torch.inf
    return tokens, prototypes


def _overflowing(tokens, prototypes):
    prototypes[:, 1::2] *= 1e19
    return tokens * 1e18, prototypes * 1e18


def _shortcuts() -> int:
    kernels = _library.loaded("_C_cpu")
    return kernels.shortcuts() if kernels else 0


@pytest.mark.parametrize("k", [200, 14])
@pytest.mark.parametrize("change", [_far_from_the_origin, _twins, _not_finite, _overflowing])
def test_a_token_in_a_batch_chooses_as_alone(backend, change, k):
    """Where many tokens meet many prototypes, a kernel may screen them first: the choice and its bits stay the same."""
    tokens, prototypes = change(torch.randn(170, 6, 33), torch.randn(6, k, 33))
    with running(backend) as name:
        before = _shortcuts()
        together = ppl_fast.memory_attention(tokens, prototypes, backend=name)
        screened = _shortcuts()
        alone = [ppl_fast.memory_attention(token, prototypes, backend=name) for token in tokens.split(1)]
    assert (screened - before, _shortcuts() - screened) == (int(name == "cpp"), 0)
    for batch, single in zip(together, map(torch.cat, zip(*alone, strict=True)), strict=True):
        torch.testing.assert_close(batch, single, rtol=0, atol=0, equal_nan=True)


def test_soft_mode_survives_extreme_temperatures(backend):
    tokens, prototypes = torch.randn(5, 2, 16), torch.randn(2, 130, 16)
    with running(backend) as name:
        hard, indices, _ = ppl_fast.memory_attention(tokens, prototypes, backend=name)
        cold, cold_indices, _ = ppl_fast.memory_attention(tokens, prototypes, 1e-6, backend=name)
        hot, _, _ = ppl_fast.memory_attention(tokens, prototypes, 1e9, backend=name)
    assert torch.equal(indices, cold_indices)
    torch.testing.assert_close(cold, hard)
    torch.testing.assert_close(hot, prototypes.mean(1).expand(5, 2, 16), rtol=1e-4, atol=1e-5)


def test_no_batch_by_prototypes_matrix():
    """At k = 4,096 nothing of size B x m x k is allocated, in either mode, forward or backward."""
    b, m, k, d = 64, 8, 4096, 16
    tokens, prototypes = torch.randn(b, m, d, requires_grad=True), torch.randn(m, k, d)
    for temperature in (None, 4.0):
        with torch.profiler.profile(profile_memory=True) as profile:
            values, _, distances = ppl_fast.memory_attention(tokens, prototypes, temperature, backend="cpp")
            (values.sum() + distances.sum()).backward()
        largest = max(event.cpu_memory_usage for event in profile.key_averages())
        assert b * m * d * 4 <= largest < b * m * k * 4 / 4


def test_a_gradient_that_is_mostly_zero():
    """What the memory held before does not show."""
    tokens, prototypes = torch.randn(16, 2, 512, requires_grad=True), torch.randn(2, 2048, 512, requires_grad=True)
    name = "cpp" if _library.loaded("_C_cpu") else "reference"
    values, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend=name)
    for _ in range(2):
        torch.full_like(prototypes, torch.nan)  # free again: the next tensor of its size may lie there
        grad_tokens, grad = torch.autograd.grad(
            (values.sum(), distances.sum()), (tokens, prototypes), retain_graph=True
        )
        expected, along = torch.zeros_like(prototypes), 2 * (tokens - values).detach()
        expected.index_put_((torch.arange(2), indices), -along, accumulate=True)
        torch.testing.assert_close(grad, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grad_tokens, along + 1, rtol=1e-5, atol=1e-5)


def test_prototype_sums_count_and_sum(backend):
    tokens, indices = torch.randn(40, 3, 5), torch.randint(4, (40, 3))
    indices[:, 1] = 2
    with running(backend) as name:
        counts, sums = ppl_fast.prototype_sums(tokens, indices, 4, backend=name)
    for bank in range(3):
        for j in range(4):
            chosen = tokens[indices[:, bank] == j, bank]
            assert counts[bank, j] == len(chosen)
            torch.testing.assert_close(sums[bank, j], chosen.sum(0), rtol=1e-5, atol=1e-5)
    assert counts.dtype == sums.dtype == torch.float32
    assert not sums.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_prototype_sums_take_half_types_in_float32(backend, dtype):
    tokens = torch.ones(600, 1, 3, dtype=dtype)
    with running(backend) as name:
        counts, sums = ppl_fast.prototype_sums(tokens, torch.zeros(600, 1, dtype=torch.long), 2, backend=name)
    assert counts.tolist() == [[600.0, 0.0]]
    assert sums[0, 0].tolist() == [600.0] * 3  # 600 ones in bfloat16 would stop at 256
    assert sums.dtype == torch.promote_types(dtype, torch.float32)
