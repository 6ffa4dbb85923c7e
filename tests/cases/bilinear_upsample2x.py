"""Inputs of bilinear_upsample2x."""

from collections.abc import Callable

import torch

from . import Case, set_at, with_changes


def random_maps(b, c, h, w, last=True) -> Callable[[torch.Generator], dict]:
    """Normal numbers, channels last or contiguous."""

    def make(g):
        maps = torch.randn(b, c, h, w, generator=g, dtype=torch.float64)
        return {"maps": maps.contiguous(memory_format=torch.channels_last) if last else maps}

    return make


CASES = [
    Case("channels-last", random_maps(2, 8, 9, 4)),  # more rows than a thread on a GPU walks
    Case("contiguous", random_maps(2, 1, 9, 5, last=False)),
    Case("wide-contiguous", random_maps(1, 1, 3, 70, last=False)),  # several vectors of columns
    Case("odd-channels", random_maps(2, 7, 3, 10)),
    Case("several-blocks", random_maps(1, 40, 3, 35)),
    Case("one-cell", random_maps(2, 3, 1, 1)),
    Case("one-row", random_maps(1, 8, 1, 5)),
    Case("one-column", random_maps(1, 2, 5, 1, last=False)),
    Case("some-channels", with_changes(random_maps(2, 24, 2, 2), maps=lambda a: a["maps"][:, 1:9])),
    Case("no-samples", random_maps(0, 4, 3, 5)),
    Case("nan", with_changes(random_maps(1, 5, 4, 7), maps=set_at("maps", (0, 2, 2, 4), torch.nan))),
    Case("nan-beside-a-corner", with_changes(random_maps(1, 4, 3, 4), maps=set_at("maps", (0, 2, 1, 1), torch.nan))),
    Case(
        "nan-contiguous",
        with_changes(random_maps(1, 2, 3, 40, last=False), maps=set_at("maps", (0, 1, 1, 1), torch.nan)),
    ),
]
SIZES = [random_maps(64, 256, 64, 64), random_maps(64, 4, 32, 32, last=False)]
ONES = [random_maps(1, 1, 1, 1)]
MEDIUM = SMOOTH = random_maps(2, 4, 3, 5)
TRITON_LAUNCHES = ["bilinear_upsample2x_fwd_kernel"], ["bilinear_upsample2x_bwd_kernel"]
CUDA_SHAPES = [random_maps(1, 4, 3, 2), random_maps(1, 3, 3, 2), random_maps(1, 3, 3, 2, last=False)]
CUDA_LAUNCHES = 1, 1
