"""ppl_fast: the Pose Prior Learner (PPL, ICLR 2026, arXiv 2410.03858) in PyTorch, on fused kernels with autograd.

Everywhere, keypoints are (x, y), x to the right, y down, with -1 and +1 at the centres of the first and the last
pixel (`align_corners=True`).
"""

from importlib import import_module

from ppl_fast._backend import use_backend
from ppl_fast.models import (
    PPL,
    AutoLink,
    AutoLinkOutput,
    ExtendedAutoLink,
    ExtendedPPL,
    KeypointModel,
    PPLOutput,
    Prior,
)
from ppl_fast.ops import affine_warp, default_links, link_heatmap, memory_attention, prototype_sums

__version__ = "0.1.0"

# `PPL.from_published` and the like: read only when asked for, and above the models, which know nothing of it.
KeypointModel.published = staticmethod(lambda: import_module("ppl_fast.published"))

__all__ = [
    "PPL",
    "AutoLink",
    "AutoLinkOutput",
    "ExtendedAutoLink",
    "ExtendedPPL",
    "KeypointModel",
    "PPLOutput",
    "Prior",
    "affine_warp",
    "default_links",
    "link_heatmap",
    "memory_attention",
    "prototype_sums",
    "use_backend",
]
