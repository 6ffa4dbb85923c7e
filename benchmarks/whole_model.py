"""The whole model against the published formulas: a training step and inference of the published configuration.

Both start from one state. What is timed has first been compared, value by value and gradient by gradient.
"""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest
import torch
from formulas import PublishedPPL
from harness import assert_close_on_average
from op_tester import assert_close
from torch import Tensor, nn

import ppl_fast
from ppl_fast.models import resizing
from ppl_fast.models.perceptual import PerceptualLoss

PRECISIONS = ("float32", "tf32", "bfloat16")
FORMULA, LAID_OUT = "formula", "formula, channels last"  # beside the names of backends
TASKS = ("training step", "inference")
# Of the largest value of an array. Values pass some thirty layers; gradients also the kinks of absolute differences,
# which rounding crosses: plain float32 is up to 1e-3 from float64 there, in either implementation.
VALUES, GRADIENTS = 1e-3, 2e-2
# Of the mean size of an array that hangs on which vector is nearest: by the published formula, |t|^2 - 2 t.p + |p|^2,
# one choice in some ten thousands turns.
CHOICES, CHOSEN = 5e-2, ("recalled", "codebook", "memory", "commitment", "gradient of the memory")
# With fewer digits more of them turn, and another link wins a pixel: what does not hang on that is compared.
ROUNDED, STEADY = 0.1, ("keypoints", "reconstruction")
SMALL = {"num_keypoints": 5, "image_size": 32, "width": 0.125, "memory_width": 32, "memory_hidden": 32}


@dataclass(frozen=True)
class ModelWorkload:
    """A batch of images for a model of the published architecture; `options` are of `PPL`, none the published one's."""

    batch: int
    options: dict = field(default_factory=dict, hash=False)

    @property
    def label(self) -> str:
        """The size in words."""
        s = ppl_fast.PPL.Config(**self.options)
        return f"B={self.batch} N={s.num_keypoints} {s.image_size}x{s.image_size}"

    def images(self, device="cpu") -> Tensor:
        """(B, 3, S, S) uniform in [-1, 1]."""
        side = ppl_fast.PPL.Config(**self.options).image_size
        g = torch.Generator().manual_seed(1)
        return (torch.rand(self.batch, 3, side, side, generator=g) * 2 - 1).to(device)


PUBLISHED, ON_CPU, TINY = ModelWorkload(64), ModelWorkload(8), ModelWorkload(2, SMALL)


def build(name: str, options: dict, device="cpu") -> nn.Module:
    """`PPL`, or the published formulas, as they are or laid out, with the same drawn weights, those of the VGG too."""
    torch.manual_seed(0)
    model = ppl_fast.PPL(**options)
    vgg = PerceptualLoss(recompute=model.settings.recompute == "blocks")
    for layer in vgg.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    vgg.to(memory_format=torch.channels_last)  # as weights from a file lie
    model._perceptual.append(vgg)
    if name in (FORMULA, LAID_OUT):
        published = PublishedPPL(model.settings)
        published.load_state_dict(model.to_published())
        model = published
    return model.to(device, memory_format=torch.channels_last if name == LAID_OUT else torch.preserve_format)


