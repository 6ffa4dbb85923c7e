"""Iterative inference on partly hidden pictures, round by round."""

from __future__ import annotations

from typing import Any

import torch

from ppl_fast.data import to_pixels
from ppl_fast.evaluation import occlude
from ppl_fast.inference.posing import device_of
from ppl_fast.models import KeypointModel
from ppl_fast.page.numbers import rounded
from ppl_fast.page.pictures import data_uri, jpeg
from ppl_fast.visualization._draw import to_image

MASK = ("blocks", 0.5)
ABOUT = "half of the blocks hidden"
QUALITY = 85


def rounds_of(model: KeypointModel, images: torch.Tensor, names: list[str], rounds: int) -> dict[str, Any] | None:
    """Poses of images with half of their blocks hidden, after each round; None for a model that is not iterative.

    Args:
        model: a trained model.
        images: (n, 3, S, S) in [-1, 1].
        names: of the images.
        rounds: after the plain estimate.

    Returns:
        {"about", "rounds", "size": S, "pictures": [{"name", "image", "points", on the whole image, "passes": [{"image",
        what the pass saw, "points", "moved": mean distance to the pose on the whole image, as a fraction of its size}]
        }]}; points in pixels of S x S.
    """
    if not model.iterative or not len(images):
        return None
    size = images.shape[-1]
    images = images.to(device_of(model))
    whole = model.estimate(images)
    hidden, visible = occlude(images, *MASK)
    passes = model.estimate_rounds(hidden, 1 + rounds, visible=visible)
    shown = []
    for i, name in enumerate(names):
        steps = [
            {
                "image": _encoded(seen[i]),
                "points": rounded(to_pixels(keypoints[i], size, (size, size)), 2),
                "moved": float((keypoints[i] - whole[i]).norm(dim=1).mean() / 2),
            }
            for keypoints, seen in passes
        ]
        points = rounded(to_pixels(whole[i], size, (size, size)), 2)
        shown.append({"name": name, "image": _encoded(images[i]), "points": points, "passes": steps})
    return {"about": ABOUT, "rounds": rounds, "size": size, "pictures": shown}


def _encoded(image: torch.Tensor) -> str:
    return data_uri(jpeg(to_image(image, 1, "rounds_of"), image.shape[-1], QUALITY))
