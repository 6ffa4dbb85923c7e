"""Images in, labels beside them, published data sets, and drawn figures to try things on.

Needs the ``data`` extra (Pillow, tqdm; h5py and scipy for some data sets); ``to_pixels`` and ``from_pixels`` alone need
only numpy and torch.
"""

from importlib import import_module

from .coordinates import from_pixels, to_pixels

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


def __getattr__(name: str):
    """Import the file behind a public name on first use, so that a missing extra is named only when needed."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name not in ("PIL", "tqdm"):
            raise
        raise ImportError(
            f"ppl_fast.data.{name} needs {error.name}, which is not installed: pip install 'ppl_fast[data]'"
        ) from error
