"""Triton and CUDA C++ on a GPU: all cases, sizes past 2^31, CUDA graphs and streams."""

import pytest
import torch
from cases import CASES, first
from cases.bilinear_upsample2x import random_maps
from cases.link_heatmap import random_links
from cases.memory_attention import random_tokens
from gpu_cases import DEVICE, REHEARSE, each_backend, needs_gpu, pytestmark  # noqa: F401
from op_tester import assert_close, check, evaluate, strided

import ppl_fast

HALVES = (torch.float16, torch.bfloat16)  # with the first case and with values that are not numbers
EVERY = [
    pytest.param(op, case, dtype, id=f"{op}-{case.name}-{str(dtype).removeprefix('torch.')}")
    for op, cases in CASES.items()
    for case in cases
    for dtype in (torch.float32, *(HALVES if case is cases[0] or "nan" in case.name else ()))
]
SUFFIX = {"triton": "_triton", "cpp": ""}


@each_backend
@pytest.mark.parametrize(("op", "case", "dtype"), EVERY)
def test_agrees_with_the_reference(name, op, case, dtype):
    check(op, case, name, dtype, DEVICE)


@each_backend
@pytest.mark.parametrize(("op", "case"), first())
def test_strides(name, op, case):
    check(op, case, name, torch.float32, DEVICE, layout=strided)


@each_backend
@pytest.mark.parametrize(
    ("op", "make"),
    [
        ("link_heatmap", random_links(8, 32, 128, 1e-3)),
        ("link_heatmap", random_links(2, 50, 96, 7.5e-5, shared=False)),
        ("memory_attention", random_tokens(64, 34, 16, 512)),
        ("memory_attention", random_tokens(33, 3, 1000, 700, temperature=100.0)),
        ("memory_attention", random_tokens(70, 3, 3000, 200)),
        ("bilinear_upsample2x", random_maps(16, 256, 64, 64)),
    ],
)
def test_large_sizes_agree_and_repeat_to_the_bit(name, op, make):
    inputs = make(torch.Generator().manual_seed(0))
    inputs = {k: v.float().to(DEVICE) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    outputs, gradients, upstream = evaluate(op, inputs, name)
    again, gradients_again, _ = evaluate(op, inputs, name, upstream)
    for a, b in zip(outputs + gradients, again + gradients_again, strict=True):
        assert torch.equal(a, b)
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    expected, _, _ = evaluate(op, exact, "reference")
    for i, (a, e) in enumerate(zip(outputs, expected, strict=True)):
        if a.is_floating_point():
            assert_close(f"{op} output {i}", a, e, 1e-4)


@each_backend
def test_more_than_32767_links_need_a_wider_winner(name):
    links = torch.tensor([[0, 1]], device=DEVICE).repeat(32768, 1)
    weights = torch.zeros(32768, device=DEVICE)
    weights[32767] = 1.0
    keypoints = torch.tensor([[[-0.5, 0.1], [0.6, -0.2]]], device=DEVICE)
    _, winner = getattr(torch.ops.ppl_fast, f"link_heatmap{SUFFIX[name]}")(keypoints, weights, links, 40, 40, 1.0)
    assert winner.dtype == torch.int32 and (winner == 32767).all()


@each_backend
@needs_gpu
@pytest.mark.skipif(not REHEARSE and torch.cuda.mem_get_info()[1] < 60e9, reason="needs 60 GB of GPU memory")
def test_offsets_past_two_to_the_31(name):
    keypoints = torch.rand(33000, 3, 2, device="cuda") * 2 - 1  # 33000 x 256 x 256 = 2.16e9 pixels
    links, weights = ppl_fast.default_links(3, "cuda"), torch.ones(3, device="cuda")
    heatmap, winner = getattr(torch.ops.ppl_fast, f"link_heatmap{SUFFIX[name]}")(
        keypoints, weights, links, 256, 256, 0.1
    )
    last = ppl_fast.link_heatmap(keypoints[-2:], weights, 256, 0.1, backend=name)
    assert torch.equal(heatmap[-2:], last)
    backward = getattr(torch.ops.ppl_fast, f"link_heatmap_backward{SUFFIX[name]}")
    gradient = backward(heatmap, keypoints, weights, links, winner, 0.1)[0]
    of_last = backward(heatmap[-2:], keypoints[-2:], weights, links, winner[-2:], 0.1)[0]
    assert torch.equal(gradient[-2:], of_last)
    del heatmap, winner

    tokens = torch.randn(70000, 60, 512, device="cuda")  # 2.15e9 numbers
    prototypes = torch.randn(60, 4, 512, device="cuda")
    values, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend=name)
    for whole, part in zip(
        (values, indices, distances), ppl_fast.memory_attention(tokens[-8:], prototypes, backend=name), strict=True
    ):
        assert torch.equal(whole[-8:], part)
    del tokens, prototypes, values, indices, distances, whole, part

    maps = torch.randn(34, 256, 256, 256, device="cuda", dtype=torch.bfloat16)  # 2.3e9 numbers come of them
    for layout in (torch.channels_last, torch.contiguous_format):
        maps = maps.detach().contiguous(memory_format=layout).requires_grad_()
        doubled = ppl_fast.bilinear_upsample2x(maps, backend=name)
        (gradient,) = torch.autograd.grad(doubled, maps, doubled.detach())
        last = maps.detach()[-1:].requires_grad_()
        doubled_last = ppl_fast.bilinear_upsample2x(last, backend=name)
        assert torch.equal(doubled[-1:], doubled_last)
        assert torch.equal(gradient[-1:], torch.autograd.grad(doubled_last, last, doubled_last.detach())[0])


@each_backend
@needs_gpu
def test_cuda_graph_replays_with_new_values(name):
    keypoints = (torch.rand(4, 8, 2, device="cuda") * 2 - 1).requires_grad_()
    weights = torch.rand(28, device="cuda")

    def step():
        heat = ppl_fast.link_heatmap(keypoints, weights, 64, 1e-2, backend=name)
        return heat, *torch.autograd.grad(heat.square().sum(), keypoints)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        keypoints.mul_(0.7)
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(a, b)


@each_backend
@needs_gpu
def test_runs_on_the_current_stream(name):
    side = torch.cuda.Stream()
    tokens, prototypes = torch.randn(64, 34, 512, device="cuda"), torch.randn(34, 16, 512, device="cuda")
    expected = ppl_fast.memory_attention(tokens, prototypes, backend=name)[0]
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        late = tokens * 0
        torch.cuda._sleep(50_000_000)  # a kernel on another stream would read the zeros
        late += tokens
        actual = ppl_fast.memory_attention(late, prototypes, backend=name)[0]
    side.synchronize()
    assert torch.equal(actual, expected)
