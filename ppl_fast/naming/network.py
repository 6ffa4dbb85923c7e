"""Networks from images to named joints: a trained model's trunk, fine-tuned on the labelled images.

Each step sees other views of these images (`ppl_fast.models.joints`), some partly hidden. Several networks, each on
other images, err less together than any of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppl_fast.models.blocks import conv, init_kaiming, random_blocks
from ppl_fast.models.joints import JointLabels, joint_distance, labelled_views
from ppl_fast.models.regressor import attend
from ppl_fast.options.extended import ExtensionConfig

if TYPE_CHECKING:
    from typing_extensions import Self

    from ppl_fast.models.link_model import LinkModel

BLOCKS = 8  # a side of the grid of which some are hidden
VIEW = ExtensionConfig()  # how views differ, and how much of one is hidden, where any of it is
GAIN = 5.0  # of the attention maps, which start flat: they narrow in fewer steps


class JointNetwork(nn.Module):
    """Each joint at the expected position of its attention map.

    Args:
        trunk: from images (B, 3, S, S) to features (B, C, h, w).
        features: C.
        joints: J.
    """

    def __init__(self, trunk: nn.Module, features: int, joints: int):
        super().__init__()
        self.trunk, self.maps = trunk, conv(features, joints)
        init_kaiming(self.maps)

    @classmethod
    def beside(cls, model: LinkModel, joints: int) -> Self:
        """One on a copy of a model's trunk, on its device."""
        trunk, features = model.trunk()
        like = next(model.parameters())
        network = cls(copy.deepcopy(trunk), features, joints).to(like.device, like.dtype)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's leave the format out
        return network.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        """Joints (B, J, 2), (x, y) in [-1, 1], of images (B, 3, S, S)."""
        logits = self.maps(self.trunk(images))
        with torch.autocast(images.device.type, enabled=False):
            return attend(GAIN * logits, self.maps.weight.dtype)[1]


class JointNetworks(nn.Module):
    """The mean of several networks.

    Args:
        members: M networks of J joints.
        known: (M, J) bool, which joints each has learned; the others of a member do not count.
    """

    weights: Tensor

    def __init__(self, members: Sequence[JointNetwork], known: Tensor):
        super().__init__()
        self.members = nn.ModuleList(members)
        counted = torch.where(known.any(dim=0), known, True).to(members[0].maps.weight)
        self.register_buffer("weights", counted / counted.sum(dim=0))

    def forward(self, images: Tensor) -> Tensor:
        """As `JointNetwork` does."""
        found = torch.stack([member(images) for member in self.members])
        return (found * self.weights[:, None, :, None]).sum(dim=0)

    @torch.no_grad()
    def joints(self, images: Tensor) -> NDArray[np.float64]:
        """(n, J, 2) of images of any floating dtype."""
        found: NDArray[np.float64] = self(images.to(self.weights.dtype)).cpu().double().numpy()
        return found


@dataclass(frozen=True)
class Schedule:
    """How long and how fast the network learns.

    Attributes:
        steps: optimizer steps.
        batch_size: images a step.
        lr: AdamW's first learning rate, which falls to 0 along a cosine.
        hide: share of the samples that are partly hidden.
        seed: of weights, views and data order.
    """

    steps: int = 1200
    batch_size: int = 8
    lr: float = 1e-3
    hide: float = 0.25
    seed: int = 0


def trained(
    model: LinkModel,
    images: Tensor,
    joints: Tensor,
    shown: Tensor,
    schedule: Schedule,
    advanced: Callable[[], object] = lambda: None,
) -> JointNetwork:
    """A network on a copy of a model's trunk, in eval mode.

    Args:
        model: trained, or fresh; it is left as it is.
        images: (n, 3, S, S) in [-1, 1].
        joints: (n, J, 2), (x, y) in [-1, 1].
        shown: (n, J) bool, which of these are labelled.
        schedule: see there.
        advanced: called after each step.
    """
    seeded = range(torch.cuda.device_count())  # all, by `manual_seed`
    with torch.random.fork_rng(seeded), torch.enable_grad():
        torch.manual_seed(schedule.seed)
        network = JointNetwork.beside(model, joints.shape[1]).train()
        optimizer = torch.optim.AdamW(network.parameters(), schedule.lr, betas=(0.9, 0.99), fused=True)
        for step, batch in enumerate(_batches(JointLabels(images, joints, shown), schedule)):
            for group in optimizer.param_groups:
                group["lr"] = schedule.lr * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
            distance = joint_distance(network(batch.images), batch)
            optimizer.zero_grad()
            distance.backward()
            optimizer.step()
            advanced()
    return network.eval()


@torch.no_grad()
def predicted(network: nn.Module, images: Tensor, batch_size: int = 64) -> Tensor:
    """Joints (n, J, 2) of images (n, 3, S, S)."""
    parts = [network(part.contiguous(memory_format=torch.channels_last)) for part in images.split(batch_size)]
    return torch.cat(parts)


def _batches(labels: JointLabels, schedule: Schedule) -> Iterator[JointLabels]:
    """Views of images drawn by chance, some of them partly hidden."""
    for _ in range(schedule.steps):
        found = labelled_views(labels, schedule.batch_size, VIEW)
        view, count = found.images, len(found.images)
        hidden = torch.rand(count, 1, 1, 1, device=view.device) < schedule.hide
        kept = random_blocks(count, BLOCKS, VIEW.occlude_ratio, view.shape[2:], view)
        view = torch.where(hidden, view * kept, view).contiguous(memory_format=torch.channels_last)
        yield found._replace(images=view)
