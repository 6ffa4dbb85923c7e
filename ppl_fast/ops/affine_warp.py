"""affine_warp: one affine map per keypoint, T'_i = Theta_i [T_i; 1] (paper section 3, the pose of an image)."""

from typing import Any

import torch
from torch import Tensor

from ppl_fast import _backend, _check, _library
from ppl_fast._backend import Backend
from ppl_fast._library import Autograd, Context, Definition, Op
from ppl_fast.ops._examples import normal

# points = A x + b with A = affine[..., :2], b = affine[..., 2], so for an upstream gradient g:
#   grad_affine = g [x; 1]^T,   grad_x = A^T g (summed over the batch where the keypoints are shared).

_SCHEMA = "(Tensor keypoints, Tensor affine) -> Tensor"
_SCHEMA_BACKWARD = "(Tensor grad_points, Tensor keypoints, Tensor affine) -> (Tensor, Tensor)"


def affine_warp_reference(keypoints: Tensor, affine: Tensor) -> Tensor:
    """Points (B, N, 2) from keypoints (N, 2) or (B, N, 2) and affine (B, N, 2, 3); the definition."""
    compute = torch.promote_types(keypoints.dtype, torch.float32)
    x, theta = keypoints.to(compute), affine.to(compute)
    return ((theta[..., :2] * x[..., None, :]).sum(-1) + theta[..., 2]).to(keypoints.dtype)


def affine_warp_backward_reference(grad_points: Tensor, keypoints: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    """(grad_keypoints, grad_affine), each in the shape and dtype of its input."""
    compute = torch.promote_types(keypoints.dtype, torch.float32)
    g, x, theta = grad_points.to(compute), keypoints.to(compute), affine.to(compute)
    homogeneous = torch.cat([x, torch.ones_like(x[..., :1])], -1)
    grad_affine = g[..., :, None] * homogeneous[..., None, :]
    grad_keypoints = (theta[..., :2] * g[..., :, None]).sum(-2)
    if keypoints.dim() == 2:
        grad_keypoints = grad_keypoints.sum(0)
    return grad_keypoints.to(keypoints.dtype), grad_affine.to(affine.dtype)


def _fake(keypoints: Tensor, affine: Tensor) -> Tensor:
    return keypoints.new_empty(affine.shape[:3])


def _fake_backward(grad_points: Tensor, keypoints: Tensor, affine: Tensor) -> tuple[Tensor, Tensor]:
    return keypoints.new_empty(keypoints.shape), affine.new_empty(affine.shape)


def _setup_context(ctx: Context, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(gradient: Op, ctx: Context, grad_points: Tensor) -> tuple[Tensor, Tensor]:
    grad_keypoints, grad_affine = gradient(grad_points, *ctx.saved_tensors)
    return grad_keypoints, grad_affine


_OPERATOR = _library.define(
    "affine_warp",
    Definition(_SCHEMA, affine_warp_reference, _fake),
    Definition(_SCHEMA_BACKWARD, affine_warp_backward_reference, _fake_backward),
    Autograd(_setup_context, _backward),
)


def _example(g: torch.Generator) -> dict[str, Any]:
    return {"keypoints": normal(g, 6, 2), "affine": normal(g, 4, 6, 2, 3)}


@_OPERATOR.public(differentiable=("keypoints", "affine"), example=_example)
def affine_warp(keypoints: Tensor, affine: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Map each keypoint by its own affine transform: points[b, i] = affine[b, i] @ [x_i, y_i, 1].

    Args:
        keypoints: (N, 2), one template shared by the batch, or (B, N, 2); (x, y), normally in [-1, 1].
            float16, bfloat16, float32 or float64.
        affine: (B, N, 2, 3); columns multiply x, y and 1, rows give x and y. Same device as `keypoints`; of two
            dtypes the wider one is used.
        backend: `auto`, `cpp`, `triton` or `reference`.

    Returns:
        points (B, N, 2), (x, y). Differentiable in both inputs; the gradient of a shared template is summed over the
        batch in a fixed order.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape or device.
        RuntimeError: a backend asked for by name that cannot run here.
    """
    _check.tensor("affine_warp", "affine", affine, ("B", "N", 2, 3))
    b, n = affine.shape[:2]
    _check.tensor("affine_warp", "keypoints", keypoints, (n, 2), (b, n, 2), like=affine)
    dtype = torch.promote_types(keypoints.dtype, affine.dtype)
    op = _backend.select("affine_warp", backend, keypoints.device, dtype)
    points: Tensor = op(keypoints.to(dtype), affine.to(dtype))
    return points
