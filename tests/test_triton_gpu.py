"""The Triton kernels on a GPU: all cases, sizes past 2^31, CUDA graphs, streams, and the model's gradients."""

import importlib.util

import pytest
import torch
from cases import AFFINE_WARP, LINK_HEATMAP, MEMORY_ATTENTION, random_links, random_tokens
from op_tester import assert_close, check, evaluate, strided

import ppl_fast

if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)
if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

CASES = {"link_heatmap": LINK_HEATMAP, "memory_attention": MEMORY_ATTENTION, "affine_warp": AFFINE_WARP}
EVERY = [pytest.param(op, case, id=f"{op}-{case.name}") for op, cases in CASES.items() for case in cases]
FIRST = [pytest.param(op, cases[0], id=op) for op, cases in CASES.items()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "case"), EVERY)
def test_agrees_with_the_reference(op, case, dtype):
    if dtype != torch.float32 and "nan" not in case.name and case is not CASES[op][0]:
        pytest.skip("half types: the first case and those with values that are not numbers")
    check(op, case, "triton", dtype, "cuda")


@pytest.mark.parametrize(("op", "case"), FIRST)
def test_strides(op, case):
    check(op, case, "triton", torch.float32, "cuda", layout=strided)


@pytest.mark.parametrize(
    ("op", "make"),
    [
        ("link_heatmap", random_links(8, 32, 128, 1e-3)),
        ("link_heatmap", random_links(2, 50, 96, 7.5e-5, shared=False)),
        ("memory_attention", random_tokens(64, 34, 16, 512)),
        ("memory_attention", random_tokens(33, 3, 1000, 700, temperature=100.0)),
    ],
)
def test_large_sizes_agree_and_repeat_to_the_bit(op, make):
    inputs = make(torch.Generator().manual_seed(0))
    inputs = {k: v.float().cuda() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    outputs, gradients, upstream = evaluate(op, inputs, "triton")
    again, gradients_again, _ = evaluate(op, inputs, "triton", upstream)
    for a, b in zip(outputs + gradients, again + gradients_again, strict=True):
        assert torch.equal(a, b)
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    expected, _, _ = evaluate(op, exact, "reference")
    for i, (a, e) in enumerate(zip(outputs, expected, strict=True)):
        if a.is_floating_point():
            assert_close(f"{op} output {i}", a, e, 1e-4)


def test_more_than_32767_links_need_a_wider_winner():
    links = torch.tensor([[0, 1]], device="cuda").repeat(32768, 1)
    weights = torch.zeros(32768, device="cuda")
    weights[32767] = 1.0
    keypoints = torch.tensor([[[-0.5, 0.1], [0.6, -0.2]]], device="cuda")
    _, winner = torch.ops.ppl_fast.link_heatmap_triton(keypoints, weights, links, 40, 40, 1.0)
    assert winner.dtype == torch.int32 and (winner == 32767).all()


@pytest.mark.skipif(torch.cuda.mem_get_info()[1] < 60e9, reason="needs 60 GB of GPU memory")
def test_offsets_past_two_to_the_31():
    keypoints = torch.rand(33000, 3, 2, device="cuda") * 2 - 1  # 33000 x 256 x 256 = 2.16e9 pixels
    links, weights = ppl_fast.default_links(3, "cuda"), torch.ones(3, device="cuda")
    heatmap, winner = torch.ops.ppl_fast.link_heatmap_triton(keypoints, weights, links, 256, 256, 0.1)
    last = ppl_fast.link_heatmap(keypoints[-2:], weights, 256, 0.1, backend="triton")
    assert torch.equal(heatmap[-2:], last)
    backward = torch.ops.ppl_fast.link_heatmap_backward_triton
    gradient = backward(heatmap, keypoints, weights, links, winner, 0.1)[0]
    of_last = backward(heatmap[-2:], keypoints[-2:], weights, links, winner[-2:], 0.1)[0]
    assert torch.equal(gradient[-2:], of_last)
    del heatmap, winner

    tokens = torch.randn(70000, 60, 512, device="cuda")  # 2.15e9 numbers
    prototypes = torch.randn(60, 4, 512, device="cuda")
    values, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend="triton")
    for whole, part in zip(
        (values, indices, distances), ppl_fast.memory_attention(tokens[-8:], prototypes, backend="triton"), strict=True
    ):
        assert torch.equal(whole[-8:], part)


def test_cuda_graph_replays_with_new_values():
    keypoints = (torch.rand(4, 8, 2, device="cuda") * 2 - 1).requires_grad_()
    weights = torch.rand(28, device="cuda")

    def step():
        heat = ppl_fast.link_heatmap(keypoints, weights, 64, 1e-2, backend="triton")
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


def test_runs_on_the_current_stream():
    side = torch.cuda.Stream()
    tokens, prototypes = torch.randn(64, 34, 512, device="cuda"), torch.randn(34, 16, 512, device="cuda")
    expected = ppl_fast.memory_attention(tokens, prototypes, backend="triton")[0]
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        late = tokens * 0
        torch.cuda._sleep(50_000_000)  # a kernel on another stream would read the zeros
        late += tokens
        actual = ppl_fast.memory_attention(late, prototypes, backend="triton")[0]
    side.synchronize()
    assert torch.equal(actual, expected)


def test_a_training_step_agrees_with_the_reference(monkeypatch):
    """The model on the GPU with Triton behind auto, against the reference behind auto."""
    from ppl_fast import _backend, _library

    losses = []
    for refused in (("_C_cuda",), ("_C_cuda", "triton")):
        monkeypatch.setattr(_backend, "_selected", {})
        monkeypatch.setattr(
            _library, "failure", lambda name: "left out" if name == "_C_cuda" else _library._failures.get(name)
        )
        if "triton" in refused:
            monkeypatch.setattr(_backend, "_against_triton", lambda device: "left out")
        torch.manual_seed(0)
        model = ppl_fast.PPL(num_keypoints=8, image_size=64, reconstruction_loss="mse").cuda()
        torch.manual_seed(1)
        images = torch.rand(2, 3, 64, 64, device="cuda") * 2 - 1
        out = model(images)
        out.loss.backward()
        gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        losses.append(torch.stack([out.loss.detach(), *gradients]))
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-5)
