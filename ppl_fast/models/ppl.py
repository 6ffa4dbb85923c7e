"""The Pose Prior Learner (Wang, Han, Zhang, ICLR 2026, arXiv 2410.03858)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ppl_fast._options import plain
from ppl_fast.models import terms as term
from ppl_fast.models.blocks import check_gathered, in_eval
from ppl_fast.models.hierarchical_memory import HierarchicalMemory
from ppl_fast.models.link_model import LinkModel
from ppl_fast.models.output import MemoryReport, PPLOutput, Prior
from ppl_fast.models.recompute import recompute
from ppl_fast.models.regressor import Regressor, concentration
from ppl_fast.models.terms import Pass
from ppl_fast.ops import affine_warp
from ppl_fast.options.config import PPLConfig


class PPL(LinkModel):
    """Learns keypoints, their links and a pose prior from unlabelled images, and estimates poses.

    Args:
        num_keypoints: N.
        image_size: side of the square images, a multiple of 16.
        thickness: squared width of a link in the link heatmap, in units of half the image side.
        options: any further field of `PPLConfig`; `PPLConfig.describe()` lists them. The defaults are the published
            model, whose perceptual loss needs VGG16 weights once a loss is computed; `reconstruction_loss="mse"` does
            without. Loading a model and estimating poses never need them. `ExtendedPPL` has more options.

    Raises:
        TypeError: an unknown option, or one of the wrong type.
        ValueError: an option out of bounds.
    """

    Config: ClassVar[type[PPLConfig]] = PPLConfig
    architecture = "ppl"
    iterative = True
    terms: tuple[term.Term, ...] = (term.reconstruction, term.boundary, term.memory, term.link_length)

    settings: PPLConfig

    def __init__(self, num_keypoints: int = 16, image_size: int = 128, thickness: float = 1e-3, **options: Any):
        super().__init__(num_keypoints, image_size, thickness, **options)
        s = self.settings
        self.memory = HierarchicalMemory(s.num_keypoints, **s.memory_options())
        trunk = self.new_trunk(options.get("trunk"), s.image_size)
        self.regressor = Regressor(s.num_keypoints, **s.regressor_options(), trunk=trunk)
        self.translator = self.new_translator()
        recompute(self, s.recompute)

    def trunk(self) -> tuple[nn.Module, int]:
        """The regressor's."""
        return self.regressor.trunk, self.regressor.maps.in_channels

    def find(self, images: Tensor) -> Tensor:
        """T'."""
        if self.regressor.head == "position":  # whatever the prior
            return self.regressor.positions(images)
        T = self.memory.prior()
        return affine_warp(T, self.regressor(images, T))

    # Priors

    @torch.no_grad()
    def prior(self) -> Prior:
        """The pose prior: keypoints (N, 2) and connectivity (N, N), without gradient.

        Raises:
            RuntimeError: the parameters are shared out over processes (FSDP2), and not gathered.
        """
        check_gathered(self, "prior")
        return Prior(self.memory.prior(), self.connectivity())

    def prototype_poses(self) -> Tensor:
        """(m, k, N, 2): the pose of each memory vector, all other banks at their means. Raises as `prior` does."""
        check_gathered(self, "prototype_poses")
        return self.memory.prototype_poses()

    def usage(self) -> tuple[Tensor, Tensor]:
        """Per bank: perplexity (m,), 1 to k, of how often its vectors are chosen, and number of dead vectors (m,)."""
        return self.memory.usage()

    def memory_report(self) -> MemoryReport:
        """The poses that the memory's vectors stand for, and how much of it is used."""
        return MemoryReport(self.prototype_poses(), self.memory.sizes, *self.usage())

    def progress(self) -> dict[str, float]:
        """Mean perplexity of the memory's banks and number of dead vectors."""
        perplexity, dead = self.usage()
        return {"perplexity": float(perplexity.float().mean()), "dead_vectors": int(dead.sum())}

    def keep(self) -> None:
        """Keep the prior and the weights of the links."""
        super().keep()
        self.memory.kept_prior = self.memory.prior()

    # Training

    def forward(
        self, images: Tensor, reference: Tensor | None = None, losses: bool = True, figure: Tensor | None = None
    ) -> PPLOutput:
        """Estimate, reconstruct, and take the losses, in the paper's order and letters.

        Args:
            images: I, (B, 3, S, S) in [-1, 1], S = image_size; any float dtype, computed in the parameters'.
            reference: (B, 3, S, S), what the translator takes appearance from, such as another frame of the same
                clip. Default: the images, in training mode with random blocks dropped.
            losses: whether to take the losses. Without, the memory does not move, and no weights of the perceptual
                loss are needed.
            figure: (B, 1, S, S) in [0, 1], where the subject is, below 0 throughout for an image where that is unknown;
                for extensions, whose links and keypoints are then drawn to it.

        Raises:
            TypeError, ValueError: images of the wrong type, shape, device or range.
            FileNotFoundError: the perceptual loss finds no weights.
        """
        images, reference = self.checked(images, reference)
        masks = self.told(figure, images, self.masks(images, reference))
        read = self.memory.vectors(images, learn=losses)
        T, W = self.memory.prior(read), self.link_weights()  # the priors: keypoints (N, 2), and links (E,)
        theta = self.regressor(self.seen(images, masks), T)
        T_prime = affine_warp(T, theta)  # T'_i = theta_i [T_i; 1]
        S = self.draw(T_prime, W)
        I_prime = self.translator(self.alpha * self.appearance(images, reference, masks), self.drawn(S, masks))
        recalled, commitment = self.memory(T_prime.detach(), learn=losses, vectors=read)
        prior = Prior(T, self.connectivity())
        out = PPLOutput(T_prime, prior, S, I_prime, {}, None, theta, recalled, commitment)
        return self.with_losses(Pass(images, out, W, masks)) if losses else out

    # Estimation

    def estimate(self, images: Tensor, iterations: int = 1, visible: Tensor | None = None) -> Tensor:
        """Keypoints of images, in eval mode and without gradient.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            iterations: estimation passes; each further one sees the image as reconstructed from the memory's version
                of the pose so far (paper, iterative inference).
            visible: (B, 1, S, S) bool. Where given, the pixels outside are treated as unknown, and only they are
                filled in from the reconstruction.

        Returns:
            (B, N, 2), (x, y) in [-1, 1].

        Raises:
            TypeError, ValueError: arguments of the wrong type, shape, device or range.
        """
        return self.estimate_rounds(images, iterations, visible)[-1][0]

    @torch.no_grad()
    def estimate_rounds(
        self, images: Tensor, iterations: int = 1, visible: Tensor | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Like `estimate`, and gives for each round the keypoints (B, N, 2) and the images (B, 3, S, S) it saw."""
        images = self.masked(images, visible)
        iterations = plain(iterations)
        if not isinstance(iterations, int) or iterations < 1:
            raise ValueError(f"{type(self).__name__}: iterations must be an int of at least 1, got {iterations!r}")
        seen, rounds = images, []
        model = in_eval(self)
        prior, weights = model.memory.prior(), model.link_weights()
        while True:
            keypoints = affine_warp(prior, model.regressor(seen, prior))
            rounds.append((keypoints, seen))
            if len(rounds) == iterations:
                return rounds
            seen = model.imagined(images, visible, keypoints, weights)

    def imagined(self, images: Tensor, visible: Tensor | None, keypoints: Tensor, weights: Tensor) -> Tensor:
        """The images as reconstructed from the memory's version of the pose, where not visible or everywhere."""
        return self.painted(images, visible, self.memory(keypoints)[0], weights)

    def painted(self, images: Tensor, visible: Tensor | None, pose: Tensor, weights: Tensor) -> Tensor:
        """The images as reconstructed from a pose (B, N, 2), where not visible or everywhere."""
        heatmap = self.draw(pose, weights)
        imagined = self.translator(self.alpha * images, heatmap).to(images.dtype).clamp(-1, 1)
        return imagined if visible is None else torch.where(visible, images, imagined)

    @torch.no_grad()
    def evidence(self, images: Tensor, keypoints: Tensor) -> dict[str, Tensor]:
        """See `KeypointModel.evidence`."""
        images, model = self.checked(images)[0], in_eval(self)
        recalled = model.memory(keypoints, learn=False)[0]
        return concentration(model.regressor.attention(images)) | {"recall": (keypoints - recalled).norm(dim=2)}
