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
