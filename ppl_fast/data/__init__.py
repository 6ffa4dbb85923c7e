"""Images in, labels beside them, published data sets, and drawn figures to try things on.

Needs the `data` extra (Pillow, tqdm; h5py and scipy for some data sets); `to_pixels` and `from_pixels` alone need
only numpy and torch.
"""

from ppl_fast._extras import on_first_use
from ppl_fast.data.coordinates import from_pixels, to_pixels

_HOMES = {
    "ClipFolder": "clips",
    "ImageFolder": "images",
    "LabelledSet": "sets",
    "Labels": "labels",
    "LayoutError": "sets",
    "load_labels": "labels",
    "make_figures": "figures",
    "open_set": "sets",
    "training_loader": "loading",
    "write_coco": "predictions",
    "write_csv": "predictions",
}

__all__ = ["from_pixels", "to_pixels", *_HOMES]

__getattr__ = on_first_use(__name__, _HOMES, "data")
