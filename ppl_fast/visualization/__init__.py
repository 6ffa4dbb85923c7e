"""Pictures of poses, priors and training, written as PNG files that appear whole or not at all.

A keypoint has one number and one colour in all of them; a link takes the mean of its ends' and is the more opaque the
heavier it is. Numbers are left out where they would be too small to read; a legend then tells the colours. Needs the
`viz` extra: Pillow, and matplotlib for the charts.
"""

from ppl_fast.visualization._boxes import save_boxes
from ppl_fast.visualization._charts import save_connectivity, save_training
from ppl_fast.visualization._draw import palette
from ppl_fast.visualization._memory import save_prototype_pages, save_prototypes, save_usage
from ppl_fast.visualization._occlusion import save_occlusion
from ppl_fast.visualization._poses import draw_overlay, save_overlay, save_poses, save_rounds
from ppl_fast.visualization._priors import save_keypoint_prior, save_prior
from ppl_fast.visualization._subjects import save_subjects

__all__ = [
    "draw_overlay",
    "palette",
    "save_boxes",
    "save_connectivity",
    "save_keypoint_prior",
    "save_occlusion",
    "save_overlay",
    "save_poses",
    "save_prior",
    "save_prototype_pages",
    "save_prototypes",
    "save_rounds",
    "save_subjects",
    "save_training",
    "save_usage",
]
