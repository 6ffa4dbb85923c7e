"""link_heatmap: the brightest link at every pixel (paper section 3, the heatmap S that carries the pose)."""

import math
from typing import Any, Protocol

import torch
from torch import Tensor

from ppl_fast import _backend, _check, _devices, _library
from ppl_fast._backend import Backend
from ppl_fast._library import Autograd, Context, Definition, Op
from ppl_fast.ops._examples import normal

# For pixel p and link e from a to b:  t = clamp((p - a) . (b - a) / |b - a|^2, 0, 1),  r = p - a - t (b - a),
#   S(p) = max_e max(w_e, 0) exp(-|r|^2 / thickness), compared as log w_e - |r|^2 / thickness, lowest index on ties.
# The gradient goes to the winning link alone (t is stationary or clamped, so it counts as constant):
#   dS/da = 2 S (1 - t) r / thickness,  dS/db = 2 S t r / thickness,  dS/dw = exp(-|r|^2 / thickness) where w >= 0.
# winner (B, H, W) holds that link's index, or -1 where S is below the smallest normal float and is written as 0.
# Where no weight of a sample is positive, S is 0 and the tie goes to link 0. A sample of `poisoned_samples` has NaN for
# its heatmap and its gradients, even where there are no links.

_SCHEMA = "(Tensor keypoints, Tensor weights, Tensor links, int height, int width, float thickness) -> (Tensor, Tensor)"
_SCHEMA_BACKWARD = (
    "(Tensor grad_heatmap, Tensor keypoints, Tensor weights, Tensor links, Tensor winner, float thickness) "
    "-> (Tensor, Tensor)"
)


def _pixels(height: int, width: int, like: Tensor) -> Tensor:
    """The pixel centres (H, W, 2), (x, y) in [-1, 1]."""
    ys, xs = (torch.linspace(-1, 1, size, dtype=like.dtype, device=like.device) for size in (height, width))
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)


