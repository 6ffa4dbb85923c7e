"""The CUDA C++ kernels on a GPU: the shared tester, repeatability, graph capture. Skipped where there is none."""

import pytest
import torch
from cases import AFFINE_WARP, LINK_HEATMAP, MEMORY_ATTENTION
from op_tester import check, evaluate, strided

import ppl_fast
from ppl_fast import _library

_reason = "there is no GPU here" if not torch.cuda.is_available() else _library.failure("_C_cuda")
pytestmark = pytest.mark.skipif(_reason is not None, reason=str(_reason))

ALL = {"link_heatmap": LINK_HEATMAP, "memory_attention": MEMORY_ATTENTION, "affine_warp": AFFINE_WARP}
EVERY = [pytest.param(op, case, id=f"{op}-{case.name}") for op, cases in ALL.items() for case in cases]
FIRST = [pytest.param(op, cases[0], id=op) for op, cases in ALL.items()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("op", "case"), EVERY)
def test_agrees_with_the_reference(op, case, dtype):
    check(op, case, "cpp", dtype, "cuda")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "case"), FIRST)
def test_half_types(op, case, dtype):
    check(op, case, "cpp", dtype, "cuda")


@pytest.mark.parametrize(("op", "case"), FIRST)
def test_strides(op, case):
    check(op, case, "cpp", torch.float32, "cuda", layout=strided)


@pytest.mark.parametrize(("op", "case"), FIRST)
def test_results_repeat_to_the_bit(op, case):
    inputs = case.inputs(torch.float32, "cuda")
    first, second = (evaluate(op, inputs, "cpp") for _ in range(2))
    for a, b in zip(first[0] + first[1], second[0] + second[1], strict=True):
        assert torch.equal(a, b)


def test_a_step_is_captured_in_a_cuda_graph():
    """Forward and backward of all operators: no synchronisation, no allocation outside torch, the current stream."""
    leaves = [torch.randn(s, device="cuda", requires_grad=True) for s in ((5, 2), (3, 5, 2, 3), (3, 4, 8), (4, 6, 8))]
    weights = torch.rand(10, device="cuda", requires_grad=True)

    def step():
        keypoints, affine, tokens, prototypes = leaves
        points = ppl_fast.affine_warp(keypoints, affine, backend="cpp")
        values, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend="cpp")
        counts, sums = ppl_fast.prototype_sums(tokens, indices, 6, backend="cpp")
        heat = ppl_fast.link_heatmap(points.tanh(), weights, (40, 52), 1e-2, backend="cpp")
        loss = heat.square().sum() + values.square().sum() + distances.sum()
        return [loss.detach(), counts, sums, *torch.autograd.grad(loss, [*leaves, weights])]

    expected = [x.clone() for x in step()]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for x in captured:
        x.zero_()
    graph.replay()
    for a, b in zip(captured, expected, strict=True):
        assert torch.equal(a, b)


def test_kernel_info_tells_what_the_kernels_take():
    rows = _library.loaded("_C_cuda").kernel_info()
    assert len(rows) == 16
    for row in rows:
        assert row["local_bytes"] == 0, row
        assert row["blocks_per_multiprocessor"] >= 1, row
