"""Inputs of prototype_sums, which is not differentiable."""

from collections.abc import Callable

import torch

from . import Case, set_at, with_changes


def random_choices(b, m, k, d) -> Callable[[torch.Generator], dict]:
    """Normal tokens, each of which chose some prototype."""

    def make(g):
        tokens = torch.randn(b, m, d, generator=g, dtype=torch.float64)
        return {"tokens": tokens, "indices": torch.randint(k, (b, m), generator=g), "k": k}

    return make


CASES = [
    Case("published-like", random_choices(9, 5, 16, 64)),
    Case("odd-sizes", random_choices(5, 3, 7, 13)),
    Case("one-of-each", random_choices(1, 1, 1, 1)),
    Case("many-prototypes", random_choices(18, 2, 150, 33)),
    Case("collapsed", with_changes(random_choices(70, 2, 9, 5), indices=lambda a: a["indices"] * 0 + 4)),
    Case("no-samples", random_choices(0, 3, 4, 8)),
    Case("no-banks", random_choices(3, 0, 4, 8)),
    Case("nan-token", with_changes(random_choices(4, 2, 5, 9), tokens=set_at("tokens", (1, 0, 3), torch.nan))),
]
MEDIUM = random_choices(4, 3, 5, 6)
SIZES = [random_choices(64, 34, 16, d) for d in (512, 33)]
ONES = [random_choices(1, 1, 1, 1)]
TRITON_LAUNCHES = ["prototype_sums_kernel"], []
CUDA_SHAPES = [random_choices(2, 1, 5, 4)]
CUDA_LAUNCHES = 1, 0
