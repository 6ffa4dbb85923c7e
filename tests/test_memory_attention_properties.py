"""memory_attention and prototype_sums on small integers, which every dtype sums exactly: ties and twins abound."""

import pytest
import torch
from properties import BACKENDS, given, st, suffix_of


@st.composite
def memories(draw):
    """(tokens (B, m, d), prototypes (m, k, d)) of integers, float64; some prototypes stand in their bank twice."""
    b, m, d = draw(st.integers(0, 20)), draw(st.integers(1, 3)), draw(st.integers(1, 20))
    k = draw(st.one_of(st.integers(1, 40), st.just(600)))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    high = draw(st.integers(0, 1))
    tokens, prototypes = (torch.randint(-1, high + 1, (*shape, d), generator=g) for shape in ((b, m), (m, k)))
    copies = draw(st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), max_size=4))
    for source, target in copies:
        prototypes[:, target] = prototypes[:, source]
    return tokens.double(), prototypes.double()


@pytest.mark.parametrize("backend", BACKENDS)
@given(memory=memories(), dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]))
def test_the_first_of_the_nearest_is_chosen(backend, memory, dtype):
    tokens, prototypes = memory
    squared = (tokens.unsqueeze(2) - prototypes).square().sum(-1)  # (B, m, k), exact
    nearest = squared.amin(-1)
    first = (squared == nearest.unsqueeze(-1)).to(torch.uint8).argmax(-1)
    with suffix_of(backend) as suffix:
        operator = getattr(torch.ops.ppl_fast, f"memory_attention{suffix}")
        values, indices, distances, _ = operator(tokens.to(dtype), prototypes.to(dtype), None)
        k = prototypes.shape[1]
        counts, sums = getattr(torch.ops.ppl_fast, f"prototype_sums{suffix}")(tokens.to(dtype), indices, k)
    assert torch.equal(indices, first)
    assert torch.equal(distances.double(), nearest)
    assert torch.equal(values.double(), prototypes[torch.arange(tokens.shape[1]), first])
    chosen = torch.nn.functional.one_hot(first, k).double()  # (B, m, k)
    assert torch.equal(counts.double(), chosen.sum(0))
    assert torch.equal(sums.double(), torch.einsum("bmk,bmd->mkd", chosen, tokens))
