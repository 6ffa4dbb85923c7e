"""What the CUDA kernel of memory_attention's sums over tokens claims for itself, run by the emulator."""

import contextlib

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


@pytest.mark.parametrize("few", [contextlib.nullcontext, cuda_emulator.few_blocks], ids=["shared", "alone"])
def test_sums_of_more_tokens_and_elements_than_a_block_takes_at_once(few, library):
    """More than 256 tokens and 128 elements; blocks share the elements, or have all; most prototypes are of none."""
    tokens, indices = torch.randn(300, 1, 150), torch.randint(9, (300, 1))
    for b in (300, 40):
        arguments = tokens[:b], indices[:b] * 3, 27
        with few(library), poisoned_memory():
            found = ppl_fast.prototype_sums(*arguments, backend="emulated")
            leaf = torch.randn(1, 27, 150, generator=torch.Generator().manual_seed(b)).requires_grad_()
            distances = ppl_fast.memory_attention(tokens[:b], leaf, backend="emulated")[2]
            (gradient,) = torch.autograd.grad(distances.sum(), leaf)
        torch.testing.assert_close(found, ppl_fast.prototype_sums(*arguments, backend="reference"))
        distances = ppl_fast.memory_attention(tokens[:b], leaf, backend="reference")[2]
        torch.testing.assert_close(gradient, torch.autograd.grad(distances.sum(), leaf)[0], rtol=1e-5, atol=1e-4)
