"""What stands in the place of a model's own trunk: a module of one's own, or a backbone of timm by its name."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_fast._extras import needing
from ppl_fast.options.config import OWN_TRUNK


class Backbone(nn.Module):
    """A backbone of timm: its maps of all resolutions, added up at that of the finest.

    Coarse maps know what is where, and fine ones where exactly; each is brought to one width, and the sum of the
    coarser ones to the next finer resolution (Lin et al., "Feature Pyramid Networks", CVPR 2017).

    Args:
        name: as `timm.create_model` takes it; its weights are new.
        stride: image pixels per cell of the finest map that is used.

    Raises:
        ValueError: timm knows no such backbone, or it has no map of this stride.
        ImportError: timm is not installed.
    """

    def __init__(self, name: str, stride: int):
        super().__init__()
        with needing("a trunk by name needs", "timm"):
            import timm
        try:
            self.body = timm.create_model(name, pretrained=False, features_only=True)
        except (RuntimeError, ValueError, AttributeError, AssertionError) as error:
            raise ValueError(f"trunk must be a backbone of timm that gives maps, got {name!r} ({error})") from error
        about: Any = self.body.feature_info
        channels, strides = about.channels(), about.reduction()
        self.used = [number for number, each in enumerate(strides) if each >= stride]
        if stride not in strides:
            raise ValueError(f"trunk {name} has maps of a cell per {strides} pixels, and none of map_stride {stride}")
        self.width = channels[self.used[0]]
        self.lateral = nn.ModuleList(nn.Conv2d(channels[number], self.width, 1) for number in self.used)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, width, S / stride, S / stride)."""
        maps = self.body(images)
        total: Tensor
        *finer, total = [lateral(maps[number]) for lateral, number in zip(self.lateral, self.used, strict=True)]
        for each in reversed(finer):
            total = each + F.interpolate(total, size=each.shape[2:], mode="bilinear", align_corners=False)
        return total


def own_trunk(owner: str, option: str | None, given: object, size: int, stride: int) -> tuple[nn.Module, int] | None:
    """The trunk that options ask for, and its features C; None for the model's own.

    Args:
        owner: the model, for messages.
        option: `trunk` of its options.
        given: `trunk` as the constructor was given it: a module, a name, or None.
        size: side of the images that it will see.
        stride: `map_stride`.

    Raises:
        ValueError: the model was saved with a module that is not given now, or one that gives no features.
    """
    if option is None:
        return None
    if option != OWN_TRUNK:
        backbone = Backbone(option, stride)
        return backbone, backbone.width
    if not isinstance(given, nn.Module):
        raise ValueError(
            f"{owner}: its trunk is a module of somebody's own; give such a module again, as "
            "from_pretrained(directory, trunk=module)"
        )
    return given, _features(owner, given, size)


def _features(owner: str, trunk: nn.Module, size: int) -> int:
    """C of the features (1, C, h, w) that a trunk makes of one image; its modes are as before."""
    like = next(trunk.parameters(), torch.zeros(0))
    modes = {module: module.training for module in trunk.modules()}
    try:
        with torch.no_grad():
            found = trunk.eval()(torch.zeros(1, 3, size, size, device=like.device, dtype=like.dtype))
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != 1:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"{owner}: trunk must make features (B, C, h, w) of images (B, 3, {size}, {size}), got {got}")
    return found.shape[1]
