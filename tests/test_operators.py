"""All operators, all backends of this machine: one tester, the cases of cases.py."""

import pytest
import torch
from cases import AFFINE_WARP, LINK_HEATMAP, MEMORY_ATTENTION, random_links, random_tokens, random_warp
from op_tester import OPERATORS, check, evaluate, running, strided

import ppl_fast
from ppl_fast import _backend, _library

ALL = {"link_heatmap": LINK_HEATMAP, "memory_attention": MEMORY_ATTENTION, "affine_warp": AFFINE_WARP}
EVERY = [pytest.param(op, case, id=f"{op}-{case.name}") for op, cases in ALL.items() for case in cases]
FIRST = [pytest.param(op, cases[0], id=op) for op, cases in ALL.items()]
MEDIUM = {
    "link_heatmap": random_links(3, 6, (20, 28), 1e-2),
    "memory_attention": random_tokens(4, 3, 5, 6),
    "affine_warp": random_warp(3, 4, True),
}


def test_cpp_is_built_and_serves_the_cpu():
    assert _library.failure("_C_cpu") is None, _library.failure("_C_cpu")
    for op in [*OPERATORS, *(f"{op}_backward" for op in OPERATORS), "prototype_sums"]:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"ppl_fast::{op}", "CPU"), op
        assert not torch._C._dispatch_has_kernel_for_dispatch_key(f"ppl_fast::{op}_reference", "CPU"), op
    for op in [*OPERATORS, "prototype_sums"]:
        for name in ("auto", "cpp"):
            assert _backend.select(op, name, torch.device("cpu")) is getattr(torch.ops.ppl_fast, op).default
        chosen = _backend.select(op, "reference", torch.device("cpu"))
        assert chosen is getattr(torch.ops.ppl_fast, f"{op}_reference").default


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("op", "case"), EVERY)
def test_agrees_with_the_reference(op, case, backend, dtype):
    check(op, case, backend, dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("op", "case"), FIRST)
def test_half_types(op, case, backend, dtype):
    check(op, case, backend, dtype)


@pytest.mark.parametrize(("op", "case"), FIRST)
def test_strides(op, case, backend):
    check(op, case, backend, torch.float32, layout=strided)


@pytest.mark.parametrize("op", list(MEDIUM))
def test_gradcheck(op, backend):
    function, leaves = OPERATORS[op]
    inputs = MEDIUM[op](torch.Generator().manual_seed(3))
    if op == "memory_attention":
        inputs["temperature"] = 2.0  # the hard mode's values pass their gradient straight through: no derivative
    rest = {name: value for name, value in inputs.items() if name not in leaves}

    def smooth(*arguments):
        outputs = function(**dict(zip(leaves, arguments, strict=True)), **rest, backend=name)
        return tuple(o for o in (outputs if isinstance(outputs, tuple) else (outputs,)) if o.is_floating_point())

    with running(backend) as name:
        assert torch.autograd.gradcheck(smooth, [inputs[leaf].requires_grad_() for leaf in leaves])


@pytest.mark.parametrize("op", list(MEDIUM))
def test_results_repeat_to_the_bit_on_any_number_of_threads(op, backend):
    inputs = MEDIUM[op](torch.Generator().manual_seed(4))
    inputs = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
    with running(backend) as name:
        outputs, gradients, _ = evaluate(op, inputs, name)
        torch.set_num_threads(3)
        again, gradients_again, _ = evaluate(op, inputs, name)
    for a, b in zip(outputs + gradients, again + gradients_again, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("suffix", ["", "_reference"])
@pytest.mark.parametrize("op", list(MEDIUM))
def test_opcheck(op, suffix):
    ops, inputs = torch.ops.ppl_fast, MEDIUM[op](torch.Generator().manual_seed(5))
    if op == "link_heatmap":
        head = (inputs["keypoints"], inputs["weights"], ppl_fast.default_links(6))
        arguments = [(*head, 20, 28, 1e-2)]
        heatmap, winner = ops.link_heatmap(*arguments[0])
        backwards = [(torch.rand_like(heatmap), *head, winner, 1e-2)]
    elif op == "memory_attention":
        head = (inputs["tokens"], inputs["prototypes"])
        arguments = [(*head, None), (*head, 3.0)]
        backwards = []
        for a, needs in zip(arguments, (False, True), strict=True):
            values, indices, distances, logsumexp = ops.memory_attention(*a)
            upstream = (torch.rand_like(values), torch.rand_like(distances))
            backwards.append((*upstream, *head, values, indices, logsumexp, a[2], needs))
    else:
        arguments = [(inputs["keypoints"], inputs["affine"])]
        backwards = [(torch.rand(3, 4, 2).double(), *arguments[0])]
    for a in arguments:
        trainable = [x.clone().requires_grad_() if i < 2 else x for i, x in enumerate(a)]
        torch.library.opcheck(getattr(ops, op + suffix), tuple(trainable))
    for a in backwards:
        torch.library.opcheck(getattr(ops, f"{op}_backward{suffix}"), a)


def test_opcheck_prototype_sums():
    tokens, indices = torch.randn(4, 3, 6), torch.randint(5, (4, 3))
    for op in (torch.ops.ppl_fast.prototype_sums, torch.ops.ppl_fast.prototype_sums_reference):
        torch.library.opcheck(op, (tokens, indices, 5))


@pytest.mark.parametrize("op", list(MEDIUM))
def test_second_derivative_says_so(op, backend):
    function, leaves = OPERATORS[op]
    inputs = MEDIUM[op](torch.Generator().manual_seed(6))
    leaf = inputs[leaves[0]].requires_grad_()
    with running(backend) as name:
        out = function(**inputs, backend=name)
        out = out[2] if isinstance(out, tuple) else out
        (first,) = torch.autograd.grad(out.square().sum(), leaf, create_graph=True)
        with pytest.raises(RuntimeError, match=f"{op}: the second derivative is not implemented"):
            first.sum().backward()


@pytest.mark.slow
def test_compiles_without_graph_breaks(backend):
    """torch.compile(fullgraph=True) of a function that uses all operators agrees with eager, gradients included."""
    keypoints, affine = (torch.randn(s, requires_grad=True) for s in ((5, 2), (3, 5, 2, 3)))
    tokens, prototypes = (torch.randn(s, requires_grad=True) for s in ((3, 4, 8), (4, 6, 8)))
    weights = torch.rand(10, requires_grad=True)
    leaves = (keypoints, affine, tokens, prototypes, weights)

    def function(keypoints, affine, tokens, prototypes, weights):
        points = ppl_fast.affine_warp(keypoints, affine, backend=name)
        values, indices, distances = ppl_fast.memory_attention(tokens, prototypes, backend=name)
        counts, _ = ppl_fast.prototype_sums(tokens, indices, 6, backend=name)
        heat = ppl_fast.link_heatmap(points.tanh(), weights, (12, 20), 0.1, backend=name)
        return heat.square().mean() + values.square().mean() + distances.mean() + counts.square().sum()

    with running(backend) as name:
        expected = function(*leaves)
        gradients = torch.autograd.grad(expected, leaves)
        actual = torch.compile(function, fullgraph=True)(*leaves)
        compiled = torch.autograd.grad(actual, leaves)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(compiled, gradients)
