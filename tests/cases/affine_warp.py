"""Inputs of affine_warp."""

from collections.abc import Callable

import torch

from . import Case


def random_warp(b, n, shared) -> Callable[[torch.Generator], dict]:
    """Keypoints in [-1, 1] and maps around the identity."""

    def make(g):
        keypoints = torch.rand((n, 2) if shared else (b, n, 2), generator=g, dtype=torch.float64) * 2 - 1
        affine = torch.eye(2, 3, dtype=torch.float64) + 0.3 * torch.randn(b, n, 2, 3, generator=g, dtype=torch.float64)
        return {"keypoints": keypoints, "affine": affine}

    return make


CASES = [
    Case("shared", random_warp(7, 5, True)),
    Case("own", random_warp(7, 5, False)),
    Case("one", random_warp(1, 1, True)),
    Case("large", random_warp(65, 130, True)),
    Case("many-samples", random_warp(530, 3, True)),  # a CUDA block takes 256 at once
    Case("no-samples", random_warp(0, 5, True)),
    Case("no-keypoints", random_warp(4, 0, False)),
]

SIZES = [random_warp(64, 16, shared) for shared in (True, False)]
ONES = [random_warp(1, 1, shared) for shared in (True, False)]
MEDIUM = SMOOTH = random_warp(3, 4, True)
TRITON_LAUNCHES = ["affine_warp_fwd_kernel"], ["affine_warp_bwd_kernel"]
CUDA_SHAPES = [random_warp(b, 4, shared) for b, shared in ((250, True), (3, False))]
CUDA_LAUNCHES = 1, 1
