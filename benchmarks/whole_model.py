"""The whole model against the published formulas: a training step and inference of the published configuration.

Both start from one state. What is timed has first been compared, value by value and gradient by gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from formulas import PublishedPPL
from op_tester import assert_close
from torch import Tensor, nn

import ppl_fast
from ppl_fast.models.perceptual import PerceptualLoss

PRECISIONS = ("float32", "tf32", "bfloat16")
FORMULA = "formula"  # beside the names of backends
# Of the largest value of an array. Values pass some thirty layers; gradients also the kinks of absolute differences,
# which rounding crosses: plain float32 is up to 1e-3 from float64 there, in either implementation.
VALUES, GRADIENTS = 1e-3, 2e-2
SMALL = {"num_keypoints": 5, "image_size": 32, "width": 0.125, "memory_width": 32, "memory_hidden": 32}


@dataclass(frozen=True)
class ModelWorkload:
    """A batch of images for a model of the published architecture; `options` are of `PPL`, none the published one's."""

    batch: int
    options: dict

    @property
    def label(self) -> str:
        s = ppl_fast.PPL.Config(**self.options)
        return f"B={self.batch} N={s.num_keypoints} {s.image_size}x{s.image_size}"

    def images(self, device="cpu", seed=1) -> Tensor:
        """(B, 3, S, S) uniform in [-1, 1]."""
        side = ppl_fast.PPL.Config(**self.options).image_size
        g = torch.Generator().manual_seed(seed)
        return (torch.rand(self.batch, 3, side, side, generator=g) * 2 - 1).to(device)


PUBLISHED = ModelWorkload(64, {})
ON_CPU = ModelWorkload(8, {})
TINY = ModelWorkload(2, SMALL)


def build(name: str, options: dict, device="cpu") -> nn.Module:
    """`PPL`, or for "formula" the published formulas, with the same drawn weights, those of the VGG too."""
    torch.manual_seed(0)
    model = ppl_fast.PPL(**options)
    vgg = PerceptualLoss()
    for layer in vgg.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    model._perceptual.append(vgg)
    if name == FORMULA:
        published = PublishedPPL(model.settings)
        published.load_state_dict(model.to_published())
        model = published
    return model.to(device)


@contextlib.contextmanager
def computing(name: str, precision: str, device: str = "cpu"):
    """Let an implementation's name stand for its backend, and the convolutions and products compute as `precision`."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "float32"
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)
    try:
        with ppl_fast.use_backend("auto" if name == FORMULA else name), autocast:
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn


def training_step(model: nn.Module, images: Tensor, name: str, precision: str) -> Callable[[], Tensor]:
    """A function that takes one step of Adam and returns the loss; a CUDA graph can hold it."""
    device = images.device.type
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True, capturable=device == "cuda")
    model.train()

    def step():
        optimizer.zero_grad()
        with computing(name, precision, device):
            loss = model(images).loss
            with torch.autocast(device, enabled=False):
                loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def inference(model: nn.Module, images: Tensor, name: str, precision: str) -> Callable[[], Tensor]:
    """A function that takes images to keypoints, heatmap, recalled keypoints and reconstruction; returns the last."""
    model.eval()

    def infer():
        with torch.no_grad(), computing(name, precision, images.device.type):
            return model(images, losses=False).reconstruction

    return infer


TASKS = {"training step": training_step, "inference": inference}


def results(name: str, workload: ModelWorkload, device="cpu") -> dict[str, Tensor]:
    """Values, terms of the loss and some gradients of one training pass, coordinates as (x, y)."""
    model = build(name, workload.options, device).train()
    published = isinstance(model, PublishedPPL)
    images = workload.images(device)
    torch.manual_seed(2)  # the same blocks are dropped
    with computing(name, "float32", torch.device(device).type):
        out = model(images)
        out.loss.backward()
    turned = (lambda points: points.flip(-1)) if published else (lambda points: points)
    found = {"keypoints": turned(out.keypoints), "recalled": turned(out.recalled)}
    found |= {"heatmap": out.link_heatmap, "image": out.reconstruction} | out.losses
    # The published term is |p| where |p| > 1, ours |p| - 1: the same gradient.
    if not published:
        found["boundary"] = found["boundary"] + (out.keypoints.abs() > 1).sum(1).float().mean()
    links = torch.triu_indices(*[ppl_fast.PPL.Config(**workload.options).num_keypoints] * 2, 1)
    weights = model.skeleton_scalar.grad[links[0], links[1]] if published else model.link_parameters.grad
    last = model.translator.conv if published else model.translator.end
    found |= {"gradient of the links": weights, "gradient of alpha": model.alpha.grad}
    found |= {"gradient of the last convolution": last.weight.grad}
    first = (model.regressor.pred_prob if published else model.regressor.maps).weight.grad
    memory = (model.memory.encoder_start if published else model.memory.encoder[0]).bias.grad
    found |= {"gradient of the maps": first, "gradient of the memory": memory}
    found |= {"codebook": model.memory.codebook}
    return {key: value.detach() for key, value in found.items()}


def gate(name: str, workload: ModelWorkload, device="cpu") -> None:
    """Raise unless an implementation agrees with the published formulas in a training pass."""
    expected, actual = results(FORMULA, workload, device), results(name, workload, device)
    assert expected.keys() == actual.keys()
    for key, value in actual.items():
        tolerance = GRADIENTS if key.startswith("gradient") else VALUES
        assert_close(f"{name}, {key}", value, expected[key], tolerance)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", [FORMULA, "cpp"])
def test_whole_model(benchmark, name, task):
    if name != FORMULA:
        gate(name, TINY)
    model, images = build(name, ON_CPU.options), ON_CPU.images()
    call = TASKS[task](model, images, name, "float32")
    benchmark.pedantic(call, rounds=3, warmup_rounds=1)
    benchmark.extra_info.update(op=task, shape=ON_CPU.label, backend=name, direction="total")
