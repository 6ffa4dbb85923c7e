"""Triton kernels, one operator in one file or two; installed as ppl_fast.kernels and imported lazily."""

import importlib

_MODULES = {
    "affine_warp": "affine_warp",
    "affine_warp_backward": "affine_warp",
    "link_heatmap": "link_heatmap",
    "link_heatmap_backward": "link_heatmap_backward",
    "memory_attention": "memory_attention",
    "memory_attention_backward": "memory_attention_backward",
    "prototype_sums": "memory_attention",
}


def implementation(op: str):
    """Return the function that computes the operator `op` with Triton, with the arguments of ppl_fast::`op`."""
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[op]}"), op)