def _residuals(pixels: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Parameter t (...) and residual r (..., 2) of pixels (..., 2) against segments (..., 2 ends, 2)."""
    a, along = ends[..., 0, :], ends[..., 1, :] - ends[..., 0, :]
    length2 = along.square().sum(-1)
    t = ((pixels - a) * along).sum(-1) / torch.where(length2 > 0, length2, 1)  # a link of zero length is the point a
    t = t.clamp(0, 1)
    return t, pixels - a - t.unsqueeze(-1) * along


def largest_coordinate(dtype: torch.dtype, thickness: float) -> float:
    """How far from 0 a keypoint may lie, so that no squared difference overflows, nor does it over thickness.

    Kernels scale coordinates by sqrt(log2(e) / thickness). In float32 the bound is 1.2e17 at a thickness of 1e-3.
    """
    return math.sqrt(torch.finfo(dtype).max) / 4 / max(1.0, math.sqrt(math.log2(math.e) / thickness))


def poisoned_samples(keypoints: Tensor, weights: Tensor, thickness: float) -> Tensor:
    """(B,) bool: samples with a keypoint or weight that is not finite, or a keypoint too far off to square."""
    near = keypoints.abs() <= largest_coordinate(keypoints.dtype, thickness)
    return ~(near.flatten(1).all(1) & weights.isfinite().all(1))


def _to_compute(keypoints: Tensor, weights: Tensor, links: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    compute = torch.promote_types(keypoints.dtype, torch.float32)
    x = keypoints.to(compute)
    return x, weights.to(compute).expand(x.shape[0], links.shape[0]), x[:, links]


def link_heatmap_reference(
    keypoints: Tensor, weights: Tensor, links: Tensor, height: int, width: int, thickness: float
) -> tuple[Tensor, Tensor]:
    """Heatmap (B, 1, H, W) and winner (B, H, W); keypoints (B, N, 2), weights (E,) or (B, E). The definition."""
    x, w, ends = _to_compute(keypoints, weights, links)
    winner_type = torch.int16 if len(links) <= 32767 else torch.int32
    poisoned = poisoned_samples(x, w, thickness)[:, None, None, None]
    if w.numel() == 0:
        winner = torch.full((x.shape[0], height, width), -1, dtype=winner_type, device=x.device)
        return keypoints.new_zeros((x.shape[0], 1, height, width)).masked_fill(poisoned, math.nan), winner
    _, r = _residuals(_pixels(height, width, x), ends[:, :, None, None])
    logs = w.clamp(min=0).log()[..., None, None] - r.square().sum(-1) / thickness
    best = logs.amax(1, keepdim=True)
    winner = (logs == best).byte().argmax(1)  # argmax of 0/1 bytes: the first maximum, so the lowest index
    vanished = best < math.log(torch.finfo(x.dtype).tiny)
    heatmap = best.exp().masked_fill(vanished, 0).masked_fill(poisoned, math.nan)
    some_positive = (w > 0).any(1)[:, None, None]
    winner = winner.masked_fill((vanished[:, 0] & some_positive) | poisoned[:, 0], -1)
    return heatmap.to(keypoints.dtype), winner.to(winner_type)


def _formula(
    keypoints: Tensor, weights: Tensor, links: Tensor, height: int, width: int, thickness: float
) -> tuple[Tensor, Tensor]:
    """The same, as a function of the winning links' ends and weights that torch differentiates."""
    heatmap, winner = link_heatmap_reference(keypoints.detach(), weights.detach(), links, height, width, thickness)
    x, w, ends = _to_compute(keypoints, weights, links)
    if w.numel() == 0:
        return heatmap, winner
    e = winner.flatten(1).long().clamp(min=0)
    at = e[..., None, None].expand(-1, -1, 2, 2)
    _, r = _residuals(_pixels(height, width, x).flatten(0, 1), ends.gather(1, at))
    values = w.gather(1, e).clamp(min=0) * torch.exp(-r.square().sum(-1) / thickness)
    values = torch.where(winner.flatten(1) < 0, 0, values)
    poison = torch.where(poisoned_samples(x, w, thickness), math.nan, 1.0).to(x.dtype)[:, None]
    return (values * poison).unflatten(1, (1, height, width)).to(keypoints.dtype), winner


def link_heatmap_backward_reference(
    grad_heatmap: Tensor, keypoints: Tensor, weights: Tensor, links: Tensor, winner: Tensor, thickness: float
) -> tuple[Tensor, Tensor]:
    """(grad_keypoints, grad_weights), each in the shape and dtype of its input."""
    x, w, ends = _to_compute(keypoints, weights, links)
    grad_ends, grad_w, grad_x = torch.zeros_like(ends), torch.zeros_like(w), torch.zeros_like(x)
    if winner.numel() and w.numel():
        e = winner.flatten(1).long().clamp(min=0)
        g = grad_heatmap.to(x.dtype).flatten(1).masked_fill(winner.flatten(1) < 0, 0)
        at = e[..., None, None].expand(-1, -1, 2, 2)
        t, r = _residuals(_pixels(winner.shape[1], winner.shape[2], x).flatten(0, 1), ends.gather(1, at))
        g = g * torch.exp(-r.square().sum(-1) / thickness)
        grad_w.scatter_add_(1, e, g.masked_fill(w.gather(1, e) < 0, 0))
        pull = (2 / thickness * g * w.gather(1, e).clamp(min=0)).unsqueeze(-1) * r
        grad_ends.scatter_add_(1, at, torch.stack([(1 - t).unsqueeze(-1) * pull, t.unsqueeze(-1) * pull], 2))
        grad_x.index_add_(1, links.flatten(), grad_ends.flatten(1, 2))
    poisoned = poisoned_samples(x, w, thickness)[:, None]
    grad_w = grad_w.masked_fill(poisoned, math.nan)
    grad_x = grad_x.masked_fill(poisoned.unsqueeze(-1), math.nan)
    return grad_x.to(keypoints.dtype), (grad_w if weights.dim() == 2 else grad_w.sum(0)).to(weights.dtype)


def _fake(
    keypoints: Tensor, weights: Tensor, links: Tensor, height: int, width: int, thickness: float
) -> tuple[Tensor, Tensor]:
    b, winner_type = keypoints.shape[0], torch.int16 if links.shape[0] <= 32767 else torch.int32
    return keypoints.new_empty((b, 1, height, width)), keypoints.new_empty((b, height, width), dtype=winner_type)


def _fake_backward(
    grad_heatmap: Tensor, keypoints: Tensor, weights: Tensor, links: Tensor, winner: Tensor, thickness: float
) -> tuple[Tensor, Tensor]:
    return keypoints.new_empty(keypoints.shape), weights.new_empty(weights.shape)


class _Context(Context, Protocol):
    thickness: float


def _setup_context(
    ctx: _Context, inputs: tuple[Tensor, Tensor, Tensor, int, int, float], output: tuple[Tensor, Tensor]
) -> None:
    keypoints, weights, links, _, _, ctx.thickness = inputs
    ctx.save_for_backward(keypoints, weights, links, output[1])


def _backward(gradient: Op, ctx: _Context, grad_heatmap: Tensor, grad_winner: None) -> tuple[Tensor | None, ...]:
    return *gradient(grad_heatmap, *ctx.saved_tensors, ctx.thickness), None, None, None, None


_OPERATOR = _library.define(
    "link_heatmap",
    Definition(_SCHEMA, link_heatmap_reference, _fake),
    Definition(_SCHEMA_BACKWARD, link_heatmap_backward_reference, _fake_backward),
    Autograd(_setup_context, _backward),
    _formula,
)

_cached_links: dict[tuple[int, torch.device], Tensor] = {}


def default_links(num_keypoints: int, device: torch.device | str | None = None) -> Tensor:
    """Every pair i < j of `num_keypoints` keypoints in row-major order: (E, 2) int64, E = N (N - 1) / 2."""
    return torch.triu_indices(num_keypoints, num_keypoints, 1, device=device).T.contiguous()


def _links(num_keypoints: int, device: torch.device) -> Tensor:
    if torch.compiler.is_compiling():  # a tensor made while tracing must not outlive the trace
        return default_links(num_keypoints, device)
    if _check.is_traced():
        return default_links(num_keypoints, device)
    if (cached := _cached_links.get((num_keypoints, device))) is not None:
        return cached
    if _devices.capturing(device.type):  # its memory will be the graph's
        return default_links(num_keypoints, device)
    with torch.inference_mode(False):
        links = default_links(num_keypoints, device)
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)  # later calls may be on other streams
    _cached_links[num_keypoints, device] = links
    return links


