"""affine_warp beyond the shared tester: maps known by heart, the published formula, a template that a batch shares."""

import math

import pytest
import torch
from formulas import published_affine_warp
from op_tester import running

import ppl_fast

A, B = math.cos(0.3), math.sin(0.3)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ([[1, 0, 0], [0, 1, 0]], (0.25, -0.5)),
        ([[1, 0, 0.5], [0, 1, 2]], (0.75, 1.5)),  # the last column moves
        ([[0, -1, 0], [1, 0, 0]], (0.5, 0.25)),  # a quarter turn from x, to the right, to y, down
        ([[2, 0, 0], [0, 4, 0]], (0.5, -2)),
        ([[A, -B, 0], [B, A, 0]], (0.25 * A + 0.5 * B, 0.25 * B - 0.5 * A)),
    ],
    ids=["identity", "translation", "quarter-turn", "scale", "rotation"],
)
def test_maps_known_by_heart(backend, matrix, expected):
    keypoints, affine = torch.tensor([[0.25, -0.5]]), torch.tensor([[matrix]], dtype=torch.float32)
    with running(backend) as name:
        points = ppl_fast.affine_warp(keypoints, affine, backend=name)
    torch.testing.assert_close(points, torch.tensor([[expected]], dtype=torch.float32), rtol=1e-6, atol=0)


def test_the_published_formula(backend):
    keypoints, affine = torch.randn(5, 7, 2, requires_grad=True), torch.randn(5, 7, 2, 3, requires_grad=True)
    upstream = torch.randn(5, 7, 2)
    with running(backend) as name:
        points = ppl_fast.affine_warp(keypoints, affine, backend=name)
        gradients = torch.autograd.grad(points, (keypoints, affine), upstream)
    formula = published_affine_warp(keypoints, affine)
    torch.testing.assert_close(points, formula, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        gradients, torch.autograd.grad(formula, (keypoints, affine), upstream), rtol=1e-5, atol=1e-6
    )


def test_a_shared_template_is_one_that_every_sample_has(backend):
    template, affine = torch.randn(7, 2, requires_grad=True), torch.randn(65, 7, 2, 3)
    upstream = torch.randn(65, 7, 2)
    with running(backend) as name:
        shared = ppl_fast.affine_warp(template, affine, backend=name)
        own = ppl_fast.affine_warp(template.expand(65, -1, -1), affine, backend=name)
        gradients = [torch.autograd.grad(points, template, upstream)[0] for points in (shared, own)]
    assert torch.equal(shared, own)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)
