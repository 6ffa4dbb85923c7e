"""Operators inside of torch.func's transforms and forward-mode differentiation, of which their kernels know nothing."""

import pytest
import torch
from cases import DIFFERENTIABLE
from op_tester import drawn, floating
from torch.autograd import forward_ad

import ppl_fast
from ppl_fast._library import OPERATORS


def smooth_function(op: str, backend: str = "auto"):
    """The operator as a function of its differentiable arguments to its floating-point outputs; and those arguments."""
    inputs, operator = drawn(op, "SMOOTH", seed=8), OPERATORS[op]
    rest = {name: value for name, value in inputs.items() if name not in operator.differentiable}

    def function(*arguments):
        given = dict(zip(operator.differentiable, arguments, strict=True))
        return tuple(floating(operator.function(**given, **rest, backend=backend)))

    return function, tuple(inputs[name] for name in operator.differentiable)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_forward_mode_agrees_with_difference_quotients(op):
    function, leaves = smooth_function(op)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, check_backward_ad=False, fast_mode=True)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_jvp_and_vjp_agree_with_the_kernels_gradients(op):
    function, leaves = smooth_function(op)
    outputs = function(*leaves)
    upstream = tuple(torch.randn_like(o) for o in outputs)
    wanted = [leaf.clone().requires_grad_() for leaf in leaves]
    gradients = torch.autograd.grad(function(*wanted), wanted, upstream)
    values, pull = torch.func.vjp(function, *leaves)
    for actual, expected in zip((*values, *pull(upstream)), (*outputs, *gradients), strict=True):
        torch.testing.assert_close(actual, expected)
    tangents = tuple(torch.randn_like(leaf) for leaf in leaves)
    _, pushed = torch.func.jvp(function, leaves, tangents)
    forward = sum((u * v).sum() for u, v in zip(upstream, pushed, strict=True))
    backward = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
    torch.testing.assert_close(forward, backward)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_vmap_over_no_samples(op):
    function, leaves = smooth_function(op)
    mapped = torch.func.vmap(function)(*(leaf.new_empty((0, *leaf.shape)) for leaf in leaves))
    assert [each.shape for each in mapped] == [(0, *each.shape) for each in function(*leaves)]


def test_vmap_over_links():
    keypoints, weights = torch.rand(4, 2), torch.rand(2)
    links = torch.tensor([[[0, 1], [2, 3]], [[0, 2], [1, 3]]])
    mapped = torch.func.vmap(lambda each: ppl_fast.link_heatmap(keypoints[None], weights, 8, 0.1, each))(links)
    for row in range(2):
        assert torch.equal(mapped[row], ppl_fast.link_heatmap(keypoints[None], weights, 8, 0.1, links[row]))


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_vmap_agrees_with_a_loop(op):
    function, leaves = smooth_function(op)
    stacked = tuple(torch.stack([leaf * factor for factor in (1.0, 0.7, 0.4)]) for leaf in leaves)
    mapped = torch.func.vmap(function)(*stacked)
    for row in range(3):
        for actual, expected in zip(mapped, function(*(leaf[row] for leaf in stacked)), strict=True):
            torch.testing.assert_close(actual[row], expected)
    summed = torch.func.grad(lambda *a: sum(o.square().sum() for o in function(*a)))
    each = torch.func.vmap(summed)(*stacked)
    torch.testing.assert_close(each[1], summed(*(leaf[1] for leaf in stacked)))


def test_choices_and_sums_can_be_mapped():
    tokens, prototypes = torch.randn(3, 4, 2, 5), torch.randn(2, 6, 5)
    choose = lambda t: ppl_fast.memory_attention(t, prototypes)  # noqa: E731
    values, indices, _ = torch.func.vmap(choose)(tokens)
    for row in range(3):
        assert torch.equal(values[row], choose(tokens[row])[0]) and torch.equal(indices[row], choose(tokens[row])[1])
    counts, sums = torch.func.vmap(lambda t, i: ppl_fast.prototype_sums(t, i, 6))(tokens, indices)
    expected = ppl_fast.prototype_sums(tokens[2], indices[2], 6)
    torch.testing.assert_close((counts[2], sums[2]), expected)


def test_hard_values_pass_their_derivative_straight_through():
    tokens, prototypes = torch.randn(4, 2, 5), torch.randn(2, 6, 5)
    tangent = torch.randn_like(tokens)
    values = lambda t: ppl_fast.memory_attention(t, prototypes)[0]  # noqa: E731
    assert torch.equal(torch.func.jvp(values, (tokens,), (tangent,))[1], tangent)


def test_second_derivatives_are_right_inside_of_transforms():
    function, (keypoints, weights) = smooth_function("link_heatmap")
    loss = lambda k: function(k, weights)[0].square().sum()  # noqa: E731
    direction = torch.randn_like(keypoints)
    gradient = torch.func.grad(loss)
    along = torch.func.jvp(gradient, (keypoints,), (direction,))[1]
    step = 1e-6
    quotient = (gradient(keypoints + step * direction) - gradient(keypoints - step * direction)) / (2 * step)
    torch.testing.assert_close(along, quotient, rtol=1e-4, atol=1e-4 * quotient.abs().max().item())


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradients_and_maps_go_through_the_kernels(op):
    """Bit for bit those of one sample after the other, which a formula's would not be."""
    function, leaves = smooth_function(op, "cpp")
    loss = lambda *a: sum(o.square().sum() for o in function(*a))  # noqa: E731
    every = tuple(range(len(leaves)))
    stacked = tuple(torch.stack([leaf, leaf * 0.7]) for leaf in leaves)
    found = torch.func.vmap(torch.func.grad(loss, argnums=every))(*stacked)
    for row in range(2):
        one = [leaf[row].clone().requires_grad_() for leaf in stacked]
        loss(*one).backward()
        for actual, expected in zip(found, one, strict=True):
            assert torch.equal(actual[row], expected.grad)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_kernels_asked_for_by_name_refuse(op):
    function, leaves = smooth_function(op, "cpp")
    sentence = f"{op}: backend 'cpp' has no forward-mode derivatives and no gradients of gradients"
    with pytest.raises(RuntimeError, match=sentence), forward_ad.dual_level():
        function(*leaves)
    twice = torch.func.grad(lambda a, *b: torch.func.grad(lambda x: function(x, *b)[0].sum())(a).sum())
    with pytest.raises(RuntimeError, match=sentence):
        twice(*leaves)


@pytest.mark.slow
def test_a_compiled_transform():
    function, leaves = smooth_function("affine_warp")
    loss = lambda *a: function(*a)[0].square().sum()  # noqa: E731
    expected = torch.func.grad(loss)(*leaves)
    torch.testing.assert_close(torch.compile(torch.func.grad(loss), backend="eager")(*leaves), expected)


def test_a_functional_call_of_a_model():
    model = ppl_fast.PPL(num_keypoints=4, image_size=32, width=0.1, reconstruction_loss="mse").eval()
    images, parameters = torch.rand(2, 3, 32, 32), dict(model.named_parameters())
    loss = lambda p: torch.func.functional_call(model, p, (images,)).loss  # noqa: E731
    found = torch.func.grad(loss)(parameters)
    model(images).loss.backward()
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], expected, rtol=1e-3, atol=1e-5)
