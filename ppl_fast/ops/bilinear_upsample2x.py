"""bilinear_upsample2x: maps of twice the height and width, as the networks' ways up take them (paper section 3)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ppl_fast import _backend, _check, _library
from ppl_fast._backend import Backend
from ppl_fast._library import Autograd, Context, Definition, Op
from ppl_fast.ops._examples import normal

# Along each of the two axes, with half-pixel centres, the outputs 2i and 2i + 1 of cell i of n are
#   even[i] = x[i - 1] / 4 + 3 x[i] / 4, even[0] = x[0];   odd[i] = 3 x[i] / 4 + x[i + 1] / 4, odd[n - 1] = x[n - 1].
# So each cell gathers its gradient from four outputs; where a neighbour is missing, its quarter goes to the border's:
#   grad_x[i] = 3 (even[i] + odd[i]) / 4 + (odd[i - 1] + even[i + 1]) / 4.

_SCHEMA = "(Tensor maps) -> Tensor"
_SCHEMA_BACKWARD = "(Tensor grad_doubled) -> Tensor"


def _formula(maps: Tensor) -> Tensor:
    x = maps.to(torch.promote_types(maps.dtype, torch.float32))
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False).to(maps.dtype)


def bilinear_upsample2x_reference(maps: Tensor) -> Tensor:
    """Doubled (B, C, 2H, 2W) from maps (B, C, H, W), laid out as they are; the definition."""
    layout = layout_of(maps)
    return _formula(maps.contiguous(memory_format=layout)).contiguous(memory_format=layout)


def bilinear_upsample2x_backward_reference(grad_doubled: Tensor) -> Tensor:
    """grad_maps (B, C, H, W), laid out as grad_doubled (B, C, 2H, 2W) is."""
    g = grad_doubled.to(torch.promote_types(grad_doubled.dtype, torch.float32))
    for dim in (2, 3):
        even, odd = g.unflatten(dim, (-1, 2)).unbind(dim + 1)
        rest = even.shape[dim] - 1
        before = torch.cat([even.narrow(dim, 0, 1), odd.narrow(dim, 0, rest)], dim)
        after = torch.cat([even.narrow(dim, 1, rest), odd.narrow(dim, rest, 1)], dim)
        g = 0.75 * (even + odd) + 0.25 * (before + after)
    return g.to(grad_doubled.dtype).contiguous(memory_format=layout_of(grad_doubled))


def layout_of(maps: Tensor) -> torch.memory_format:
    """Channels last where the channels of a cell lie side by side; csrc/bilinear_upsample2x_arguments.h has it too.

    The last stride tells maps of one cell apart.
    """
    last = maps.stride(1) == 1 and maps.stride(3) > 1
    return torch.channels_last if last else torch.contiguous_format


def empty_maps(like: Tensor, height: int, width: int) -> Tensor:
    """Maps of another height and width, laid out as `like`."""
    sizes = (like.shape[0], like.shape[1], height, width)
    return torch.empty(sizes, dtype=like.dtype, device=like.device, memory_format=layout_of(like))


def _fake(maps: Tensor) -> Tensor:
    return empty_maps(maps, 2 * maps.shape[2], 2 * maps.shape[3])


def _fake_backward(grad_doubled: Tensor) -> Tensor:
    return empty_maps(grad_doubled, grad_doubled.shape[2] // 2, grad_doubled.shape[3] // 2)


def _setup_context(ctx: Context, inputs: tuple[Tensor], output: Tensor) -> None:
    """Nothing is kept: the gradient's size says all."""


def _backward(gradient: Op, ctx: Context, grad_doubled: Tensor) -> Tensor:
    grad_maps: Tensor = gradient(grad_doubled)
    return grad_maps


_OPERATOR = _library.define(
    "bilinear_upsample2x",
    Definition(_SCHEMA, bilinear_upsample2x_reference, _fake),
    Definition(_SCHEMA_BACKWARD, bilinear_upsample2x_backward_reference, _fake_backward),
    Autograd(_setup_context, _backward),
    formula=_formula,
)


def _example(g: torch.Generator) -> dict[str, Any]:
    return {"maps": normal(g, 2, 16, 9, 5).contiguous(memory_format=torch.channels_last)}


@_OPERATOR.public(differentiable=("maps",), example=_example)
def bilinear_upsample2x(maps: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Double the height and width of maps, bilinearly between the centres of cells.

    As torch does by `interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)`.

    Args:
        maps: (B, C, H, W), C, H and W >= 1, channels last or contiguous; what lies otherwise is copied. float16,
            bfloat16, float32 or float64.
        backend: `auto`, `cpp`, `triton` or `reference`.

    Returns:
        doubled (B, C, 2H, 2W), in the dtype of `maps` and laid out as they are; sums are taken in float32 (float64) and
        rounded once, under autocast too. Differentiable; each cell gathers its gradient in a fixed order, and it lies
        as the gradient that comes in.

    Raises:
        TypeError, ValueError: maps of the wrong type, dtype or shape.
        RuntimeError: a backend asked for by name that cannot run here.
    """
    _check.tensor("bilinear_upsample2x", "maps", maps, ("B", "C", "H", "W"))
    if not (maps.shape[1] and maps.shape[2] and maps.shape[3]):
        raise ValueError(f"bilinear_upsample2x: maps must have C, H and W >= 1, got {tuple(maps.shape)}")
    op = _backend.select("bilinear_upsample2x", backend, maps.device, maps.dtype)
    doubled: Tensor = op(maps)
    return doubled
