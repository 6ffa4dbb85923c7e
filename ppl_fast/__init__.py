"""ppl_fast: the Pose Prior Learner (PPL, ICLR 2026, arXiv 2410.03858) in PyTorch, on fused kernels with autograd.

Everywhere, keypoints are (x, y), x to the right, y down, with -1 and +1 at the centres of the first and the last
pixel (`align_corners=True`).
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

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
    "bilinear_upsample2x",
    "default_links",
    "link_heatmap",
    "memory_attention",
    "optimize",
    "prototype_sums",
    "use_backend",
]

if TYPE_CHECKING:
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
        optimize,
    )
    from ppl_fast.ops.affine_warp import affine_warp
    from ppl_fast.ops.bilinear_upsample2x import bilinear_upsample2x
    from ppl_fast.ops.link_heatmap import default_links, link_heatmap
    from ppl_fast.ops.memory_attention import memory_attention, prototype_sums
else:

    def __getattr__(name: str) -> Any:
        """A public name, imported when it is first used: the command line shows its help without torch."""
        if name in ("models", "ops"):
            return import_module(f"ppl_fast.{name}")
        if name not in __all__:
            raise AttributeError(f"module 'ppl_fast' has no attribute {name!r}")
        home = {"use_backend": "_backend", "optimize": "models"}.get(name, "ops" if name.islower() else "models")
        found = globals()[name] = getattr(import_module(f"ppl_fast.{home}"), name)
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "models", "ops"})


if "torch" in sys.modules:  # `torch.ops.ppl_fast` is there at once; otherwise with the first name, or ppl_fast.ops
    import_module("ppl_fast.ops")
