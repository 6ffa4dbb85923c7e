"""What the CUDA kernels claim of the gradients of memory_attention's soft mode on tensor cores, run by the emulator."""

import contextlib

import cuda_emulator
import pytest
import torch
from op_tester import assert_close, evaluate, poisoned_memory

pytestmark = pytest.mark.skipif(cuda_emulator.reason_against() is not None, reason=str(cuda_emulator.reason_against()))


@pytest.fixture(params=cuda_emulator.kinds())
def library(request):
    with cuda_emulator.emulation(kind=request.param) as loaded:
        yield loaded


def soft_gradients(tokens, prototypes, temperature, backend, dtype=torch.float32):
    inputs = {"tokens": tokens.to(dtype), "prototypes": prototypes.to(dtype), "temperature": temperature}
    return evaluate("memory_attention", inputs, backend)[1]


def errors_of_gradients(tokens, prototypes, temperature) -> tuple[list[float], list[float]]:
    """Of tokens and prototypes, relative to the largest in float64: on tensor cores, and by differences, which is what
    16 tokens at a time are taken by."""
    g = torch.Generator().manual_seed(1)
    upstream = [torch.randn(tokens.shape, generator=g), torch.randn(tokens.shape[:2], generator=g)]

    def gradients(backend, dtype, chunk):
        found = []
        for part in range(0, len(tokens), chunk):
            t, *given = (x[part : part + chunk].to(dtype) for x in (tokens, *upstream))
            inputs = {"tokens": t, "prototypes": prototypes.to(dtype), "temperature": temperature}
            found.append(evaluate("memory_attention", inputs, backend, given)[1])
        return torch.cat([of_tokens for of_tokens, _ in found]), sum(of_prototypes for _, of_prototypes in found)

    exact = gradients("reference", torch.float64, len(tokens))
    return tuple(
        [((x - e).abs().max() / e.abs().max()).item() for x, e in zip(found, exact, strict=True)]
        for found in (gradients("emulated", torch.float32, len(tokens)), gradients("emulated", torch.float32, 16))
    )


# Where few blocks are enough, the second takes two turns.
GRADIENTS = [(17, 256, 3, 1e-300), (66, 270, 37, 5.0), (18, 300, 48, 0.02), (20, 256, 64, 1e3), (17, 640, 4, 1e-6)]


@pytest.mark.parametrize(
    "few", [contextlib.nullcontext, pytest.param(cuda_emulator.few_blocks, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("b", "k", "d", "temperature"), [GRADIENTS[0], *(pytest.param(*g, marks=pytest.mark.slow) for g in GRADIENTS[1:])]
)
def test_tensor_cores_take_the_backward_of_soft_mode(b, k, d, temperature, few, library):
    """Five launches a turn, whose gradients are as exact as those of differences, but for what products leave.

    That is 2^-22 (|t'|^2 + |p'|^2) of a distance, seen from the bank's first prototype, and of a weight that over the
    temperature. Where it is colder yet, the nearest alone has a weight, and distances are differences.
    """
    tokens, prototypes = torch.randn(b, 1, d), torch.randn(1, k, d)
    norms = [(x - prototypes[:, :1]).square().sum(-1).max().item() for x in (tokens, prototypes)]
    left = 2.0**-22 * sum(norms) / temperature if temperature > 1e-3 else 0.0
    with few(library):
        before = library.cuda_emulator_launches()
        with poisoned_memory():
            soft_gradients(tokens, prototypes, temperature, "emulated")
        turns = 2 if few is cuda_emulator.few_blocks and b > 64 else 1
        assert library.cuda_emulator_launches() == before + 2 + 5 * turns
        error, of_differences = errors_of_gradients(tokens, prototypes, temperature)
    assert all(e <= 2 * o + 3e-7 + left for e, o in zip(error, of_differences, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("b", "d"), [(70, 3), (72, 128)], ids=["odd-sizes", "whole-tiles"])
def test_differences_take_turns(b, d, library):
    """The pairs of 64 tokens and a bank at a time, where few blocks are enough: two turns of each bank."""
    tokens, prototypes, found = torch.randn(b, 2, d), torch.randn(2, 240, d), []
    for few, turns in ((contextlib.nullcontext, 1), (cuda_emulator.few_blocks, 4)):
        with few(library), poisoned_memory():
            before = library.cuda_emulator_launches()
            found.append(soft_gradients(tokens, prototypes, 5.0, "emulated"))
            assert library.cuda_emulator_launches() == before + 1 + 2 * turns
    of_tokens, of_prototypes = zip(*found, strict=True)
    assert torch.equal(*of_tokens)
    torch.testing.assert_close(*of_prototypes, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 10], ids=["among", "apart"])
def test_gradients_of_near_ties_are_nearer_to_float64_than_those_of_differences(first, library):
    """As in the forward; products are relative to a prototype that lies among those that matter."""
    prototypes = 100 + 1e-2 * torch.randn(1, 270, 64)
    tokens = (prototypes[0, :50] + 1e-3 * torch.randn(50, 64)).unsqueeze(1)
    prototypes[0, 0] += first
    error, of_differences = errors_of_gradients(tokens, prototypes, 5e-3)
    assert all(e < o for e, o in zip(error, of_differences, strict=True))


def test_gradients_on_tensor_cores_are_no_number_where_those_of_the_reference_are_none(library):
    """A token with NaN, one that lies infinitely far from all, and prototypes that lie infinitely far, each in a bank
    of its own: of those the last leaves gradients."""
    tokens, prototypes = torch.randn(18, 3, 8), torch.randn(3, 256, 8)
    tokens[3, 0, 4], tokens[4, 1], prototypes[2, :128] = torch.nan, 1e32, prototypes[2, :128] * 1e30
    found, expected = (soft_gradients(tokens, prototypes, 5.0, backend) for backend in ("emulated", "reference"))
    for name, actual, exact in zip(("tokens", "prototypes"), found, expected, strict=True):
        assert_close(name, actual, exact, 1e-5)
    assert found[1][:2].isnan().all() and found[1][2].isfinite().all() and found[0].isnan().sum() == 2 * 8


@pytest.mark.slow
@pytest.mark.parametrize("few", [contextlib.nullcontext, cuda_emulator.few_blocks], ids=["a-step", "all-steps"])
@pytest.mark.parametrize("d", [37, 48])
def test_threads_of_the_backward_on_tensor_cores_do_not_race(d, few):
    """As in the forward: every bit stays the same."""
    tokens, prototypes, found = torch.randn(66, 1, d), torch.randn(1, 300, d), []
    tokens[0] = prototypes[0, 7]
    for order, kind in (("interleaved", "watched"), ("forwards", "plain"), ("shuffled", "plain")):
        with cuda_emulator.emulation(order, kind) as library, poisoned_memory(), few(library):
            found.append(soft_gradients(tokens, prototypes, 5.0, "emulated"))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
