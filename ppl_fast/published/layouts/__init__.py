"""The published models, each with a file of all that is known of its checkpoints."""

from ppl_fast.models import KeypointModel
from ppl_fast.published.layouts.autolink import AutoLinkLayout
from ppl_fast.published.layouts.layout import VGG, Layout
from ppl_fast.published.layouts.ppl import PPLLayout

__all__ = ["LAYOUTS", "VGG", "Layout", "layout_of"]

LAYOUTS: tuple[Layout, ...] = (PPLLayout(), AutoLinkLayout())


def layout_of(model: type[KeypointModel]) -> Layout:
    """The layout of a model's class, or of the one that it extends.

    Raises:
        ValueError: none is known.
    """
    for layout in LAYOUTS:
        if issubclass(model, layout.model):
            return layout
    known = " and ".join(layout.model.__name__ for layout in LAYOUTS)
    raise ValueError(f"{model.__name__}: there are published checkpoints of {known} alone")
