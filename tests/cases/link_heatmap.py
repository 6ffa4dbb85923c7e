"""Inputs of link_heatmap."""

from collections.abc import Callable

import torch
from torch.nn.functional import softplus

from . import Case, set_at, with_changes


def random_links(b, n, size, thickness, *, shared=True, spread=1.1) -> Callable[[torch.Generator], dict]:
    """Keypoints uniform in [-spread, spread], weights as at the start of training."""

    def make(g):
        e = n * (n - 1) // 2
        keypoints = (torch.rand(b, n, 2, generator=g, dtype=torch.float64) * 2 - 1) * spread
        weights = softplus(torch.randn((e,) if shared else (b, e), generator=g, dtype=torch.float64) - 4)
        return {"keypoints": keypoints, "weights": weights, "size": size, "thickness": thickness}

    return make


_PAIRS = torch.tensor([[0, 1], [0, 1], [2, 1], [2, 3], [2, 3], [3, 3]])  # two links twice, one of zero length
_SIX = torch.tensor([0.5, 0.5, 0.4, 0.3, 0.3, 0.2], dtype=torch.float64)

CASES = [
    Case("square", random_links(2, 8, 64, 1e-3)),
    Case("wide", random_links(2, 6, (24, 53), 1e-2)),
    Case("tall-odd", random_links(1, 7, (67, 9), 1e-3)),
    Case("one-pixel", random_links(2, 3, 1, 0.5)),
    Case("one-row", random_links(1, 4, (1, 40), 0.1)),
    Case("thin", random_links(1, 10, 64, 7.5e-5)),
    Case("thick", random_links(1, 5, 33, 10.0)),
    Case("thick-many-links", random_links(1, 16, (18, 21), 10.0)),  # nearly all of which may win any pixel
    Case("many-links", random_links(1, 24, 40, 1e-3)),
    Case("weights-per-sample", random_links(3, 6, 32, 1e-3, shared=False)),
    Case("outside", random_links(2, 5, 32, 1e-2, spread=3.0)),
    Case("dark", with_changes(random_links(1, 4, 32, 1e-4), keypoints=lambda a: a["keypoints"] + 40)),
    Case("ties", with_changes(random_links(2, 4, 32, 1e-2), links=_PAIRS, weights=_SIX)),
    Case(
        "points", with_changes(random_links(2, 5, 32, 1e-2), keypoints=lambda a: a["keypoints"][:, :1].expand(2, 5, 2))
    ),
    Case("tiny-links", with_changes(random_links(2, 5, 32, 1e-2), keypoints=lambda a: 1e-21 * a["keypoints"])),
    Case("zero-weights", with_changes(random_links(2, 5, 32, 1e-2), weights=set_at("weights", slice(0, None, 2), 0.0))),
    Case(
        "negative-weights",
        with_changes(random_links(2, 5, 32, 1e-2), weights=set_at("weights", slice(0, None, 3), -1.0)),
    ),
    Case("all-weights-zero", with_changes(random_links(1, 4, 16, 1e-2), weights=lambda a: a["weights"] * 0)),
    Case("all-weights-negative", with_changes(random_links(1, 4, 16, 1e-2), weights=lambda a: -a["weights"])),
    Case("no-links", random_links(2, 1, 8, 1e-2)),
    Case("no-keypoints", random_links(2, 0, 8, 1e-2)),
    Case("no-samples", random_links(0, 4, 8, 1e-2)),
    Case(
        "nan-keypoint", with_changes(random_links(3, 4, 16, 1e-2), keypoints=set_at("keypoints", (1, 2, 0), torch.nan))
    ),
    Case(
        "inf-keypoint", with_changes(random_links(3, 4, 16, 1e-2), keypoints=set_at("keypoints", (2, 0, 1), -torch.inf))
    ),
    Case(
        "no-links-nan-keypoint",
        with_changes(
            random_links(3, 4, 16, 1e-2),
            keypoints=set_at("keypoints", (1, 2, 0), torch.nan),
            links=torch.empty(0, 2, dtype=torch.long),
            weights=torch.empty(0, dtype=torch.float64),
        ),
    ),
    Case(
        "nan-weight",
        with_changes(random_links(2, 4, 16, 1e-2, shared=False), weights=set_at("weights", (0, 5), torch.nan)),
    ),
]

# What chooses every block size that the Triton kernels use, and sizes of 1, which Triton takes as constants.
SIZES = [random_links(64, n, 128, 1e-3) for n in (16, 32, 64)]  # 120, 496 and 2016 links
ONES = [random_links(1, 2, 1, 1e-3, shared=False)]
MEDIUM = SMOOTH = random_links(3, 6, (20, 28), 1e-2)
TRITON_LAUNCHES = (
    ["link_heatmap_table_kernel", "link_heatmap_fwd_kernel"],
    ["link_heatmap_bwd_kernel", "link_heatmap_bwd_links_kernel", "link_heatmap_bwd_keypoints_kernel"],
)
CUDA_SHAPES = [random_links(1, 16, 8, 0.1), random_links(1, 24, 8, 0.1)]  # 120 links, and 276
CUDA_LAUNCHES = 1, 2  # the second kernel of the backward adds up partial sums
