"""Between normalised keypoints and pixels of the original image."""

from typing import Any, TypeVar

import numpy as np
import torch

Points = TypeVar("Points", torch.Tensor, np.ndarray)


def to_pixels(keypoints: Points, image_size: int, original_size: Any) -> Points:
    """Normalised keypoints, as the model gives them, in pixels of the original image.

    The model sees the original resized to S x S with half-pixel centres, so with u = (x + 1) / 2 * (S - 1) the
    position in the resized image, px = (u + 0.5) * W / S - 0.5; and the same for y with H.

    Args:
        keypoints: (..., 2) tensor or array, (x, y), -1 and +1 at the centres of the first and last pixel.
        image_size: S, the size in pixels that the image was resized to.
        original_size: (W, H) of the original, or (n, 2) of them for keypoints of shape (n, N, 2).

    Returns:
        Same type and shape as `keypoints`: (x, y) in pixels of the original, integers at pixel centres.
    """
    scale = _scale("to_pixels", keypoints, image_size, original_size)
    return ((keypoints + 1) * ((image_size - 1) / 2) + 0.5) * scale - 0.5


def from_pixels(keypoints: Points, image_size: int, original_size: Any) -> Points:
    """Pixels of the original image as normalised keypoints: the inverse of `to_pixels`."""
    scale = _scale("from_pixels", keypoints, image_size, original_size)
    return ((keypoints + 0.5) / scale - 0.5) * (2 / (image_size - 1)) - 1


def from_view(keypoints: np.ndarray, image_size: int, boxes: np.ndarray) -> np.ndarray:
    """Normalised keypoints of what a model saw, a box in the original, in pixels of the original.

    Args:
        keypoints: (..., N, 2) float64, (x, y), -1 and +1 at the centres of the first and last pixel of the view.
        image_size: S, the side in pixels of the view.
        boxes: (5,), or (n, 5) for keypoints of shape (n, N, 2), as `ppl_fast.data.boxes` has them; NaN gives NaN.

    Returns:
        (..., N, 2): (x, y) in pixels of the original, integers at pixel centres.
    """
    centre, size, along, across = _axes(boxes)
    inside = (((keypoints + 1) * ((image_size - 1) / 2) + 0.5) / image_size - 0.5) * size
    return inside[..., :1] * along + inside[..., 1:] * across + centre - 0.5


def to_view(keypoints: np.ndarray, image_size: int, boxes: np.ndarray) -> np.ndarray:
    """Pixels of the original as normalised keypoints of the view: the inverse of `from_view`."""
    centre, size, along, across = _axes(boxes)
    away = keypoints + 0.5 - centre
    inside = np.stack([(away * along).sum(-1), (away * across).sum(-1)], axis=-1) / size
    return ((inside + 0.5) * image_size - 0.5) * (2 / (image_size - 1)) - 1


def _axes(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centre, size, and the directions of the two sides of boxes (..., 5), each (..., 1, 2)."""
    boxes = np.asarray(boxes, np.float64)[..., None, :]
    cosine, sine = np.cos(boxes[..., 4]), np.sin(boxes[..., 4])
    return boxes[..., :2], boxes[..., 2:4], np.stack([cosine, sine], axis=-1), np.stack([-sine, cosine], axis=-1)


def _scale(caller: str, keypoints: Points, image_size: int, original_size: Any) -> Points:
    """Original pixels per resized pixel, (2,) or (n, 1, 2), of the type of `keypoints`."""
    if keypoints.shape[-1:] != (2,):
        raise ValueError(f"{caller}: keypoints must have shape (..., 2), got {tuple(keypoints.shape)}")
    if image_size < 2:
        raise ValueError(f"{caller}: image_size must be at least 2, got {image_size}")
    if isinstance(keypoints, torch.Tensor):
        size = torch.as_tensor(original_size, dtype=keypoints.dtype, device=keypoints.device)
    else:
        size = np.asarray(original_size, dtype=keypoints.dtype)
    pair = tuple(size.shape) == (2,)
    if not pair and (keypoints.ndim != 3 or tuple(size.shape) != (keypoints.shape[0], 2)):
        raise ValueError(
            f"{caller}: original_size must be (W, H), or (n, 2) for keypoints (n, N, 2), "
            f"got shape {tuple(size.shape)} for keypoints {tuple(keypoints.shape)}"
        )
    return (size if pair else size[:, None]) / image_size