def _check_links(links: Tensor, num_keypoints: int, device: torch.device) -> Tensor:
    _check.tensor("link_heatmap", "links", links, ("E", 2), dtypes=(torch.int64, torch.int32))
    # Where they are not looked at, the kernels answer a wrong index with NaN.
    if links.numel() and not _check.are_hidden(links):
        low, high = int(links.min()), int(links.max())
        if low < 0 or high >= num_keypoints:
            raise ValueError(
                f"link_heatmap: links must hold keypoint indices from 0 to {num_keypoints - 1}, got {low} to {high}"
            )
    return links.to(device=device, dtype=torch.int64)


def _example(g: torch.Generator) -> dict[str, Any]:
    weights = normal(g, 21).exp() / 20
    return {"keypoints": normal(g, 3, 7, 2).tanh(), "weights": weights, "size": (37, 50), "thickness": 1e-2}


@_OPERATOR.public(differentiable=("keypoints", "weights"), example=_example)
def link_heatmap(
    keypoints: Tensor,
    weights: Tensor,
    size: int | tuple[int, int],
    thickness: float,
    links: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> Tensor:
    """Draw weighted links between keypoints as one heatmap: at each pixel the largest w exp(-distance^2 / thickness).

    Args:
        keypoints: (B, N, 2), (x, y), -1 and +1 at the centres of the first and last pixel; may lie outside.
            float16, bfloat16, float32 or float64.
        weights: (E,), shared by the batch, or (B, E); a negative weight counts as 0. Same device as `keypoints`; of
            two dtypes the wider one is used.
        size: image size in pixels, an int or (height, width).
        thickness: the scale of the squared distance (in the units of the keypoints), above 0.
        links: (E, 2) int64 or int32 pairs of keypoint indices; default: all i < j in row-major order.
        backend: `auto`, `cpp`, `triton` or `reference`.

    Returns:
        heatmap (B, 1, H, W), in the dtype of the inputs. The gradient of a pixel flows to the winning link alone (the
        lowest index on ties) and is summed in a fixed order, the same in every batch. A sample with a keypoint or
        weight that is not finite is NaN throughout, with links or without, as are its gradients; so is one with a
        keypoint so far off that squares of scaled coordinates overflow (in float32 beyond 1.2e17 at a thickness of
        1e-3). Values below the smallest normal float are 0.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        RuntimeError: a backend asked for by name that cannot run here.
    """
    _check.tensor("link_heatmap", "keypoints", keypoints, ("B", "N", 2))
    b, n = keypoints.shape[:2]
    links = _links(n, keypoints.device) if links is None else _check_links(links, n, keypoints.device)
    e = links.shape[0]
    _check.tensor("link_heatmap", "weights", weights, (e,), (b, e), like=keypoints)
    height, width = _check.size("link_heatmap", "size", size)
    thickness = _check.positive("link_heatmap", "thickness", thickness)
    dtype = torch.promote_types(keypoints.dtype, weights.dtype)
    op = _backend.select("link_heatmap", backend, keypoints.device, dtype)
    heatmap: Tensor = op(keypoints.to(dtype), weights.to(dtype), links, height, width, thickness)[0]
    return heatmap
