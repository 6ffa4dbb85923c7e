"""Triton and CUDA C++ on a GPU: all cases, sizes past 2^31, CUDA graphs, streams, and the model's gradients."""

import os

import pytest
import torch
from cases import CASES, first
from cases.bilinear_upsample2x import random_maps
from cases.link_heatmap import random_links
from cases.memory_attention import random_tokens
from op_tester import assert_close, check, evaluate, strided

import ppl_fast
from ppl_fast import _backend

REHEARSE = os.environ.get("TRITON_INTERPRET") == "1"  # gpu_suite.sh --rehearse: what does not need a GPU, on the CPU
if not torch.cuda.is_available() and not REHEARSE:
    pytest.skip("no GPU", allow_module_level=True)
if REHEARSE:
    import interpreted

    interpreted.faster()
    interpreted.use_large_tiles()
DEVICE = "cpu" if REHEARSE else "cuda"
pytestmark = pytest.mark.usefixtures("gpu_answers")
needs_gpu = pytest.mark.skipif(REHEARSE, reason="no GPU to rehearse on")

HALVES = (torch.float16, torch.bfloat16)  # with the first case and with values that are not numbers
EVERY = [
    pytest.param(op, case, dtype, id=f"{op}-{case.name}-{str(dtype).removeprefix('torch.')}")
    for op, cases in CASES.items()
    for case in cases
    for dtype in (torch.float32, *(HALVES if case is cases[0] or "nan" in case.name else ()))
]
BACKENDS = [name for name in ("triton", "cpp") if not any(_backend.reason_against(op, name, DEVICE) for op in CASES)]
SUFFIX = {"triton": "_triton", "cpp": ""}


@pytest.fixture(params=BACKENDS)
def name(request) -> str:
    """Each backend that runs on this GPU; CUDA C++ where it was built."""
    return request.param


@pytest.mark.parametrize(("op", "case", "dtype"), EVERY)
def test_agrees_with_the_reference(name, op, case, dtype):
    check(op, case, name, dtype, DEVICE)


@pytest.mark.parametrize(("op", "case"), first())
def test_strides(name, op, case):
    check(op, case, name, torch.float32, DEVICE, layout=strided)


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


def test_more_than_32767_links_need_a_wider_winner(name):
    links = torch.tensor([[0, 1]], device=DEVICE).repeat(32768, 1)
    weights = torch.zeros(32768, device=DEVICE)
    weights[32767] = 1.0
    keypoints = torch.tensor([[[-0.5, 0.1], [0.6, -0.2]]], device=DEVICE)
    _, winner = getattr(torch.ops.ppl_fast, f"link_heatmap{SUFFIX[name]}")(keypoints, weights, links, 40, 40, 1.0)
    assert winner.dtype == torch.int32 and (winner == 32767).all()


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


@needs_gpu
def test_cuda_graph_holds_a_whole_training_step(name):
    """Replays take the steps that eager takes: forward, backward, Adam and the memory's moving averages."""
    images = torch.empty(4, 3, 32, 32, device="cuda")

    def fresh():
        torch.manual_seed(0)
        model = ppl_fast.PPL(num_keypoints=4, image_size=32, width=0.5, reconstruction_loss="mse").cuda()
        return model, torch.optim.Adam(model.parameters(), lr=1e-4, capturable=True)

    def step(model, optimizer):
        optimizer.zero_grad()
        with ppl_fast.use_backend(name):
            loss = model(images, images).loss  # a reference of its own, so that nothing is drawn by chance
        loss.backward()
        optimizer.step()
        return loss.detach()

    def batch(i):
        images.copy_(torch.rand(images.shape, generator=torch.Generator().manual_seed(i)) * 2 - 1)

    eager, losses = fresh(), []
    for i in range(5):
        batch(i)
        losses.append(step(*eager))
    captured, side, graph = fresh(), torch.cuda.Stream(), torch.cuda.CUDAGraph()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for i in range(3):
            batch(i)
            step(*captured)
    torch.cuda.current_stream().wait_stream(side)
    captured[1].zero_grad()
    with torch.cuda.graph(graph):
        loss = step(*captured)
    for i in range(3, 5):
        batch(i)
        graph.replay()
        torch.testing.assert_close(loss, losses[i], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(captured[0].memory.sizes, eager[0].memory.sizes)


@needs_gpu
def test_the_trainer_replays_the_steps_that_it_takes_eagerly(tmp_path, monkeypatch):
    """In two phases, three eager steps and three replays each; with samples filled in, drawn by chance and clipped."""
    pytest.importorskip("accelerate", reason="training needs the train extra")
    from ppl_fast.training import TrainConfig
    from ppl_fast.training.setup import new_accelerator
    from ppl_fast.training.trainer import Trainer

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    small = {"num_keypoints": 6, "image_size": 32, "width": 0.25, "head": "position", "reconstruction_loss": "mse"}
    memory = {"memory_start": "balanced", "reseed_after": 2}
    hidden = {"occlude_input": 0.5, "occlude_fill": True, "withhold": 0.5, "withhold_until": 0.5}
    weights = {"equivariance_weight": 1.0, "foreground_weight": 1.0, "prior_weight": 1.0}

    def trained(**options):
        loop = {"steps": 12, "batch_size": 4, "lr": 1e-5, "schedule": "cosine", "clip_norm": 1.0, "device": "cuda"}
        config = TrainConfig(**loop, **options)
        torch.manual_seed(0)
        model = ppl_fast.ExtendedPPL(**small, **memory, **hidden, **weights)
        state = {"step": 0, "seconds": 0.0, "scaler": None}
        trainer = Trainer(config, model, [], tmp_path, state, new_accelerator(config))
        trainer.model.train()
        losses = []
        for i in range(12):
            trainer._advance(torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(i)) * 2 - 1)
            losses.append(trainer._totals.pop("loss"))
        return torch.stack(losses), trainer

    replayed, trainer = trained(cuda_graph=True)
    assert trainer._captured.replays == 6
    torch.testing.assert_close(replayed, trained()[0], rtol=1e-3, atol=1e-5)


