"""The operators: each file holds, in this order, maths, schema, reference, fake, autograd and the public wrapper."""

import importlib
import pkgutil

from ppl_fast.ops.affine_warp import affine_warp
from ppl_fast.ops.bilinear_upsample2x import bilinear_upsample2x
from ppl_fast.ops.link_heatmap import default_links, link_heatmap
from ppl_fast.ops.memory_attention import memory_attention, prototype_sums

__all__ = [
    "affine_warp",
    "bilinear_upsample2x",
    "default_links",
    "link_heatmap",
    "memory_attention",
    "prototype_sums",
]

for _file in pkgutil.iter_modules(__path__):  # an operator enters the registry by its file alone
    importlib.import_module(f"{__name__}.{_file.name}")
