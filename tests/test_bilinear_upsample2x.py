"""bilinear_upsample2x beyond the shared tester: torch's own, values known by heart, layouts, and rounding once."""

import pytest
import torch
import torch.nn.functional as F
from op_tester import running

import ppl_fast

LAYOUTS = [torch.channels_last, torch.contiguous_format]


def interpolated(maps):
    return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def test_values_known_by_heart(backend):
    maps = torch.tensor([[[[0.0, 4.0], [8.0, 12.0]]]])
    with running(backend) as name:
        doubled = ppl_fast.bilinear_upsample2x(maps, backend=name)
    row = torch.tensor([0.0, 1, 3, 4])
    assert torch.equal(doubled[0, 0], row + 2 * row[:, None])


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", [(2, 16, 8, 8), (1, 19, 3, 40), (2, 2, 1, 1), (1, 4, 33, 2)], ids=str)
def test_agrees_with_torch(backend, size, layout):
    maps = torch.randn(size).contiguous(memory_format=layout).requires_grad_()
    expected = interpolated(maps)
    with running(backend) as name:
        doubled = ppl_fast.bilinear_upsample2x(maps, backend=name)
        torch.testing.assert_close(doubled, expected, rtol=1e-6, atol=1e-6)
        upstream = torch.randn_like(expected)
        gradients = [torch.autograd.grad(y, maps, upstream)[0] for y in (doubled, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_comes_out_lies_as_what_goes_in(backend, layout, dtype):
    maps = torch.randn(2, 8, 5, 6, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    with running(backend) as name:
        doubled = ppl_fast.bilinear_upsample2x(maps, backend=name)
        (gradient,) = torch.autograd.grad(doubled, maps, torch.ones_like(doubled))
        (broadcast,) = torch.autograd.grad(ppl_fast.bilinear_upsample2x(maps, backend=name).sum(), maps)
    for each in (doubled, gradient):
        assert each.is_contiguous(memory_format=layout) and each.dtype == dtype
    assert torch.equal(gradient, torch.full_like(gradient, 4)) and torch.equal(broadcast, gradient)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_what_comes_out_may_be_changed_in_place(backend, layout):
    """As by a network that adds its skip to it: autograd would refuse a view."""
    maps = torch.randn(2, 8, 5, 6).contiguous(memory_format=layout).requires_grad_()
    with running(backend) as name:
        doubled = ppl_fast.bilinear_upsample2x(maps, backend=name)
        doubled.add_(1.0).sum().backward()
    assert torch.equal(maps.grad, torch.full_like(maps, 4))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_maps_of_one_cell_keep_their_layout(backend, layout):
    numbers = torch.arange(16.0).reshape(2, 8, 1, 1)  # that rounding leaves alone
    maps = torch.empty_like(numbers, memory_format=layout).copy_(numbers).requires_grad_()
    with running(backend) as name:
        doubled = ppl_fast.bilinear_upsample2x(maps, backend=name)
        (gradient,) = torch.autograd.grad(doubled, maps, torch.ones_like(doubled))
    assert doubled.is_contiguous(memory_format=layout) and torch.equal(doubled, maps.expand(2, 8, 2, 2))
    assert torch.equal(gradient, torch.full_like(maps, 4))


def test_a_border_takes_its_cells_value(backend):
    """Exactly: products with 1/4 and 3/4 of it would be rounded."""
    for layout in LAYOUTS:
        maps = torch.rand(1, 3, 9, 21).contiguous(memory_format=layout)
        with running(backend) as name:
            doubled = ppl_fast.bilinear_upsample2x(maps, backend=name)
        assert torch.equal(doubled[..., 0, 0], maps[..., 0, 0])


def test_halves_are_rounded_once(backend):
    maps = torch.randn(2, 8, 6, 7).bfloat16()
    with running(backend) as name:
        doubled = ppl_fast.bilinear_upsample2x(maps, backend=name)
    exact = interpolated(maps.double())
    torch.testing.assert_close(doubled.double(), exact, rtol=2**-8, atol=1e-6)
    assert torch.equal(doubled, exact.float().bfloat16())


def test_autocast_leaves_halves_as_they_are():
    maps = torch.randn(1, 2, 3, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert ppl_fast.bilinear_upsample2x(maps).dtype == torch.bfloat16
