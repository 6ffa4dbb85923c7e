"""AutoLink (He, Wandt, Rhodin, NeurIPS 2022): keypoints and shared links, without memory or prior.

The method that PPL builds on and is compared with.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_fast.models import terms as term
from ppl_fast.models.blocks import conv, in_eval, init_kaiming, no_autocast
from ppl_fast.models.link_model import LinkModel
from ppl_fast.models.output import AutoLinkOutput
from ppl_fast.models.recompute import recompute
from ppl_fast.models.regressor import attend, concentration, image_trunk
from ppl_fast.models.terms import Pass
from ppl_fast.options.config import AutoLinkConfig


class Detector(nn.Module):
    """Each keypoint at the expected position of its attention map.

    The arguments are `Regressor`'s.
    """

    def __init__(
        self,
        num_keypoints: int,
        base: int = 64,
        levels: int = 4,
        map_stride: int = 4,
        trunk: tuple[nn.Module, int] | None = None,
    ):
        super().__init__()
        self.trunk, features = trunk or image_trunk(base, levels, map_stride)
        self.maps = conv(features, num_keypoints)
        init_kaiming(self, spare=trunk and trunk[0])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (B, N, 2), (x, y) in [-1, 1], and attention (B, N, h, w) of images (B, 3, H, W)."""
        logits = self.maps(self.trunk(images))
        with no_autocast(images.device):
            attention, keypoints = attend(logits, self.maps.weight.dtype)
        return keypoints, attention.view(logits.shape)


class AutoLink(LinkModel):
    """Learns keypoints and their links from unlabelled images.

    Args:
        num_keypoints: N.
        image_size: side of the square images, a multiple of 16.
        thickness: squared width of a link in the link heatmap, in units of half the image side.
        options: any further field of `AutoLinkConfig`; `AutoLinkConfig.describe()` lists them. The defaults are the
            published model, whose perceptual loss needs VGG16 weights once a loss is computed.

    Raises:
        TypeError: an unknown option, or one of the wrong type.
        ValueError: an option out of bounds.
    """

    Config: ClassVar[type[AutoLinkConfig]] = AutoLinkConfig
    architecture = "autolink"
    terms: tuple[term.Term, ...] = (term.reconstruction,)

    settings: AutoLinkConfig

    def __init__(self, num_keypoints: int = 16, image_size: int = 128, thickness: float = 1e-3, **options: Any):
        super().__init__(num_keypoints, image_size, thickness, **options)
        s = self.settings
        trunk = self.new_trunk(options.get("trunk"), s.detector_size)
        self.detector = Detector(s.num_keypoints, s.scaled(s.detector_base), s.detector_levels, s.map_stride, trunk)
        self.translator = self.new_translator()
        recompute(self, s.recompute)

    def trunk(self) -> tuple[nn.Module, int]:
        """The detector's."""
        return self.detector.trunk, self.detector.maps.in_channels

    def find(self, images: Tensor) -> Tensor:
        """The detector's."""
        return self.detect(images)[0]

    def forward(
        self, images: Tensor, reference: Tensor | None = None, losses: bool = True, figure: Tensor | None = None
    ) -> AutoLinkOutput:
        """Detect, reconstruct, and take the loss.

        Args:
            images: (B, 3, S, S) in [-1, 1], S = image_size; any float dtype, computed in the parameters'.
            reference: (B, 3, S, S), what the translator takes appearance from. Default: the images, in training mode
                with random blocks dropped.
            losses: whether to take the losses. Without, no weights of the perceptual loss are needed.
            figure: (B, 1, S, S) in [0, 1], where the subject is, below 0 throughout for an image where that is unknown;
                for extensions, whose links and keypoints are then drawn to it.

        Raises:
            TypeError, ValueError: images of the wrong type, shape, device or range.
            FileNotFoundError: the perceptual loss finds no weights.
        """
        images, reference = self.checked(images, reference)
        masks = self.told(figure, images, self.masks(images, reference))
        keypoints, attention = self.detect(self.seen(images, masks))
        weights = self.link_weights()
        heatmap = self.draw(keypoints, weights)
        shown = self.alpha * self.appearance(images, reference, masks)
        reconstruction = self.translator(shown, self.drawn(heatmap, masks))
        out = AutoLinkOutput(keypoints, heatmap, reconstruction, {}, None, attention)
        return self.with_losses(Pass(images, out, weights, masks)) if losses else out

    def detect(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints and attention maps (see `Detector`) of images, resized to the detector's size."""
        size = self.settings.detector_size
        if size != self.settings.image_size:
            images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
        keypoints, attention = self.detector(images)
        return keypoints, attention

    @torch.no_grad()
    def estimate(self, images: Tensor, iterations: int = 1, visible: Tensor | None = None) -> Tensor:
        """Keypoints of images, in eval mode and without gradient.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            iterations: 1; there is no memory to iterate with.
            visible: (B, 1, S, S) bool. Where given, the pixels outside are set to 0.

        Returns:
            (B, N, 2), (x, y) in [-1, 1].

        Raises:
            TypeError, ValueError: arguments of the wrong type, shape, device or range.
        """
        images = self.masked(images, visible)
        self.check_one(iterations)
        return in_eval(self).detect(images)[0]

    @torch.no_grad()
    def evidence(self, images: Tensor, keypoints: Tensor) -> dict[str, Tensor]:
        """See `KeypointModel.evidence`."""
        return concentration(in_eval(self).detect(self.checked(images)[0])[1])
