"""Inputs of memory_attention."""

from collections.abc import Callable

import torch

from . import Case, set_at, with_changes


def random_tokens(b, m, k, d, temperature=None) -> Callable[[torch.Generator], dict]:
    """Tokens and prototypes from one normal distribution."""

    def make(g):
        return {
            "tokens": torch.randn(b, m, d, generator=g, dtype=torch.float64),
            "prototypes": torch.randn(m, k, d, generator=g, dtype=torch.float64),
            "temperature": temperature,
        }

    return make


def _too_far_to_square(arguments):
    prototypes = arguments["prototypes"].clone()
    prototypes[:, :64] *= 1e30  # infinitely far in float32, so of no weight: all that a kernel takes first
    return prototypes


def _twin_prototypes(arguments):
    prototypes = arguments["prototypes"].clone()
    prototypes[:, 4:] = prototypes[:, :4]  # every prototype twice: the lower index must be chosen
    return prototypes


CASES = [
    Case("published-like", random_tokens(9, 5, 16, 64)),
    Case("odd-sizes", random_tokens(5, 3, 7, 13)),
    Case("one-of-each", random_tokens(1, 1, 1, 1)),
    Case("many-prototypes", random_tokens(18, 2, 150, 33)),
    Case("ties", with_changes(random_tokens(6, 3, 8, 20), prototypes=_twin_prototypes)),
    Case("no-samples", random_tokens(0, 3, 4, 8)),
    Case("no-banks", random_tokens(3, 0, 4, 8)),
    Case("nan-token", with_changes(random_tokens(4, 2, 5, 9), tokens=set_at("tokens", (1, 0, 3), torch.nan))),
    Case("soft", random_tokens(9, 5, 16, 64, temperature=40.0)),
    Case("soft-odd-sizes", random_tokens(5, 3, 7, 13, temperature=2.0)),
    Case("soft-many-prototypes", random_tokens(18, 2, 150, 33, temperature=5.0)),
    Case("soft-many-tokens-and-prototypes", random_tokens(18, 2, 270, 20, temperature=5.0)),  # tensor cores take it
    Case("soft-whole-tiles", random_tokens(8, 1, 32, 128, temperature=40.0)),
    Case("soft-far", with_changes(random_tokens(5, 2, 70, 16, 5.0), prototypes=_too_far_to_square)),
    Case("soft-cold", random_tokens(5, 2, 70, 16, temperature=1e-2)),
    *(
        Case(f"soft-{name}", random_tokens(5, 2, k, 16, temperature=temperature))
        for name, k, temperature in (("colder", 70, 1e-6), ("coldest", 9, 1e-30), ("frozen", 5, 1e-300))
    ),
    Case("soft-frozen-ties", with_changes(random_tokens(6, 3, 8, 20, temperature=1e-12), prototypes=_twin_prototypes)),
    Case("soft-hottest", random_tokens(5, 2, 7, 16, temperature=1e60)),
    Case("soft-nan-token", with_changes(random_tokens(4, 2, 5, 9, 2.0), tokens=set_at("tokens", (1, 0, 3), torch.nan))),
    Case("soft-no-samples", random_tokens(0, 3, 4, 8, temperature=1.0)),
]

SIZES = [random_tokens(64, 34, 16, d, temperature) for temperature, d in ((None, 512), (1.0, 512), (1.0, 33))]
ONES = [random_tokens(1, 1, 1, 1, temperature) for temperature in (None, 1.0)]
MEDIUM = random_tokens(4, 3, 5, 6)
SMOOTH = random_tokens(4, 3, 5, 6, temperature=2.0)  # hard values pass their gradient straight through
TRITON_LAUNCHES = ["memory_attention_fwd_kernel"], ["memory_attention_bwd_hard_kernel", "prototype_sums_kernel"]
CUDA_SHAPES = [
    random_tokens(b, 1, k, d, temperature)
    for b, k, d, temperature in (
        (2, 16, 4, None),
        (2, 130, 4, None),
        (17, 300, 4, None),
        (17, 1024, 4, None),
        (2, 5, 4, 1.0),
        (8, 16, 128, 1.0),
        (17, 256, 4, 1.0),
    )
]
CUDA_LAUNCHES = 1, 2  # the second kernel of the backward sums the prototypes' gradients
