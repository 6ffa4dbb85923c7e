"""Images as the tensors that data sets and models take."""

import numpy as np
import torch
from PIL import Image


def as_tensor(image: Image.Image) -> torch.Tensor:
    """An RGB image as uint8 (3, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def resized(image: Image.Image, size: int) -> torch.Tensor:
    """An RGB image as uint8 (3, size, size), stretched to the square."""
    return as_tensor(image.resize((size, size), Image.Resampling.BILINEAR))


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 pixels of any shape as the models take them: float32 in [-1, 1]."""
    return pixels.float().mul_(1 / 127.5).sub_(1)


def levels(images: torch.Tensor) -> torch.Tensor:
    """The uint8 pixels that `normalised` made images in [-1, 1] of, exactly."""
    return images.add(1).mul_(127.5).round_().to(torch.uint8)
