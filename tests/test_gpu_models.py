"""Models on a GPU: steps of training and estimates, replayed from CUDA graphs or not, and the layers that it has."""

import copy

import pytest
import torch
from gpu_cases import DEVICE, each_backend, needs_gpu, pytestmark  # noqa: F401

import ppl_fast


@each_backend
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

    replayed, trainer = trained()
    assert trainer._captured.replays == 6
    torch.testing.assert_close(replayed, trained(cuda_graph=False)[0], rtol=1e-3, atol=1e-5)


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


@each_backend
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
@pytest.mark.parametrize("kind", [ppl_fast.PPL, ppl_fast.ExtendedPPL, ppl_fast.ExtendedAutoLink])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_gradient_agrees_with_a_cpu(kind, layout, monkeypatch):
    """Weights in either layout: layers of torch too are wrong on a GPU now and then.

    In float64, as in float32 rounding alone takes a step over the kinks of what the extensions' losses choose.
    """
    drawn = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *shape, device=None, **how: drawn(*shape, **how).to(device or "cpu"))
    extended = {"occlude_input": 0.5, "equivariance_weight": 3.0, "withhold": 0.5, "coverage_weight": 1.0}
    options = {"num_keypoints": 4, "image_size": 32, "reconstruction_loss": "mse"}
    options |= {} if kind is ppl_fast.PPL else extended
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64) * 2 - 1
    first, gradients = kind(**options).double().to(memory_format=layout), []
    for device in ("cpu", "cuda"):
        model = copy.deepcopy(first).to(device)
        torch.manual_seed(1)
        model(images.to(device, memory_format=layout)).loss.backward()
        gradients.append({name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None})
    expected, found = gradients
    assert expected.keys() == found.keys()
    whole = torch.cat([each.flatten() for each in expected.values()]).norm()
    for name, gradient in expected.items():  # of a bias that a norm takes off again, only rounding is left
        assert (found[name] - gradient).norm() < 1e-6 * gradient.norm() + 1e-9 * whole, name


@needs_gpu
@pytest.mark.parametrize("half", [None, torch.bfloat16])
def test_the_perceptual_loss_agrees_with_plain_layers(half, monkeypatch):
    """Bias and ReLU by cuDNN, the distance in few passes: against a CPU's layers in float64."""
    from ppl_fast.models import conv_relu, perceptual

    assert conv_relu._serves(torch.device("cuda", 0), half or torch.float32)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(perceptual, "SIZE", 64)
    torch.manual_seed(0)
    loss, fused = perceptual.PerceptualLoss("vgg16"), []
    for layer in loss.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
            torch.nn.init.normal_(layer.bias, std=0.1)
    pair = torch.rand(2, 3, 3, 32, 32).mul(2).sub(1)

    def found(device, dtype):
        images, targets = pair.to(device, dtype)
        with torch.autocast(device, half, enabled=half is not None and device == "cuda"):
            value = loss.to(device, dtype)(images.requires_grad_(), targets)
        return value.detach().cpu().double(), torch.autograd.grad(value, images)[0].cpu().double()

    convolution = torch.cudnn_convolution_relu
    monkeypatch.setattr(torch, "cudnn_convolution_relu", lambda *x: (fused.append(x[0].dtype), convolution(*x))[1])
    value, gradient = found("cuda", torch.float32)
    assert fused == 2 * 10 * [half or torch.float32]
    expected, exact = found("cpu", torch.float64)
    torch.testing.assert_close(value, expected, rtol=1e-3 if half else 1e-5, atol=0)
    # In bfloat16 a ninth of it: differences near 0 change their signs.
    assert (gradient - exact).norm() < (0.2 if half else 1e-3) * exact.norm()
    pair[0, 1, 2, 3, 4] = torch.nan
    assert found("cuda", torch.float32)[0].isnan()


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
