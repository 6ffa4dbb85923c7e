"""What the operators' small examples are drawn with."""

import torch


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """float64 numbers of mean 0 and variance 1."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)
