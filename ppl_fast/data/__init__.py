"""Images in, labels beside them, published data sets, and drawn figures to try things on.

Needs the `data` extra (Pillow, tqdm; h5py for some data sets); `to_pixels` and `from_pixels` alone need
only numpy and torch.
"""

from typing import TYPE_CHECKING

from ppl_fast._extras import on_first_use
from ppl_fast.data.coordinates import from_pixels, to_pixels

_HOMES = {
    "ClipFolder": "clips",
    "ImageFolder": "images",
    "LabelledSet": "sets",
    "Labels": "labels",
    "LayoutError": "sets",
    "load_labels": "label_files",
    "make_figures": "figures",
    "open_set": "sets",
    "training_loader": "loading",
    "write_coco": "predictions",
    "write_csv": "predictions",
}

__all__ = ["ClipFolder", "ImageFolder", "LabelledSet", "Labels", "LayoutError", "from_pixels", "load_labels"]
__all__ += ["make_figures", "open_set", "to_pixels", "training_loader", "write_coco", "write_csv"]

if TYPE_CHECKING:  # so that type checkers, too, find what `_HOMES` lists
    from ppl_fast.data.clips import ClipFolder
    from ppl_fast.data.figures import make_figures
    from ppl_fast.data.images import ImageFolder
    from ppl_fast.data.label_files import load_labels
    from ppl_fast.data.labels import Labels
    from ppl_fast.data.loading import training_loader
    from ppl_fast.data.predictions import write_coco, write_csv
    from ppl_fast.data.sets import LabelledSet, LayoutError, open_set
else:
    __getattr__ = on_first_use(__name__, _HOMES, "data")
