"""A model that needs no training, and a data set that counts, for the tests of inference."""

import threading

import numpy as np
import torch

from ppl_fast.models import KeypointModel

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


class Interrupted(KeypointModel):
    """Mean colours, by a model that has evidence; ends the work, as Ctrl-C does, after so many batches."""

    def __init__(self, batches=None, bias=0.0):
        super().__init__(num_keypoints=KEYPOINTS, image_size=S)
        del self.links
        self.register_buffer("bias", torch.tensor(bias))
        self.register_buffer("links", Finder.links)
        self.left, self.batches = batches, 0

    def estimate_rounds(self, images, iterations=1, visible=None):
        if self.batches == self.left:
            raise KeyboardInterrupt
        self.batches += 1
        return [(Finder.estimate(self, images) + self.bias, images)]

    def estimate(self, images, iterations=1, visible=None):
        return self.estimate_rounds(images)[0][0]

    def link_weights(self):
        return Finder().link_weights()


COLUMNS = ("names", "frames", "times", "keypoints", "normalised", "sizes", "confidence", "filled")


def same(one, other):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def threads():
    return [each.name for each in threading.enumerate() if each.name.startswith("ppl_fast")]
