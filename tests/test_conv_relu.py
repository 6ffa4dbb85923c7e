"""ReLU of a convolution as cuDNN has it: where it is taken, and its gradient; test_gpu_models.py has it on a GPU."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ppl_fast.models import conv_relu
from ppl_fast.models.perceptual import PerceptualLoss


def like_cudnn(x, weight, bias, stride, padding, dilation, groups):
    """On a CPU, and what is not a number becomes 0."""
    return torch.fmax(F.conv2d(x, weight, bias, stride, padding, dilation, groups), torch.zeros((), dtype=x.dtype))


@pytest.fixture
def fused(monkeypatch):
    """That function in cuDNN's place."""
    monkeypatch.setattr(torch, "cudnn_convolution_relu", like_cudnn)
    monkeypatch.setattr(conv_relu, "_right", {})


def test_its_gradient_is_that_of_the_layers(fused):
    layer, x = nn.Conv2d(3, 4, 3, padding=1).double(), torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    found = conv_relu._ConvRelu.apply(x, layer.weight, layer.bias)
    expected = F.relu(layer(x))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.sin().sum(), x)[0] for y in (found, expected)))


@pytest.mark.parametrize("dtype", conv_relu.TOLERANCE)
def test_it_is_taken_where_it_is_right(fused, monkeypatch, dtype):
    cpu = torch.device("cpu")
    assert conv_relu._serves(cpu, dtype)

    def reads_its_output(x, *rest):
        memory = torch.empty_like(x)  # that of the tensor that was given up before, on a GPU
        return like_cudnn(x, *rest) + 0 * memory.fill_(torch.nan)

    def refused(*_):
        raise RuntimeError("GET was unable to find an engine to execute this computation")

    for wrong in (reads_its_output, refused, lambda *x: like_cudnn(*x) * 1.05):
        monkeypatch.setattr(torch, "cudnn_convolution_relu", wrong)
        assert conv_relu._serves(cpu, dtype)  # it is not tried again
        monkeypatch.setattr(conv_relu, "_right", {})
        assert not conv_relu._serves(cpu, dtype)
        monkeypatch.setattr(conv_relu, "_right", {(cpu, dtype): True})


def test_not_every_dtype_and_no_capture_has_it(fused, monkeypatch):
    cpu = torch.device("cpu")
    assert not any(conv_relu._serves(cpu, dtype) for dtype in (torch.float16, torch.float64))
    with monkeypatch.context() as captured:
        captured.setattr(conv_relu._devices, "capturing", lambda kind: True)
        assert not conv_relu._serves(cpu, torch.float32)
    assert conv_relu._serves(cpu, torch.float32)  # what could not be tried in a capture is tried later


def test_an_image_that_is_no_number_shows_in_the_loss(fused, monkeypatch):
    monkeypatch.setattr("ppl_fast.models.perceptual.conv_relu", conv_relu._ConvRelu.apply)
    loss, images = PerceptualLoss("vgg16"), torch.rand(1, 3, 32, 32).requires_grad_()
    assert loss(images, torch.rand(1, 3, 32, 32)).isfinite()
    with torch.no_grad():
        images[0, 0, 5, 5] = torch.nan
    assert loss(images, torch.rand(1, 3, 32, 32)).isnan()
