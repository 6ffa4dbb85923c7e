"""Layers, against plain compositions of torch's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from model_cases import pictures, tiny
from torch import nn
from torch._subclasses import FakeTensorMode

from ppl_fast.models import resizing
from ppl_fast.models.blocks import Layers, MixerLayer, random_blocks
from ppl_fast.models.regressor import DownBlock, Regressor, attend, cells
from ppl_fast.models.resizing import DoublingConv2d, Halve, HalvingConv2d, upsample2x
from ppl_fast.models.translator import LightTranslator, UNetTranslator


@pytest.mark.parametrize("inputs", [3, resizing.FEW])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_halving_convolution_is_convolution_then_mean(inputs, layout, size):
    layer, x = HalvingConv2d(inputs, 5).double(), torch.randn(2, inputs, *size, dtype=torch.float64)
    x = x.contiguous(memory_format=layout).requires_grad_()
    expected = F.avg_pool2d(nn.Conv2d.forward(layer, x), 2)
    on_a_gpu = F.conv2d(x, resizing.halving_kernel(layer.weight), layer.bias, stride=2, padding=1)
    wanted = torch.autograd.grad(expected.sin().sum(), (x, *layer.parameters()))
    for y in (layer(x), on_a_gpu):
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(torch.autograd.grad(y.sin().sum(), (x, *layer.parameters())), wanted)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_halving_convolution_pools_its_weight_contiguous(layout, monkeypatch):
    """The backward of torch's CUDA pooling is else wrong about padding."""
    pooled, pool = [], F.avg_pool2d
    monkeypatch.setattr(F, "avg_pool2d", lambda x, *how, **more: pooled.append(x) or pool(x, *how, **more))
    layer = HalvingConv2d(3, 5).to("meta", memory_format=layout)
    layer(torch.randn(2, 3, 8, 8, device="meta")).sum().backward()
    assert [weight.is_contiguous() for weight in pooled] == [True]
    assert layer.weight.grad.stride() == layer.weight.stride()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [1, 7, 9])
def test_doubling_after_the_products_is_doubling_then_convolution(bias, layout, width, monkeypatch):
    layer, x = DoublingConv2d(16, 5).double(), torch.randn(2, 16, 4, width, dtype=torch.float64)
    layer.bias = layer.bias if bias else None
    layer, x = layer.to(memory_format=layout), x.contiguous(memory_format=layout).requires_grad_()
    taken, double, by_products = [], resizing.doubled, resizing._doubled_by_products
    monkeypatch.setattr(resizing, "doubled", lambda *given: taken.append("doubled") or double(*given))
    monkeypatch.setattr(resizing, "_doubled_by_products", lambda x: taken.append("by products") or by_products(x))
    expected = layer(x)
    assert not taken  # of 16 channels
    torch.testing.assert_close(expected, nn.Conv2d.forward(layer, upsample2x(x)))
    monkeypatch.setattr(resizing, "WIDE", 16)
    found = layer(x)
    assert taken == ["doubled", "by products"][: 1 if width == 9 else 2]
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(y.sin().sum(), (x, *layer.parameters())) for y in (found, expected)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)
    assert taken.count("doubled") == 2 and taken.count("by products") == (width != 9)


def test_doublings_give_way_to_who_follows_what_is_computed(monkeypatch):
    monkeypatch.setattr(resizing, "WIDE", 8)
    layer, x = DoublingConv2d(8, 2).double(), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    expected = nn.Conv2d.forward(layer, upsample2x(x))
    (slope,) = torch.autograd.grad(layer(x.requires_grad_()).sum(), x)
    torch.testing.assert_close(layer(x), expected)
    tangent = torch.autograd.functional.jvp(layer, x.detach(), x.detach())[1]
    with torch.autograd.forward_ad.dual_level():
        dual = layer(torch.autograd.forward_ad.make_dual(x.detach(), x.detach()))
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(dual).tangent, tangent)
    y = layer(x)
    upstream = torch.stack([torch.ones_like(y), 2 * torch.ones_like(y)])
    (several,) = torch.autograd.grad(y, x, upstream, is_grads_batched=True)
    torch.testing.assert_close(several, torch.stack([slope, 2 * slope]))
    traced = torch.jit.trace(layer, (x,), check_trace=False)
    torch.testing.assert_close(traced(2 * x), layer(2 * x))
    recorded = torch.fx.experimental.proxy_tensor.make_fx(layer)(x.detach().requires_grad_())
    torch.testing.assert_close(recorded(2 * x), layer(2 * x))
    kernel = resizing.products(layer)
    gradient = torch.func.grad(lambda x: resizing.doubled(x, *kernel).sum())(x.detach())
    torch.testing.assert_close(gradient, slope)


