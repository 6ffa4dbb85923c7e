"""All operators, all backends of this machine: one tester, the cases of cases/."""

import pytest
import torch
from cases import CASES, DIFFERENTIABLE, every, first
from op_tester import check, drawn, evaluate, floating, gradients_are_derivatives, opcheck, running, strided

from ppl_fast import _backend, _library
from ppl_fast._library import OPERATORS


def test_cpp_is_built_and_serves_the_cpu():
    assert _library.failure("_C_cpu") is None, _library.failure("_C_cpu")
    for op, operator in OPERATORS.items():
        for name in operator.ops:
            assert _library.has_kernel(name, "CPU"), name
            assert not _library.has_kernel(f"{name}_reference", "CPU"), name
        for name in ("auto", "cpp"):
            assert _backend.select(op, name, torch.device("cpu")) is operator.overload()
        assert _backend.select(op, "reference", torch.device("cpu")) is operator.overload("_reference")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("op", "case"), every())
def test_agrees_with_the_reference(op, case, backend, dtype):
    check(op, case, backend, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "case"), first())
def test_half_types(op, case, backend, dtype):
    check(op, case, backend, dtype)


@pytest.mark.parametrize(("op", "case"), first())
def test_strides(op, case, backend):
    check(op, case, backend, torch.float32, layout=strided)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradcheck(op, backend):
    with running(backend) as name:
        assert gradients_are_derivatives(op, name, drawn(op, "SMOOTH", seed=3))


@pytest.mark.parametrize("op", CASES)
def test_results_repeat_to_the_bit_on_any_number_of_threads(op, backend):
    inputs = drawn(op, seed=4, dtype=torch.float32)
    with running(backend) as name:
        outputs, gradients, _ = evaluate(op, inputs, name)
        torch.set_num_threads(3)
        again, gradients_again, _ = evaluate(op, inputs, name)
    for a, b in zip(outputs + gradients, again + gradients_again, strict=True):
        assert torch.equal(a, b)


# Siblings get their schema, fake and autograd by one call, `Operator.add_sibling`.
@pytest.mark.parametrize(
    ("name", "suffix"), [("cpp", ""), pytest.param("reference", "_reference", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("op", OPERATORS)
def test_opcheck(op, name, suffix):
    for what in ("MEDIUM", "SMOOTH") if op in DIFFERENTIABLE else ("MEDIUM",):
        assert opcheck(op, name, drawn(op, what, seed=5)) == {f"{each}{suffix}" for each in OPERATORS[op].ops}


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_second_derivative_says_so(op, backend):
    operator = OPERATORS[op]
    inputs = drawn(op, seed=6)
    leaf = inputs[operator.differentiable[0]].requires_grad_()
    with running(backend) as name:
        out = floating(operator.function(**inputs, backend=name))[-1]
        (once,) = torch.autograd.grad(out.square().sum(), leaf, create_graph=True)
        with pytest.raises(RuntimeError, match=f"{op}: the second derivative is not implemented"):
            once.sum().backward()


def all_operators(backend: str):
    """A function of leaves that calls every operator on its example and adds up all that comes out; and the leaves."""
    inputs = {name: op.example(torch.Generator().manual_seed(7)) for name, op in OPERATORS.items()}
    inputs = {
        name: {key: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for key, v in one.items()}
        for name, one in inputs.items()
    }
    leaves = [inputs[name][leaf].requires_grad_() for name, op in OPERATORS.items() for leaf in op.differentiable]

    def function(*leaves):
        total, given = 0, iter(leaves)
        for name, operator in OPERATORS.items():
            arguments = inputs[name] | {leaf: next(given) for leaf in operator.differentiable}
            total = total + sum(o.square().mean() for o in floating(operator.function(**arguments, backend=backend)))
        return total

    return function, leaves


@pytest.mark.slow
def test_compiles_without_graph_breaks(backend):
    """torch.compile(fullgraph=True) of a function that uses all operators agrees with eager, gradients included."""
    with running(backend) as name:
        function, leaves = all_operators(name)
        expected = function(*leaves)
        gradients = torch.autograd.grad(expected, leaves)
        actual = torch.compile(function, fullgraph=True)(*leaves)
        compiled = torch.autograd.grad(actual, leaves)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(compiled, gradients)
