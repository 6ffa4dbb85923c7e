"""The Triton kernels under Triton's interpreter, on the CPU: run by test_triton.py in a process of its own."""

import contextlib
import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs with TRITON_INTERPRET=1, in a process that test_triton.py starts", allow_module_level=True)

import interpreted
from cases import CASES, TOLERANCE, Case, every, first, of
from cases.link_heatmap import random_links
from cases.memory_attention import random_tokens
from op_tester import check, drawn, evaluate, floating, opcheck, strided
from ppl_fast.kernels import link_heatmap, link_heatmap_backward
from test_link_heatmap import check_keypoints_too_far_off_to_square
from test_operators import all_operators

import ppl_fast
from ppl_fast._library import OPERATORS

interpreted.faster()
WIDE = [  # more columns than one program takes
    Case("two-chunks", random_tokens(3, 2, 5, 530)),
    Case("soft-two-chunks", random_tokens(3, 1, 20, 530, temperature=300.0)),
]
SMALL = {"link_heatmap": [Case("small", random_links(2, 5, (12, 20), 1e-2))]}  # pixels take their time here
EVERY = every(CASES | {"memory_attention": CASES["memory_attention"] + WIDE})
FIRST = first(CASES | SMALL)
# These run with the tile in use, the others in a larger one, which takes fewer steps to interpret.
SMALL_TILES = ("wide", "tall-odd", "one-pixel", "one-row", "zero-weights")


@pytest.fixture(autouse=True)
def launches(monkeypatch):
    """The names of the kernels launched so far; a launch that changed nothing would leave the poison of the tester."""
    names = []

    def counted(kernel, programs, *arguments, **options):
        names.extend([kernel.__name__] if programs else [])
        launch(kernel, programs, *arguments, **options)

    launch = link_heatmap.launch
    for module in interpreted.kernel_modules():
        monkeypatch.setattr(module, "launch", counted)
    return names


@pytest.fixture(autouse=True)
def large_tiles(request, monkeypatch):
    if not any(name in request.node.name for name in SMALL_TILES):
        monkeypatch.setattr(link_heatmap, "TILE", interpreted.LARGE_TILE)


@pytest.mark.parametrize("contract", [False, True], ids=["plain", "contracted"])
@pytest.mark.parametrize(("op", "case"), EVERY)
def test_agrees_with_the_reference(op, case, contract, launches):
    """Every operation rounded, and products fused with sums, as on a GPU."""
    with interpreted.contracted() if contract else contextlib.nullcontext():
        check(op, case, "triton", torch.float32)
    nothing = ("no-links", "no-links-nan-keypoint", "no-keypoints", "no-samples", "no-banks", "soft-no-samples")
    assert launches or case.name in nothing


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "case"), FIRST)
def test_half_types(op, case, dtype):
    check(op, case, "triton", dtype)


@pytest.mark.parametrize(("op", "case"), FIRST)
def test_strides(op, case):
    check(op, case, "triton", torch.float32, layout=strided)


@pytest.mark.parametrize("needs_prototypes", [False, True])
def test_launches(launches, needs_prototypes):
    tokens = torch.randn(4, 3, 8, requires_grad=True)
    prototypes = torch.randn(3, 5, 8, requires_grad=needs_prototypes)
    values, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend="triton")
    assert launches == ["memory_attention_fwd_kernel"]  # distance, choice, gather and commitment distances
    (values.sum() + distances.sum()).backward()
    ppl_fast.prototype_sums(tokens, indices, 5, backend="triton")
    backward = ["memory_attention_bwd_hard_kernel", *["prototype_sums_kernel"] * needs_prototypes]
    assert launches[1:] == [*backward, "prototype_sums_kernel"]


@pytest.mark.parametrize("op", CASES)
def test_launches_of_each_direction(op, launches):
    inputs, operator = drawn(op, dtype=torch.float32), OPERATORS[op]
    leaves = [inputs[name].requires_grad_() for name in operator.differentiable]
    outputs = floating(operator.function(**inputs, backend="triton"))
    forward, backward = of(op, "TRITON_LAUNCHES")
    assert launches == forward
    if leaves:
        torch.autograd.grad(outputs, leaves, [torch.ones_like(o) for o in outputs])
    assert launches[len(forward) :] == backward


def draw(keypoints, weights, links, size=16, thickness=1e-2):
    return torch.ops.ppl_fast.link_heatmap_triton(keypoints, weights, links, size, size, thickness)


def test_the_lowest_link_wins_ties_across_blocks():
    keypoints = torch.tensor([[[-0.5, 0.1], [0.6, -0.2], [-0.2, 0.3]]])
    links = torch.tensor([[0, 1]]).repeat(70, 1)
    weights = torch.full((70,), 0.3)
    weights[[40, 65]] = 0.5  # the 32 links before and the 32 after hold one each
    _, winner = draw(keypoints, weights, links, thickness=1.0)
    assert (winner == 40).all()


