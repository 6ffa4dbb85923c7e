"""Inputs of the operators' tests and benchmarks, and the tolerances that hold by dtype, with their reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

# Largest error over largest value of an array, against the float64 reference on the same (already rounded) inputs.
# float64: some ten operations, and d^2 / thickness magnifies rounding by up to 1e4 relative to the exponent.
# float32: the same magnification, 1e4 * 6e-8 * (a few), at the thinnest links; 1e-6 at ordinary ones.
# float16, bfloat16: the result is rounded once, 2^-11 and 2^-8, on top of float32's error.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@dataclass(frozen=True)
class Case:
    """One input: `make(generator)` returns float64 tensors and keyword arguments of an operator."""

    name: str
    make: Callable[[torch.Generator], dict]

    def inputs(self, dtype=torch.float64, device="cpu", seed=0) -> dict:
        """Return the arguments with floating-point tensors rounded to `dtype`."""
        arguments = self.make(torch.Generator().manual_seed(seed))
        return {
            name: value.to(device, dtype if value.is_floating_point() else None)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in arguments.items()
        }


def random_links(b, n, size, thickness, *, shared=True, spread=1.1) -> Callable[[torch.Generator], dict]:
    """Keypoints uniform in [-spread, spread], weights as at the start of training."""

    def make(g):
        e = n * (n - 1) // 2
        keypoints = (torch.rand(b, n, 2, generator=g, dtype=torch.float64) * 2 - 1) * spread
        weights = softplus(torch.randn((e,) if shared else (b, e), generator=g, dtype=torch.float64) - 4)
        return {"keypoints": keypoints, "weights": weights, "size": size, "thickness": thickness}

    return make


def _with(make, **changes):
    def made(g):
        arguments = make(g)
        for name, change in changes.items():
            arguments[name] = change(arguments) if callable(change) else change
        return arguments

    return made


def _set(name, index, value):
    def change(arguments):
        changed = arguments[name].clone()
        changed[index] = value
        return changed

    return change


_PAIRS = torch.tensor([[0, 1], [0, 1], [2, 1], [2, 3], [2, 3], [3, 3]])  # two links twice, one of zero length
_SIX = torch.tensor([0.5, 0.5, 0.4, 0.3, 0.3, 0.2], dtype=torch.float64)

LINK_HEATMAP = [
    Case("square", random_links(2, 8, 64, 1e-3)),
    Case("wide", random_links(2, 6, (24, 53), 1e-2)),
    Case("tall-odd", random_links(1, 7, (67, 9), 1e-3)),
    Case("one-pixel", random_links(2, 3, 1, 0.5)),
    Case("one-row", random_links(1, 4, (1, 40), 0.1)),
    Case("thin", random_links(1, 10, 64, 7.5e-5)),
    Case("thick", random_links(1, 5, 33, 10.0)),
    Case("many-links", random_links(1, 24, 40, 1e-3)),
    Case("weights-per-sample", random_links(3, 6, 32, 1e-3, shared=False)),
    Case("outside", random_links(2, 5, 32, 1e-2, spread=3.0)),
    Case("dark", _with(random_links(1, 4, 32, 1e-4), keypoints=lambda a: a["keypoints"] + 40)),
    Case("ties", _with(random_links(2, 4, 32, 1e-2), links=_PAIRS, weights=_SIX)),
    Case("points", _with(random_links(2, 5, 32, 1e-2), keypoints=lambda a: a["keypoints"][:, :1].expand(2, 5, 2))),
    Case("tiny-links", _with(random_links(2, 5, 32, 1e-2), keypoints=lambda a: 1e-21 * a["keypoints"])),
    Case("zero-weights", _with(random_links(2, 5, 32, 1e-2), weights=_set("weights", slice(0, None, 2), 0.0))),
    Case("negative-weights", _with(random_links(2, 5, 32, 1e-2), weights=_set("weights", slice(0, None, 3), -1.0))),
    Case("all-weights-zero", _with(random_links(1, 4, 16, 1e-2), weights=lambda a: a["weights"] * 0)),
    Case("all-weights-negative", _with(random_links(1, 4, 16, 1e-2), weights=lambda a: -a["weights"])),
    Case("no-links", random_links(2, 1, 8, 1e-2)),
    Case("no-keypoints", random_links(2, 0, 8, 1e-2)),
    Case("no-samples", random_links(0, 4, 8, 1e-2)),
    Case("nan-keypoint", _with(random_links(3, 4, 16, 1e-2), keypoints=_set("keypoints", (1, 2, 0), torch.nan))),
    Case("inf-keypoint", _with(random_links(3, 4, 16, 1e-2), keypoints=_set("keypoints", (2, 0, 1), -torch.inf))),
    Case(
        "no-links-nan-keypoint",
        _with(
            random_links(3, 4, 16, 1e-2),
            keypoints=_set("keypoints", (1, 2, 0), torch.nan),
            links=torch.empty(0, 2, dtype=torch.long),
            weights=torch.empty(0, dtype=torch.float64),
        ),
    ),
    Case("nan-weight", _with(random_links(2, 4, 16, 1e-2, shared=False), weights=_set("weights", (0, 5), torch.nan))),
]


def random_tokens(b, m, k, d, temperature=None) -> Callable[[torch.Generator], dict]:
    """Tokens and prototypes from one normal distribution."""

    def make(g):
        return {
            "tokens": torch.randn(b, m, d, generator=g, dtype=torch.float64),
            "prototypes": torch.randn(m, k, d, generator=g, dtype=torch.float64),
            "temperature": temperature,
        }

    return make


def _twin_prototypes(arguments):
    prototypes = arguments["prototypes"].clone()
    prototypes[:, 4:] = prototypes[:, :4]  # every prototype twice: the lower index must be chosen
    return prototypes


MEMORY_ATTENTION = [
    Case("published-like", random_tokens(9, 5, 16, 64)),
    Case("odd-sizes", random_tokens(5, 3, 7, 13)),
    Case("one-of-each", random_tokens(1, 1, 1, 1)),
    Case("many-prototypes", random_tokens(18, 2, 150, 33)),
    Case("ties", _with(random_tokens(6, 3, 8, 20), prototypes=_twin_prototypes)),
    Case("no-samples", random_tokens(0, 3, 4, 8)),
    Case("no-banks", random_tokens(3, 0, 4, 8)),
    Case("nan-token", _with(random_tokens(4, 2, 5, 9), tokens=_set("tokens", (1, 0, 3), torch.nan))),
    Case("soft", random_tokens(9, 5, 16, 64, temperature=40.0)),
    Case("soft-odd-sizes", random_tokens(5, 3, 7, 13, temperature=2.0)),
    Case("soft-many-prototypes", random_tokens(18, 2, 150, 33, temperature=5.0)),
    Case("soft-cold", random_tokens(5, 2, 70, 16, temperature=1e-2)),
    Case("soft-no-samples", random_tokens(0, 3, 4, 8, temperature=1.0)),
]


def random_warp(b, n, shared) -> Callable[[torch.Generator], dict]:
    """Keypoints in [-1, 1] and maps around the identity."""

    def make(g):
        keypoints = torch.rand((n, 2) if shared else (b, n, 2), generator=g, dtype=torch.float64) * 2 - 1
        affine = torch.eye(2, 3, dtype=torch.float64) + 0.3 * torch.randn(b, n, 2, 3, generator=g, dtype=torch.float64)
        return {"keypoints": keypoints, "affine": affine}

    return make


AFFINE_WARP = [
    Case("shared", random_warp(7, 5, True)),
    Case("own", random_warp(7, 5, False)),
    Case("one", random_warp(1, 1, True)),
    Case("large", random_warp(65, 130, True)),
    Case("no-samples", random_warp(0, 5, True)),
    Case("no-keypoints", random_warp(4, 0, False)),
]
