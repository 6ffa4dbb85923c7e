"""A model that needs no training, and a data set that counts, for the tests of inference."""

import torch

S = 32
KEYPOINTS = 3


class Finder(torch.nn.Module):
    """Keypoints that depend on the image alone: its mean colours, and the number of passes."""

    config = {"image_size": S, "num_keypoints": KEYPOINTS}
    links = torch.tensor([[0, 1], [1, 2]])

    def link_weights(self):
        return torch.tensor([1.0, 0.5])

    def estimate(self, images, iterations=1):
        level = images.mean(dim=(2, 3))
        return torch.stack([0.5 * level, -0.3 * level * iterations], dim=2)


class Counted(torch.utils.data.Dataset):
    """Grey images, and how many of them were loaded."""

    def __init__(self, count):
        self.count, self.loaded = count, 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.loaded += 1
        return torch.full((3, S, S), index / self.count)