def test_the_second_derivative_of_a_doubling_after_the_products(monkeypatch):
    monkeypatch.setattr(resizing, "WIDE", 4)
    layer = DoublingConv2d(4, 2).double()
    assert torch.autograd.gradgradcheck(layer, torch.randn(1, 4, 2, 2, dtype=torch.float64).requires_grad_())


@pytest.mark.parametrize("cast", [False, True])
@pytest.mark.parametrize(("size", "factor"), [(16, 1.4), (40, 2)])
def test_products_in_bfloat16_are_nearly_as_near(cast, size, factor, monkeypatch):
    """By matrices a sum is rounded once; in passes, which sides of more than half of the channels have, each of it."""
    layer, x = DoublingConv2d(64, 32), torch.randn(2, 64, size, size)
    exact = copy.deepcopy(layer).double()(x.double())

    def off(wide):
        monkeypatch.setattr(resizing, "WIDE", wide)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            found = layer(x) if cast else copy.deepcopy(layer).bfloat16()(x.bfloat16())
        assert found.dtype == torch.bfloat16
        return (found - exact).square().mean().sqrt()

    convolved, multiplied = off(65), off(64)
    assert convolved != multiplied < factor * convolved


def test_doubling_comes_first_inside_of_compilers_and_transforms(monkeypatch):
    """Who fuses or writes down knows the plain operations."""
    monkeypatch.setattr(resizing, "WIDE", 3)
    monkeypatch.setattr(resizing, "doubled", None)
    layer, x = DoublingConv2d(3, 5), torch.randn(2, 3, 4, 6)
    torch.compile(layer, backend="eager", fullgraph=True)(x)
    torch.func.vmap(layer)(x.unsqueeze(1))
    torch.export.export(layer, (x,))
    with pytest.raises(TypeError, match="NoneType"):
        layer(x)


def test_means_of_four_keep_nothing_of_what_they_are_taken_of():
    x = torch.randn(2, 3, 8, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    found, expected, upstream = Halve()(x), F.avg_pool2d(x, 2), torch.randn(2, 3, 4, 3)
    assert torch.equal(found, expected) and not found.grad_fn.saved_tensors
    assert torch.equal(*(torch.autograd.grad(y, x, upstream)[0] for y in (found, expected)))
    mapped = torch.func.vmap(Halve())(x.detach().unsqueeze(1))
    assert torch.equal(mapped.squeeze(1), expected) and Halve()(x[..., 1:]).shape == (2, 3, 4, 2)
    assert torch.autograd.gradgradcheck(Halve(), torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True))
    with torch.autograd.forward_ad.dual_level():
        dual = Halve()(torch.autograd.forward_ad.make_dual(x, x.detach()))
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(dual).tangent, expected)


def test_doubling_is_the_operators_on_a_gpu_and_torchs_elsewhere_and_inside_of_transforms(monkeypatch):
    taken, x = [], torch.randn(2, 3, 4, 6)
    monkeypatch.setattr(resizing, "bilinear_upsample2x", lambda x: taken.append(x.device.type))
    with FakeTensorMode():
        on_a_gpu = torch.empty(2, 3, 4, 6, device="cuda")
        upsample2x(on_a_gpu)
        assert torch.func.vmap(upsample2x)(on_a_gpu.unsqueeze(1)).shape == (2, 1, 3, 8, 12)
    assert torch.equal(upsample2x(x), F.interpolate(x, scale_factor=2, mode="bilinear"))
    assert taken == ["cuda"]


def test_down_block_is_the_sum_of_two_paths():
    block, x = DownBlock(3, 4).double().eval(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    weight = block.entry[0].weight
    main, side = (F.avg_pool2d(F.conv2d(x, weight[s], padding=1), 2) for s in (slice(4), slice(4, None)))
    norm = 1 / (1 + 1e-5) ** 0.5  # a fresh BatchNorm in eval mode
    expected = F.leaky_relu(block.main(main * norm) + side * norm, 0.2)
    torch.testing.assert_close(block(x), expected)


def test_a_bias_before_batchnorm_is_taken_off_the_running_mean():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 2, 1))
    plain[1].running_mean.normal_()
    layers = Layers(*copy.deepcopy(plain))
    assert set(layers.spare_biases("in.")) == {"in.0.bias"} and "0.bias" not in layers.state_dict()
    state = plain.state_dict()
    layers.load_state_dict(state)
    assert state.keys() == plain.state_dict().keys()  # what is given stays as it is
    for training in (True, False):
        x = torch.randn(2, 3, 8, 8)
        found, expected = (each.train(training)(x) for each in (layers, plain))
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(layers[1].running_mean + plain[0].bias, plain[1].running_mean)
    layers.load_state_dict(layers.state_dict())
    other = Layers(nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.BatchNorm2d(4))
    assert other.spare_biases() == {} and other[0].bias is not None


