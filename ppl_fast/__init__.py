"""ppl_fast: the Pose Prior Learner (PPL, ICLR 2026, arXiv 2410.03858) in PyTorch, on fused kernels with autograd.

Everywhere, keypoints are (x, y), x to the right, y down, with -1 and +1 at the centres of the first and the last
pixel (``align_corners=True``).
"""

from ppl_fast._backend import use_backend
from ppl_fast.models import PPL, AutoLink, AutoLinkOutput, PPLOutput, Prior
from ppl_fast.ops import affine_warp, default_links, link_heatmap, memory_attention, prototype_sums

__version__ = "0.1.0"

__all__ = [
    "PPL",
    "AutoLink",
    "AutoLinkOutput",
    "PPLOutput",
    "Prior",
    "affine_warp",
    "default_links",
    "link_heatmap",
    "memory_attention",
    "prototype_sums",
    "use_backend",
]