class Subject:
    """One implementation at one precision, with a batch of images; a CUDA graph can hold what it does.

    Args:
        name: a backend, `FORMULA`, or `LAID_OUT`, whose images and weights lie channels last.
        workload: what it works on.
        device: where.
        precision: one of `PRECISIONS`.
        compiler: a backend of torch.compile; None leaves the model as it is.
    """

    def __init__(self, name, workload: ModelWorkload, device="cpu", precision="float32", compiler: str | None = None):
        self.name, self.precision, self.kind = name, precision, torch.device(device).type
        self.model, self.images = build(name, workload.options, device), workload.images(device)
        if name == LAID_OUT:
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.call = torch.compile(self.model, backend=compiler, dynamic=False) if compiler else self.model
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True, capturable=self.kind == "cuda")

    @contextlib.contextmanager
    def computing(self):
        """Let the name stand for its backend, and convolutions and products compute at the precision."""
        matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.precision != "float32"
        rounded = self.precision == "bfloat16"
        try:
            with (
                ppl_fast.use_backend("auto" if self.name in (FORMULA, LAID_OUT) else self.name),
                torch.autocast(self.kind, torch.bfloat16, enabled=rounded, cache_enabled=False),
            ):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn

    def passed(self):
        """The output of a training pass; gradients are in the parameters."""
        self.model.train()
        self.optimizer.zero_grad()
        with self.computing():
            out = self.call(self.images)
            with torch.autocast(self.kind, enabled=False):
                out.loss.backward()
        return out

    def step(self) -> Tensor:
        """One step of Adam; returns the loss."""
        loss = self.passed().loss.detach()
        self.optimizer.step()
        return loss

    def infer(self):
        """From images to keypoints, heatmap, recalled keypoints and reconstruction, without gradient."""
        self.model.eval()
        with torch.no_grad(), self.computing():
            return self.call(self.images, losses=False)

    def task(self, name: str):
        """The function that does one of `TASKS`."""
        return self.step if name == "training step" else self.infer

    def results(self, task: str) -> dict[str, Tensor]:
        """What a task computes, coordinates as (x, y); of a training pass, terms of the loss and some gradients too."""
        torch.manual_seed(2)  # the same blocks are dropped
        training, model = task == "training step", self.model
        out = self.passed() if training else self.infer()
        published = isinstance(model, PublishedPPL)
        places = {"keypoints": out.keypoints, "recalled": out.recalled}
        found = {name: points.flip(-1) if published else points for name, points in places.items()}
        found |= {"heatmap": out.link_heatmap, "image": out.reconstruction} | out.losses
        if training:
            # The published term is |p| where |p| > 1, ours |p| - 1: the same gradient.
            if not published:
                found["boundary"] = found["boundary"] + (out.keypoints.abs() > 1).sum(1).float().mean()
            found |= {f"gradient of {what}": value for what, value in _gradients(model, published).items()}
            found["codebook"] = model.memory.codebook
        return {key: value.detach().float().clone() for key, value in found.items()}


def _gradients(model: nn.Module, published: bool) -> dict[str, Tensor]:
    if published:
        i, j = torch.triu_indices(*model.skeleton_scalar.shape, 1)
        links, last, maps = model.skeleton_scalar.grad[i, j], model.translator.conv, model.regressor.pred_prob
        start = model.memory.encoder_start
    else:
        links, last, maps = model.link_parameters.grad, model.translator.end, model.regressor.maps
        start = model.memory.encoder[0]
    found = {"the links": links, "alpha": model.alpha.grad.squeeze(), "the last convolution": last.weight.grad}
    return found | {"the maps": maps.weight.grad, "the memory": start.bias.grad}


@functools.lru_cache(4)
def expected(task: str, workload: ModelWorkload, device: str) -> dict[str, Tensor]:
    """What the published formulas give, in float32."""
    return Subject(FORMULA, workload, device).results(task)


def gate(subject: Subject, task: str, workload: ModelWorkload, device="cpu") -> None:
    """Raise unless the subject's task agrees with the published formulas in float32.

    A small model's doublings go the ways that those of the whole width go.
    """
    width = workload.options.get("width", 1.0)
    with patch.object(resizing, "WIDE", width * resizing.WIDE):
        wanted, actual = expected(task, workload, device), subject.results(task)
    assert wanted.keys() == actual.keys()
    for key, value in actual.items():
        name, expect = f"{task}, {subject.name}, {subject.precision}: {key}", wanted[key]
        if subject.precision != "float32":
            if key in STEADY:
                assert_close(name, value, expect, ROUNDED)
        elif key in CHOSEN:
            assert_close_on_average(name, value, expect, CHOICES)
        else:
            assert_close(name, value, expect, GRADIENTS if key.startswith("gradient") else VALUES)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", [FORMULA, "cpp"])
def test_whole_model(benchmark, name, task):
    gate(Subject(name, TINY), task, TINY)
    benchmark.pedantic(Subject(name, ON_CPU).task(task), rounds=3, warmup_rounds=1)
    benchmark.extra_info.update(op=task, shape=ON_CPU.label, backend=name, direction="total")
