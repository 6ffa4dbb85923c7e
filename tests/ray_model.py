"""A model for Ray's workers, which import it by name."""

import os
from pathlib import Path

import torch

from ppl_fast.models import KeypointModel


class Dying(KeypointModel):
    """Mean colours; the process that has estimated so many batches kills itself, where none has done so before."""

    def __init__(self, marks: str, batches: int):
        super().__init__(num_keypoints=3, image_size=32)
        self.marks, self.batches, self.done = Path(marks), batches, 0

    def link_weights(self):
        return torch.ones(len(self.links))

    def estimate(self, images, iterations=1, visible=None):
        self.done += 1
        (self.marks / str(os.getpid())).touch()
        if self.done == self.batches and not (self.marks / "killed").exists():
            (self.marks / "killed").touch()
            os.kill(os.getpid(), 9)
        level = images.mean(dim=(2, 3))
        return torch.stack([0.5 * level, -0.3 * level], dim=2)