@pytest.mark.parametrize(("repeats", "warps"), [(7, 1), (8, 8), (29, 16)])
def test_more_links_than_a_block(repeats, warps):
    """Every 25th link and the last have weight; the backward takes a larger tile for more of them."""
    inputs = random_links(1, 9, 12, 1e-2)(torch.Generator().manual_seed(1))
    keypoints, links = inputs["keypoints"].float(), ppl_fast.default_links(9).repeat(repeats, 1)
    assert link_heatmap_backward.tile_for(len(links))[1] == warps
    weights = torch.zeros(len(links))
    weights[::25] = torch.rand(len(weights[::25])) + 0.1
    weights[-1] = 1.0
    heatmap, winner = draw(keypoints, weights, links, 12)
    expected, expected_winner = torch.ops.ppl_fast.link_heatmap_reference(keypoints, weights, links, 12, 12, 1e-2)
    assert torch.equal(winner, expected_winner) and winner.max() >= 225
    torch.testing.assert_close(heatmap, expected, rtol=TOLERANCE[torch.float32], atol=0)
    upstream = torch.randn_like(heatmap)
    arguments = (keypoints, weights, links, winner, 1e-2)
    actual = torch.ops.ppl_fast.link_heatmap_backward_triton(upstream, *arguments)
    exact = torch.ops.ppl_fast.link_heatmap_backward_reference(upstream, *arguments)
    for a, e in zip(actual, exact, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4 * e.abs().max().item())


def test_all_links_culled():
    heatmap, winner = draw(torch.full((1, 3, 2), 9.0), torch.rand(3), ppl_fast.default_links(3), 16, 1e-3)
    assert (heatmap == 0).all() and (winner == -1).all()


@pytest.mark.parametrize("thickness", [1e-3, 50.0])
def test_keypoints_too_far_off_to_square_poison_their_sample(thickness):
    check_keypoints_too_far_off_to_square("triton", thickness)


def test_a_wrong_link_index_is_answered_with_nan():
    links = torch.tensor([[0, 1], [1, 3]])
    heatmap, winner = draw(torch.rand(2, 3, 2), torch.ones(2), links)
    assert heatmap.isnan().all() and (winner == -1).all()
    arguments = (torch.rand(2, 3, 2), torch.ones(2), links, winner, 1e-2)
    for gradient in torch.ops.ppl_fast.link_heatmap_backward_triton(torch.ones_like(heatmap), *arguments):
        assert gradient.isnan().all()


@pytest.mark.parametrize("temperature", [None, 3.0])
def test_the_lowest_prototype_wins_ties_across_blocks(temperature):
    inputs = random_tokens(5, 2, 50, 12)(torch.Generator().manual_seed(2))
    tokens, prototypes = inputs["tokens"].float(), inputs["prototypes"].float()
    prototypes[:, 25:] = prototypes[:, :25]
    _, indices, _ = ppl_fast.memory_attention(tokens, prototypes, temperature, backend="triton")
    expected = ppl_fast.memory_attention(tokens, prototypes, temperature, backend="reference")[1]
    assert torch.equal(indices, expected) and indices.max() < 25 and indices.max() >= 16


def test_near_ties_resolve_as_in_float64():
    """Tokens within 1e-3 of prototypes that lie 1e-3 apart at a distance of 100 from 0: |t|^2 - 2 t.p + |p|^2 fails."""
    g = torch.Generator().manual_seed(3)
    centre = torch.randn(2, 1, 24, generator=g) * 20
    prototypes = centre + 1e-3 * torch.randn(2, 20, 24, generator=g)
    tokens = (centre + 1e-3 * torch.randn(2, 30, 24, generator=g)).transpose(0, 1)
    _, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend="triton")
    _, expected, exact = ppl_fast.memory_attention(tokens.double(), prototypes.double(), backend="reference")
    assert torch.equal(indices, expected)
    torch.testing.assert_close(distances.double(), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("k", "d"), [(5, 7), (40, 70)])
def test_prototype_sums(k, d):
    tokens, indices = torch.randn(37, 3, d), torch.randint(k, (37, 3))
    tokens[5, 1, 2] = torch.nan
    counts, sums = ppl_fast.prototype_sums(tokens, indices, k, backend="triton")
    clean = tokens.nan_to_num(0.0)
    expected_counts, expected = ppl_fast.prototype_sums(clean.double(), indices, k, backend="reference")
    assert torch.equal(counts.double(), expected_counts)
    assert sums.isnan().sum() == 1 and sums[1, indices[5, 1], 2].isnan(), (
        "it must stay with the prototype that it chose"
    )
    expected[1, indices[5, 1], 2] = torch.nan
    torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize(("op", "case"), FIRST)
def test_results_repeat_to_the_bit(op, case):
    inputs = case.inputs(torch.float32)
    first, again = (evaluate(op, inputs, "triton") for _ in range(2))
    for a, b in zip(first[0] + first[1], again[0] + again[1], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("op", CASES)
def test_opcheck(op):
    assert opcheck(
        op, "triton", drawn(op, dtype=torch.float32) | ({"size": (5, 6)} if op == "link_heatmap" else {})
    ) == {f"{name}_triton" for name in OPERATORS[op].ops}


def test_compiles_without_graph_breaks():
    function, leaves = all_operators("triton")
    actual = torch.compile(function, fullgraph=True, backend="aot_eager")(*leaves)
    expected = function(*leaves)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(actual, leaves), torch.autograd.grad(expected, leaves))