def test_mixer_layer_adds_both_branches():
    layer, x = MixerLayer(5, 6, 7, 8), torch.randn(2, 5, 6)
    y = torch.stack([layer.token_mlp(column) for column in layer.token_norm(x).unbind(2)], 2)
    z = layer.channel_mlp(layer.channel_norm(x + y))
    torch.testing.assert_close(layer(x), x + y + z)


def test_cells_run_along_rows_and_end_at_the_borders():
    grid = cells(torch.zeros(1, 1, 2, 3))
    assert grid.tolist() == [[-1, -1], [0, -1], [1, -1], [-1, 1], [0, 1], [1, 1]]


def test_residual_head_starts_at_the_expected_positions():
    torch.manual_seed(0)
    regressor = Regressor(4, base=4, head="residual").eval()
    with torch.no_grad():
        regressor.maps.weight.zero_()
        regressor.affine[-1].weight.zero_()
        regressor.maps.bias.zero_()
        affine = regressor(torch.zeros(1, 3, 32, 32), torch.rand(4, 2))
        assert affine.abs().max() < 1e-6  # even attention: the centre
        seen = []
        regressor.maps.register_forward_hook(lambda *args: seen.append(args[2]))
        regressor.maps.weight.normal_(std=10)
        translation = regressor(torch.randn(1, 3, 32, 32), torch.rand(4, 2))[..., 2]
    attention = seen[0].softmax(-1) if seen[0].dim() == 3 else seen[0].flatten(2).softmax(-1)
    expected = (attention.unsqueeze(3) * cells(seen[0])).sum(2)
    torch.testing.assert_close(translation, expected)
    assert expected.abs().max() > 0.1


def test_position_head_is_the_expected_position_whatever_the_prior():
    torch.manual_seed(0)
    regressor, images = Regressor(4, base=4, head="position").eval(), torch.rand(3, 3, 32, 32)
    _, position = attend(regressor.maps(regressor.trunk(images)), torch.float32)
    for prior in (torch.zeros(4, 2), torch.rand(4, 2)):
        theta = regressor(images, prior)
        found = (theta[..., :2] @ prior.unsqueeze(2)).squeeze(3) + theta[..., 2]
        torch.testing.assert_close(found, position)
    assert not any(name.startswith(("embed", "affine")) for name in regressor.state_dict())


@pytest.mark.parametrize("head", ["affine", "residual", "position"])
def test_keypoints_are_found_as_in_a_pass(head):
    """By the head "position" to the same bits, although the prior is not asked for."""
    model, images = tiny(head=head).train(), pictures()
    found, weight = model.find(images), model.regressor.maps.weight
    expected = model(images).keypoints
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(x.square().sum(), weight)[0] for x in (found, expected)))


def test_affine_head_sees_image_position_and_prior():
    torch.manual_seed(0)
    regressor = Regressor(4, base=4).eval()
    images, prior = torch.randn(2, 3, 32, 32), torch.rand(4, 2)
    affine = regressor(images, prior)
    assert not torch.allclose(affine[0], affine[1])
    moved = regressor(images, prior.roll(1, 0))
    assert not torch.allclose(moved, affine)


@pytest.mark.parametrize("kind", [UNetTranslator, LightTranslator])
@pytest.mark.parametrize("levels", [1, 2, 4])
def test_translators_use_both_inputs(kind, levels):
    torch.manual_seed(0)
    translator = kind(4, levels).eval()
    image, heatmap = torch.randn(2, 3, 32, 48), torch.rand(2, 1, 32, 48)
    out = translator(image, heatmap)
    assert out.shape == (2, 3, 32, 48)
    assert not torch.allclose(out, translator(image, heatmap.roll(8, 3)))
    assert not torch.allclose(out, translator(image.roll(8, 3), heatmap))


@pytest.mark.parametrize("kind", [UNetTranslator, LightTranslator])
def test_maps_lie_channels_last_on_a_cpu_and_as_they_are_under_vmap(kind):
    translator, image, heatmap = kind(4, 2).eval(), torch.randn(2, 3, 16, 16), torch.rand(2, 1, 16, 16)
    out = translator(image, heatmap)
    assert out.is_contiguous(memory_format=torch.channels_last) and not out.is_contiguous()
    alone = torch.vmap(lambda x, h: translator(x[None], h[None])[0])(image, heatmap)
    torch.testing.assert_close(alone, out)


def test_unet_channels_are_the_published_ones():
    widths = [block[0].out_channels for block in UNetTranslator().down]
    assert widths == [128, 256, 512, 512]


@pytest.mark.parametrize("ratio,share", [(0.0, 1.0), (1.0, 0.0), (0.8, 0.2)])
def test_random_blocks_keep_their_share(ratio, share):
    torch.manual_seed(0)
    mask = random_blocks(200, 8, ratio, (32, 32), torch.zeros(1))
    assert mask.shape == (200, 1, 32, 32) and set(mask.unique().tolist()) <= {0.0, 1.0}
    assert abs(mask.mean() - share) < 0.02
