"""The published class, `PosePriorLearner`, on our model and kernels."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppl_fast.models import PPL
from ppl_fast.models.blocks import random_blocks
from ppl_fast.models.hierarchical_memory import HierarchicalMemory
from ppl_fast.ops import link_heatmap
from ppl_fast.published import checkpoints
from ppl_fast.published.layouts.ppl import AFFINE_ORDER, PPLLayout

ARGUMENTS = ("num_parts", "thick", "sklr", "block", "missing", "use_alpha", "alpha")
VGG_FILE = Path("hub", "checkpoints", "vgg16-397923af.pth")  # where the published code keeps it


class PosePriorLearner(nn.Module):
    """The published `models.pose_prior_learner.PosePriorLearner`: same constructor, results and state-dict keys.

    Keypoints, templates and affine maps that go in or come out are in the published order, (row, column). The model
    proper is `model`, a `ppl_fast.PPL` in (x, y), which holds all parameters.

    What differs, on purpose: the memory's vectors move in training mode only, and with the sums of all processes under
    DDP; link parameters are the E used ones rather than an N x N matrix; VGG16 weights are read from a file (in
    `hub/checkpoints` of the working directory, where the published code puts them, or as `PPL` finds them) when the
    first loss is taken; and where there is no GPU, `cuda()` leaves the model on the CPU.

    Args:
        args: an object with num_parts (N), thick, sklr, block, missing, use_alpha and alpha; img_size, the side of the
            images, is 128 if it is not there.

    Raises:
        TypeError, ValueError: the sentence names what is missing or out of bounds.
    """

    def __init__(self, args: Any):
        super().__init__()
        if absent := [name for name in ARGUMENTS if not hasattr(args, name)]:
            raise TypeError(f"PosePriorLearner: args must have {', '.join(ARGUMENTS)}, got none of {', '.join(absent)}")
        self.num_parts, self.thick, self.sklr = args.num_parts, args.thick, args.sklr
        self.block, self.missing, self.use_alpha = args.block, args.missing, args.use_alpha
        self.model = PPL(
            args.num_parts,
            getattr(args, "img_size", 128),
            args.thick,
            link_factor=args.sklr,
            mask_blocks=args.block,
            mask_ratio=args.missing,
            perceptual_weights=VGG_FILE.absolute() if VGG_FILE.is_file() else None,
        )
        self.skeleton_idx = self.model.links.T.clone()
        self.n_skeleton = len(self.model.links)
        nn.init.constant_(self.model.alpha, args.alpha if args.use_alpha else 1)
        self.model.alpha.requires_grad_(bool(args.use_alpha))

    # The published attributes

    @property
    def aug(self) -> Tensor:
        """(N, 1) ones, which make a template homogeneous."""
        return self.model.alpha.new_ones(self.num_parts, 1)

    @property
    def alpha(self) -> Tensor:
        """The factor on the reference frame; a parameter with `use_alpha`, else 1."""
        return self.model.alpha

    @property
    def skeleton_scalar(self) -> Tensor:
        """(N, N), the link parameters in the upper triangle, differentiable in them."""
        return self._upper(self.model.link_parameters)

    @property
    def memory(self) -> Memory:
        """The published memory on ours."""
        return Memory(self.model.memory)

    @property
    def translator(self) -> nn.Module:
        """Reconstruction (B, 3, S, S) from reference frame (B, 3, S, S) and heatmap (B, 1, S, S)."""
        return self.model.translator

    @property
    def vgg_loss(self) -> nn.Module:
        """The perceptual loss of two batches of frames.

        Raises:
            FileNotFoundError: there are no VGG16 weights.
        """
        self.model.load_perceptual()
        return self.model._perceptual[0].to(self.model.alpha)

    def regressor(self, frame: Tensor, template: Tensor) -> Tensor:
        """Affine maps (B, N, 2, 3) of frame (B, 3, S, S) and template (B, N, 2), from and to (row, column)."""
        affine: Tensor = self.model.regressor(frame, template.flip(-1))
        return affine.flatten(2)[..., AFFINE_ORDER].view_as(affine)

    def skeleton_scalar_matrix(self) -> Tensor:
        """(N, N) link weights, symmetric with zero diagonal, differentiable."""
        upper = self._upper(self.model.link_weights())
        return upper + upper.mT

    def rasterize(self, keypoints: Tensor, output_size: int = 128) -> Tensor:
        """Link heatmap (B, 1, output_size, output_size) of keypoints (B, N, 2) as (row, column)."""
        points, weights = keypoints[..., :2].flip(-1), self.model.link_weights()
        return link_heatmap(points, weights, output_size, float(self.thick), self.model.links)

    def _upper(self, values: Tensor) -> Tensor:
        i, j = self.model.links.unbind(dim=1)
        return values.new_zeros(self.num_parts, self.num_parts).index_put((i, j), values)

    # The published forward pass

    def forward(self, frame: Tensor, return_imgs: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of frame (B, 3, S, S) in [-1, 1], and its terms by their published names.

        With `return_imgs` also template (1, 3, S, S), transformed_template and vq_transformed_template (B, 3, S, S),
        the link heatmaps of the prior, the pose and the pose as the memory recalls it, and reconstructed, frame and
        ref_frame (B, 3, S, S). Blocks are dropped in eval mode too.
        """
        shown = random_blocks(len(frame), self.block, self.missing, frame.shape[2:], frame)
        reference = frame * shown
        out = self.model(frame, reference)
        # The published term is |p| where |p| > 1, ours |p| - 1: the same gradient.
        outside = (out.keypoints.detach().abs() > 1).sum(dim=1).float().mean()
        terms = {
            "boundary_loss": out.losses["boundary"] + outside,
            "recon_perceptual_loss": out.losses["reconstruction"],
            "consistency": out.losses["memory"],
            "vq_loss": out.losses["commitment"],
        }
        if return_imgs:
            terms |= self._images(frame, reference, out)
        return out.loss + outside, terms

    @torch.no_grad()
    def _images(self, frame: Tensor, reference: Tensor, out: Any) -> dict[str, Tensor]:
        weights = self.model.link_weights()
        heatmaps = {
            "template": self.model.draw(out.prior.keypoints.unsqueeze(0), weights),
            "transformed_template": out.link_heatmap.detach(),
            "vq_transformed_template": self.model.draw(out.recalled, weights),
        }
        images = {"reconstructed": out.reconstruction, "frame": frame, "ref_frame": self.alpha * reference}
        return images | {name: heatmap.repeat(1, 3, 1, 1) for name, heatmap in heatmaps.items()}

    # State dicts in the published names

    def state_dict(  # type: ignore[override]  # torch has two overloads, for a destination given and for none
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """The published state dict, as copies; `vgg_loss.*` is in it once VGG16's weights are loaded."""
        found = PPLLayout().to_published(self.model)
        if not self.use_alpha:
            del found["alpha"]
        destination = OrderedDict() if destination is None else destination
        destination.update({prefix + key: value for key, value in found.items()})
        return destination

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Put our names in place of the published ones, before torch goes on to `model`."""
        given = {key.removeprefix(prefix): state_dict.pop(key) for key in list(state_dict) if key.startswith(prefix)}
        checkpoints.check("PosePriorLearner.load_state_dict", given, self.model)
        ours = checkpoints.converted(given, self.model, "PosePriorLearner.load_state_dict")
        state_dict.update({f"{prefix}model.{key}": value for key, value in ours.items()})
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def cuda(self, device: int | torch.device | None = None) -> PosePriorLearner:
        """As for every module, but without a GPU the model stays where it is, so that scripts run there too."""
        if torch.cuda.is_available():
            return super().cuda(device)
        warnings.warn("PosePriorLearner: there is no CUDA device; the model stays on the CPU", stacklevel=2)
        return self


class Memory:
    """The published `Memory` on ours: keypoints as (row, column)."""

    def __init__(self, memory: HierarchicalMemory):
        self._memory = memory

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Recalled points (B, N, 2) of points (B, N, 2) and the commitment loss; in training mode the vectors move."""
        recalled, commitment = self._memory(points.flip(-1))
        return recalled.flip(-1), commitment

    def get_template(self) -> Tensor:
        """The keypoint prior (N, 2), without gradient."""
        return self._memory.prior().flip(-1)

    @property
    def codebook(self) -> Tensor:
        """(m, k, d), the vectors."""
        return self._memory.codebook
