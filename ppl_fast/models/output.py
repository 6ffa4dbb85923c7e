"""What the models return."""

from typing import NamedTuple

from torch import Tensor
from torch.utils import _pytree as pytree


class Prior(NamedTuple):
    """What the model has learned about all poses."""

    keypoints: Tensor  # (N, 2), (x, y) in [-1, 1]
    connectivity: Tensor  # (N, N), symmetric link weights >= 0, zero diagonal


class MemoryReport(NamedTuple):
    """What a memory of m banks of k vectors holds, and how it is used."""

    poses: Tensor  # (m, k, N, 2), (x, y) in [-1, 1]: what each vector stands for, all other banks at their means
    sizes: Tensor  # (m, k) >= 0, how often each vector is chosen, up to a factor
    perplexity: Tensor  # (m,), 1 to k, of the sizes of a bank
    dead: Tensor  # (m,) int64, vectors that are hardly ever chosen


class PPLOutput(NamedTuple):
    """What a forward pass gives. `losses` are weighted: they sum to `loss`."""

    keypoints: Tensor  # (B, N, 2), (x, y), in [-1, 1] once the boundary loss has done its work
    prior: Prior
    link_heatmap: Tensor  # (B, 1, H, W)
    reconstruction: Tensor  # (B, 3, H, W)
    losses: dict[str, Tensor]  # {} where none were asked for
    loss: Tensor | None  # None where no losses were asked for
    affine: Tensor  # (B, N, 2, 3), takes prior.keypoints to keypoints
    recalled: Tensor  # (B, N, 2), the keypoints as the memory recalls them
    commitment: Tensor  # mean squared distance of the memory's tokens to the vectors that they chose


class AutoLinkOutput(NamedTuple):
    """What a forward pass gives. `losses` are weighted: they sum to `loss`."""

    keypoints: Tensor  # (B, N, 2), (x, y) in [-1, 1]
    link_heatmap: Tensor  # (B, 1, H, W)
    reconstruction: Tensor  # (B, 3, H, W)
    losses: dict[str, Tensor]  # {} where none were asked for
    loss: Tensor | None  # None where no losses were asked for
    attention: Tensor  # (B, N, h, w), where each keypoint was looked for; sums to 1 over the cells


for output in (Prior, PPLOutput, AutoLinkOutput):  # so that torch.export can write what gives them
    pytree._register_namedtuple(output, serialized_type_name=f"ppl_fast.{output.__name__}")
