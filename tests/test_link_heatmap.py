"""link_heatmap beyond the shared tester: the published formula, exact culling, poisoned samples, memory."""

import importlib
import math

import pytest
import torch
from cases.link_heatmap import random_links
from formulas import published_link_heatmap
from op_tester import running

import ppl_fast


def draw(seed, *args, dtype=torch.float64, **kwargs):
    inputs = random_links(*args, **kwargs)(torch.Generator().manual_seed(seed))
    return {k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}


def test_the_published_formula_and_its_autograd_gradient(backend):
    """The definition's explicit gradient is that of the formula, differentiated by torch."""
    inputs = draw(0, 2, 6, (30, 41), 1e-2)
    inputs["keypoints"].requires_grad_()
    inputs["weights"].requires_grad_()
    leaves = inputs["keypoints"], inputs["weights"]
    upstream = torch.randn(2, 1, 30, 41, dtype=torch.float64)
    expected = published_link_heatmap(**inputs)
    with running(backend) as name:
        actual = ppl_fast.link_heatmap(**inputs, backend=name)
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-14)
        gradients = torch.autograd.grad(actual, leaves, upstream)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, leaves, upstream), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("thickness", [1e-6, 7.5e-5, 1e-3, 0.05, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_culling_never_drops_a_winner(backend, dtype, thickness):
    """Every pixel's winner reaches the best value of all links, over many random scenes; the scene is not trivial."""
    winners = set()
    for seed in range(5):
        inputs = draw(seed, 2, 4 + 3 * seed, (35, 50), thickness, spread=0.5 + 0.4 * seed, dtype=dtype)
        links = ppl_fast.default_links(4 + 3 * seed)
        with running(backend) as name:
            op = "link_heatmap" if name == "cpp" else "link_heatmap_reference"
            arguments = (inputs["keypoints"], inputs["weights"], links, 35, 50, thickness)
            winners |= checked_winners(getattr(torch.ops.ppl_fast, op), *arguments)
    assert len(winners) > 8


def checked_winners(op, *arguments) -> set[int]:
    """The links that win a pixel, each of which must reach the best value of all links in float64."""
    heatmap, winner = op(*arguments)
    double = [x.double() if x.is_floating_point() else x for x in arguments[:3]]
    best, _ = torch.ops.ppl_fast.link_heatmap_reference(*double, *arguments[3:])
    logs, limits, thickness = best.log()[:, 0], torch.finfo(heatmap.dtype), arguments[-1]
    own = torch.where(heatmap[:, 0] > 0, heatmap[:, 0].double().log(), -math.inf)
    visible = logs > math.log(limits.tiny) + 0.1
    # the exponent is a difference of numbers as large as the coordinates squared over the thickness
    slack = 40 * limits.eps * (logs.abs() + (2 / thickness) ** 0.5 * logs.abs().sqrt() + 10)
    assert torch.all(own[visible] >= (logs - slack)[visible])
    assert torch.all((winner >= 0) == (heatmap[:, 0] > 0))
    return {*winner.unique().tolist()}


def test_winner_is_the_lowest_index_and_marks_darkness(backend):
    keypoints = torch.tensor([[[-0.9, -0.9], [-0.5, -0.9], [-0.9, -0.9], [-0.5, -0.9]]])
    links = torch.tensor([[2, 3], [0, 1], [2, 3]])
    with running(backend) as name:
        op = getattr(torch.ops.ppl_fast, "link_heatmap" if name == "cpp" else "link_heatmap_reference")
        heatmap, winner = op(keypoints, torch.ones(3), links, 64, 64, 1e-4)
        dark, dark_winner = op(keypoints, torch.tensor([0.0, 0.0, -1.0]), links, 64, 64, 1e-4)
    assert winner.dtype == torch.int16
    assert set(winner.unique().tolist()) == {-1, 0}
    assert torch.equal(winner >= 0, heatmap[:, 0] > 0)
    assert not dark.any()
    assert torch.all(dark_winner == 0)  # all values are equal, 0: the tie goes to the first link


def test_gradient_of_a_zero_weight_is_the_falloff(backend):
    """dS/dw is exp(-d^2 / thickness), not S / w."""
    keypoints = torch.tensor([[[-0.5, 0.0], [0.5, 0.0]]], dtype=torch.float64)
    weights = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    with running(backend) as name:
        ppl_fast.link_heatmap(keypoints, weights, (3, 1), 0.5, backend=name).sum().backward()
    # one column at x = -1: the nearest point is the end at -0.5; rows at y = -1, 0, 1
    expected = 2 * math.exp(-(0.25 + 1) / 0.5) + math.exp(-0.25 / 0.5)
    assert weights.grad.item() == pytest.approx(expected, rel=1e-12)


def test_only_the_poisoned_sample_is_nan(backend):
    inputs = draw(1, 3, 5, 20, 1e-2, dtype=torch.float32)
    clean = inputs["keypoints"].clone()
    inputs["keypoints"][1, 4, 1] = torch.inf
    inputs["keypoints"].requires_grad_()
    with running(backend) as name:
        heatmap = ppl_fast.link_heatmap(**inputs, backend=name)
        heatmap.nan_to_num().sum().backward()
        expected = ppl_fast.link_heatmap(**{**inputs, "keypoints": clean}, backend=name)
    assert heatmap[1].isnan().all()
    assert inputs["keypoints"].grad[1].isnan().all()
    assert torch.equal(heatmap[[0, 2]], expected[[0, 2]])
    assert inputs["keypoints"].grad[[0, 2]].isfinite().all()


def test_a_nan_gradient_stays_with_its_link(backend):
    keypoints = torch.tensor([[[-0.8, -0.8], [-0.8, 0.8], [0.8, -0.8], [0.8, 0.8]]], requires_grad=True)
    links = torch.tensor([[0, 1], [2, 3]])
    with running(backend) as name:
        heatmap = ppl_fast.link_heatmap(keypoints, torch.ones(2), 16, 0.05, links, backend=name)
        upstream = torch.ones_like(heatmap)
        upstream[..., :4] = torch.nan  # columns that link 0 wins
        (gradient,) = torch.autograd.grad(heatmap, keypoints, upstream)
    assert gradient[0, :2].isnan().all()
    assert gradient[0, 2:].isfinite().all()


def test_more_links_than_int16_holds(backend):
    """Above 32,767 links the winner map is int32 and the highest index is right."""
    n = 257
    keypoints = torch.zeros(1, n, 2)
    keypoints[0, -2:] = torch.tensor([[-0.5, -1.0], [0.5, -1.0]])  # one row of pixels lies at y = -1
    weights = torch.full((n * (n - 1) // 2,), 1e-3)
    weights[-1] = 1.0
    with running(backend) as name:
        op = getattr(torch.ops.ppl_fast, "link_heatmap" if name == "cpp" else "link_heatmap_reference")
        heatmap, winner = op(keypoints, weights, ppl_fast.default_links(n), 1, 9, 1e-2)
    assert winner.dtype == torch.int32
    assert winner[0, 0, 4] == 32895
    assert heatmap[0, 0, 0, 4] == pytest.approx(1.0, rel=1e-5)


def test_memory_stays_near_the_output():
    """Forward and backward hold no (B, E, H, W) tensor: what torch allocates is the outputs and the winner map."""
    inputs = draw(2, 4, 16, 64, 1e-3, dtype=torch.float32)
    inputs["keypoints"].requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profile:
        ppl_fast.link_heatmap(**inputs, backend="cpp").sum().backward()
    largest = max((event.cpu_memory_usage for event in profile.key_averages()), default=0)
    pixels = 4 * 64 * 64
    assert pixels * 4 <= largest <= pixels * 4 * 4  # heatmap, winner, upstream gradient; one (B, E, H, W) is 120 times


def check_keypoints_too_far_off_to_square(name: str, thickness: float) -> None:
    """Just below the bound all is finite; above it squares would overflow and links vanish: the sample is poisoned."""
    bound = importlib.import_module("ppl_fast.ops.link_heatmap").largest_coordinate(torch.float32, thickness)
    keypoints = torch.tensor([[0.2, 0.2], [0.2, 0.4], [0.0, 0.0]]).repeat(2, 1, 1)
    keypoints[0, 2] = bound * 0.999
    keypoints[1, 2] = -bound * 1.001
    keypoints.requires_grad_()
    links, weights = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0.5, 0.4])
    heatmap = ppl_fast.link_heatmap(keypoints, weights, 16, thickness, links, backend=name)
    (gradient,) = torch.autograd.grad(heatmap.nan_to_num().sum(), keypoints)
    assert heatmap[1].isnan().all() and gradient[1].isnan().all()
    assert heatmap[0].isfinite().all() and gradient[0].isfinite().all()
    assert heatmap[0].max().item() == pytest.approx(0.5, rel=1e-4)  # a pixel's centre lies at (0.2, 0.2)


@pytest.mark.parametrize("thickness", [1e-3, 50.0])
def test_keypoints_too_far_off_to_square_poison_their_sample(backend, thickness):
    with running(backend) as name:
        check_keypoints_too_far_off_to_square(name, thickness)


def test_the_bound_that_the_documentation_names():
    bound = importlib.import_module("ppl_fast.ops.link_heatmap").largest_coordinate
    assert bound(torch.float32, 1e-3) == pytest.approx(1.2e17, rel=0.02)
    assert bound(torch.float64, 1e-3) > 1e150


def _first_under_make_fx(tracing_mode):
    from torch.fx.experimental.proxy_tensor import make_fx

    make_fx(default_heatmap, tracing_mode=tracing_mode)(torch.rand(2, 7, 2), torch.rand(21))


def _first_under_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        default_heatmap(mode.from_tensor(torch.rand(2, 7, 2)), mode.from_tensor(torch.rand(21)))


def _first_in_inference_mode():
    with torch.inference_mode():
        default_heatmap(torch.rand(2, 7, 2), torch.rand(21))


def default_heatmap(keypoints, weights):
    return ppl_fast.link_heatmap(keypoints, weights, 16, 1e-2)


@pytest.mark.parametrize(
    "first",
    [
        _first_in_inference_mode,
        _first_under_fake_tensors,
        lambda: _first_under_make_fx("fake"),
        lambda: _first_under_make_fx("real"),
        lambda: torch.func.functionalize(default_heatmap)(torch.rand(2, 7, 2), torch.rand(21)),
        lambda: torch.func.vmap(lambda k: default_heatmap(k[None], torch.ones(21)))(torch.rand(2, 7, 2)),
    ],
    ids=["inference", "fake", "make_fx-fake", "make_fx-real", "functionalize", "vmap"],
)
def test_the_default_links_of_a_first_call_serve_later_ones(first, monkeypatch):
    operator = importlib.import_module("ppl_fast.ops.link_heatmap")
    monkeypatch.setattr(operator, "_cached_links", {})
    first()
    keypoints = torch.rand(2, 7, 2, requires_grad=True)
    for _ in range(2):  # with what the first call left, and from the cache
        default_heatmap(keypoints, torch.rand(21)).sum().backward()
        assert type(keypoints.grad) is torch.Tensor
        assert all(type(links) is torch.Tensor for links in operator._cached_links.values())