@needs_gpu
def test_optimized_copies_replay_their_estimates(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    model = ppl_fast.ExtendedPPL(num_keypoints=6, image_size=32, width=0.25, reconstruction_loss="mse").cuda().eval()
    plain, graphs = ppl_fast.optimize(model), ppl_fast.optimize(model, cuda_graph=True)
    visible = torch.ones(2, 1, 32, 32, dtype=torch.bool, device="cuda")
    visible[..., 9:] = False
    for number in range(4):
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(number)).cuda() * 2 - 1
        for given in ((images[:1],), (images,), (images, 3, visible)):
            found, expected = (each.estimate(*given) for each in (graphs, plain))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert graphs.estimate_rounds.replays == 3 * 3


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


def test_a_training_step_agrees_with_the_reference(name, monkeypatch):
    """The model on the GPU with the backend behind auto, against the reference behind auto."""
    # Two maps that differ by rounding differ by 2^-11 where TF32 rounds them to either side.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    results = []
    for wanted in (name, "reference"):
        torch.manual_seed(0)
        model = ppl_fast.PPL(num_keypoints=4, image_size=32, width=0.5, reconstruction_loss="mse").to(DEVICE)
        torch.manual_seed(1)
        images = torch.rand(2, 3, 32, 32, device=DEVICE) * 2 - 1
        with ppl_fast.use_backend(wanted):
            out = model(images)
        out.loss.backward()
        gradients = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        results.append(torch.stack([out.loss.detach(), *gradients]))
    torch.testing.assert_close(*results, rtol=1e-3, atol=1e-5)


@needs_gpu
@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_run_trains_here_goes_on_elsewhere_and_estimates(precision, tmp_path):
    from tiny import draw_images, run_steps

    from ppl_fast.inference import collect, estimate
    from ppl_fast.training import load_model

    images, run = draw_images(tmp_path / "images"), tmp_path / "run"
    run_steps(images, run, 4, device="cuda", precision=precision)
    run_steps(images, run, 6, resume=True, device="cpu")
    run_steps(images, run, 8, resume=True, device="cuda", precision=precision)
    model = load_model(run)
    found = [collect(estimate(each, images)).keypoints for each in (model, ppl_fast.optimize(model.cuda()))]
    assert found[0].shape == (10, 6, 2)
    torch.testing.assert_close(*map(torch.as_tensor, found), rtol=0, atol=0.5)  # of a pixel; TF32


@needs_gpu
@pytest.mark.parametrize("architecture", [ppl_fast.PPL, ppl_fast.AutoLink])
def test_maps_lie_channels_last(architecture):
    model, seen = architecture(num_keypoints=4, image_size=32, reconstruction_loss="mse").cuda(), []
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, out: seen.append(out))
    model(torch.rand(2, 3, 32, 32, device="cuda")).loss.backward()
    assert len(seen) > 20
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in seen)
