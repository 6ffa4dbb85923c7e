"""The hierarchical memory: poses as one vector chosen from each of m banks (paper, section 3).

The banks learn by exponential moving averages of the tokens that chose each vector (van den Oord et al., "Neural
Discrete Representation Learning", appendix A.1), not by gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ppl_fast.models.blocks import MixerLayer, check_gathered, no_autocast
from ppl_fast.ops import memory_attention, prototype_sums

if TYPE_CHECKING:
    from typing_extensions import Self

SMOOTHING = 1e-5  # Laplace smoothing of the sizes
DEAD_SHARE = 0.02  # a vector whose size is below this share of its bank's mean counts as dead


@dataclass
class _Pass:
    """The last pass that moved the vectors: what it was over, what it read, and whether it can still be told apart."""

    key: tuple[int, tuple[int, ...]]
    codebook: Tensor
    repeated: bool  # over the images of the pass before, which may be computed again as well
    recomputed: bool = False


class HierarchicalMemory(nn.Module):
    """Encoder, m banks of k vectors of width d, and decoder.

    Buffers: codebook (m, k, d); sizes (m, k) and sums (m, k, d), its moving averages; idle (m, k) int64, training
    steps since a vector was last chosen. All stays float32 under autocast and in a model of half precision: moving
    averages need its digits, and vectors that nothing chose yet have values beyond float16.

    The arguments are the options `memory_*` of `PPLConfig` and those of `ExtendedPPLConfig`; `held`: it does not learn.
    """

    codebook: Tensor
    sizes: Tensor
    sums: Tensor
    idle: Tensor
    _pass: _Pass | None = None
    kept_prior: Tensor | None  # in a copy that `optimize` made

    def __init__(
        self,
        num_keypoints: int,
        *,
        banks: int = 34,
        prototypes: int = 16,
        width: int = 512,
        layers: int = 4,
        hidden: int = 512,
        token_hidden: int = 64,
        decoder_width: int = 32,
        decoder_hidden: int = 64,
        decoder_layers: int = 1,
        decay: float = 0.9,
        start: str = "published",
        reseed_after: int = 0,
        held: bool = False,
    ):
        super().__init__()
        self.decay, self.reseed_after, self.held = decay, reseed_after, held
        mixers = [MixerLayer(num_keypoints, width, token_hidden, hidden) for _ in range(layers)]
        self.encoder = nn.Sequential(nn.Linear(2, width), *mixers, nn.LayerNorm(width))
        self.to_banks = nn.Linear(num_keypoints, banks)
        self.to_token = nn.Linear(width, width)
        self.from_banks = nn.Linear(banks, num_keypoints)
        mixers = [MixerLayer(num_keypoints, decoder_width, token_hidden, decoder_hidden) for _ in range(decoder_layers)]
        norm = nn.LayerNorm(decoder_width)
        self.decoder = nn.Sequential(nn.Linear(width, decoder_width), *mixers, norm, nn.Linear(decoder_width, 2))

        codebook = torch.randn(banks, prototypes, width)
        balanced = start == "balanced"
        self.register_buffer("codebook", codebook)
        self.register_buffer("sums", codebook.clone() if balanced else torch.randn_like(codebook))
        self.register_buffer("sizes", torch.full((banks, prototypes), float(balanced)))
        self.register_buffer("kept_prior", None, persistent=False)
        self.register_buffer("idle", torch.zeros(banks, prototypes, dtype=torch.int64))
        self.requires_grad_(not held)

    def vectors(self, images: Tensor, learn: bool) -> Tensor | None:
        """What a pass over these images is to read where that is not the codebook any more, else None.

        Activation checkpointing runs a pass again within the backward, when the vectors have moved: the second run
        reads what the first one read, and moves nothing.

        Args:
            images: of the pass.
            learn: whether the vectors may move.

        Raises:
            RuntimeError: the memory has moved on since: another pass came between a pass and its backward.
        """
        if not self._moves(learn) or torch.compiler.is_compiling():
            return None
        key = images.data_ptr(), tuple(images.shape)
        if torch._C._current_graph_task_id() == -1:  # no backward is running
            repeated = self._pass is not None and self._pass.key == key and not self._pass.recomputed
            self._pass = _Pass(key, self.codebook, repeated)
            return None
        if self._pass is None or self._pass.key != key or self._pass.repeated:
            raise RuntimeError(
                "HierarchicalMemory: a checkpointed pass is computed again after the memory has moved on; call "
                "backward before the next pass, or checkpoint the regressor and the translator instead of the whole"
            )
        self._pass.recomputed = True
        return self._pass.codebook

    def forward(self, keypoints: Tensor, learn: bool = True, vectors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Recall keypoints from the memory.

        The gradient of the recalled keypoints passes straight through the choice to the encoder. In training mode the
        vectors move after they were read, unless `learn` is False.

        Args:
            keypoints: (B, N, 2).
            learn: whether the vectors may move.
            vectors: to read in place of the codebook, which then stays as it is; see `vectors`.

        Returns:
            The recalled keypoints (B, N, 2), and the commitment loss, a scalar.
        """
        with no_autocast(keypoints.device):
            tokens = self.encode(keypoints)
            learn = self._moves(learn) and vectors is None
            # The update below writes into the buffer, the backward needs the vectors as they were read.
            codebook = self.codebook.clone() if learn else self.codebook if vectors is None else vectors
            if learn and self._pass is not None and not torch.compiler.is_compiling():
                self._pass.codebook = codebook
            values, indices, distances = memory_attention(tokens, codebook)
            if learn:
                self._update(tokens.detach(), indices, distances.detach())
            return self.decode(values), distances.mean() / tokens.shape[2]

    def _moves(self, learn: bool) -> bool:
        """Whether a pass moves the vectors."""
        return learn and self.training and not self.held

    def encode(self, keypoints: Tensor) -> Tensor:
        """(B, N, 2) -> tokens (B, m, d)."""
        x = self.encoder(keypoints.to(self.dtype))
        # The same view, which has the gradient come contiguous: torch's compilers without inductor are wrong about the
        # strides that layer_norm gives for another.
        x = x.flatten(1).unflatten(1, x.shape[1:])
        tokens: Tensor = self.to_token(self.to_banks(x.mT).mT)
        return tokens

    def decode(self, tokens: Tensor) -> Tensor:
        """(B, m, d) -> keypoints (B, N, 2)."""
        keypoints: Tensor = self.decoder(self.from_banks(tokens.mT).mT)
        return keypoints

    @property
    def dtype(self) -> torch.dtype:
        """Of the encoder and the decoder; asked of a norm, as a quantized linear layer has none."""
        return next(self.encoder[-1].parameters()).dtype

    @torch.no_grad()
    def prior(self, vectors: Tensor | None = None) -> Tensor:
        """The keypoint prior (N, 2): the decoded mean of each bank's vectors, or of others, without gradient."""
        return self.decoded_mean(vectors) if self.kept_prior is None else self.kept_prior

    def decoded_mean(self, vectors: Tensor | None = None) -> Tensor:
        """Like `prior`, with its gradient to the decoder."""
        check_gathered(self, "prior")
        codebook = self.codebook if vectors is None else vectors
        with no_autocast(codebook.device):
            return self.decode(codebook.mean(dim=1).unsqueeze(0)).squeeze(0)

    @torch.no_grad()
    def prototype_poses(self) -> Tensor:
        """(m, k, N, 2): the pose that each vector stands for, all other banks at their means."""
        check_gathered(self, "prototype_poses")
        means = self.codebook.mean(dim=1)
        poses = []
        with no_autocast(means.device):
            for bank, vectors in enumerate(self.codebook):
                tokens = means.repeat(len(vectors), 1, 1)
                tokens[:, bank] = vectors
                poses.append(self.decode(tokens))
        return torch.stack(poses)

    @torch.no_grad()
    def usage(self) -> tuple[Tensor, Tensor]:
        """Per bank: the perplexity of its sizes (m,), 1 to k, and the number of dead vectors (m,) int64."""
        share = self.sizes / self.sizes.sum(dim=1, keepdim=True).clamp_min(torch.finfo(self.sizes.dtype).tiny)
        dead = share < DEAD_SHARE / self.sizes.shape[1]
        return torch.special.entr(share).sum(dim=1).exp(), dead.sum(dim=1)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles, which begin between two passes."""
        return self.__dict__ | {"_pass": None}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What every conversion of a module goes through: nothing here gets fewer digits than float32 has."""

        def converted(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            if found.is_floating_point() and found.dtype.itemsize < torch.float32.itemsize:
                return tensor.to(found.device, torch.promote_types(tensor.dtype, torch.float32))
            return found

        super()._apply(converted, recurse)  # type: ignore[no-untyped-call]
        return self

    def _update(self, tokens: Tensor, indices: Tensor, distances: Tensor) -> None:
        """Move the vectors by tokens and distances without gradient; torch.export cannot write a no_grad around it."""
        k = self.codebook.shape[1]
        counts, sums = prototype_sums(tokens, indices, k)
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        sizes = self.decay * self.sizes + (1 - self.decay) * counts
        total = sizes.sum(dim=1, keepdim=True)
        sizes = (sizes + SMOOTHING) / (total + k * SMOOTHING) * total
        sums = torch.add(self.decay * self.sums, sums, alpha=1 - self.decay)
        idle = (self.idle + 1).masked_fill(counts > 0, 0)
        codebook = sums / sizes.unsqueeze(2)
        if self.reseed_after:
            sizes, sums, codebook, idle = self._reseeded(sizes, sums, codebook, idle, tokens, distances)
        # As one tensor, whole before a buffer is written: the inductor of torch 2.10 may otherwise take the sizes just
        # written for the old ones.
        state, width = torch.cat([codebook, sums, sizes.unsqueeze(2)], dim=2), sums.shape[2]
        self.codebook.copy_(state[:, :, :width])
        self.sums.copy_(state[:, :, width:-1])
        self.sizes.copy_(state[:, :, -1])
        self.idle.copy_(idle)

    def _reseeded(
        self, sizes: Tensor, sums: Tensor, codebook: Tensor, idle: Tensor, tokens: Tensor, distances: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Idle vectors become the tokens that their bank represents worst, with the bank's mean size."""
        dead = idle >= self.reseed_after
        order = distances.argsort(dim=0, descending=True, stable=True)
        rank = (dead.cumsum(dim=1) - 1).clamp_min(0) % len(tokens)
        bank = torch.arange(len(dead), device=dead.device).unsqueeze(1)
        seeds = tokens[order[rank, bank], bank]
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            dist.broadcast(seeds, src=0)
        mask, mean = dead.unsqueeze(2), sizes.mean(dim=1, keepdim=True)
        sums = torch.where(mask, seeds * mean.unsqueeze(2), sums)
        return torch.where(dead, mean, sizes), sums, torch.where(mask, seeds, codebook), idle.masked_fill(dead, 0)
