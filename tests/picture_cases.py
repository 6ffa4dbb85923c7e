"""A pose, its links, and the pixels of a picture, for the tests of pictures."""

import numpy as np
import torch
from PIL import Image

LINKS = torch.tensor([[0, 1], [0, 2], [1, 2]])
WEIGHTS = torch.tensor([1.0, 0.5, 0.0])
CORNERS = torch.tensor([[[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5]]])


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)
