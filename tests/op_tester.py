"""One tester for all operators and backends: agreement with the float64 reference, forward and backward."""

from __future__ import annotations

import contextlib
import importlib
import math

import torch
from cases import TOLERANCE, Case, of
from torch.utils._python_dispatch import TorchDispatchMode

import ppl_fast
from ppl_fast import _library
from ppl_fast._library import OPERATORS

_definition = importlib.import_module("ppl_fast.ops.link_heatmap")  # the package's attribute is the function


@contextlib.contextmanager
def poisoned_memory():
    """Fill what torch.empty returns with NaN (or the largest integer), so that an output left unwritten shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]


@contextlib.contextmanager
def running(backend: str):
    """Choose the backend `name` or `cpp:isa` and yield the name that the operators take."""
    name, _, isa = backend.partition(":")
    if not isa:
        yield name
        return
    kernels = _library.loaded("_C_cpu")
    before = kernels.current_isa()
    kernels.use_isa(isa)
    try:
        assert kernels.current_isa() == isa
        yield name
    finally:
        kernels.use_isa(before)


def as_tuple(outputs) -> tuple:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def floating(outputs) -> list:
    """The floating-point ones among what an operator returned."""
    return [o for o in as_tuple(outputs) if o.is_floating_point()]


def drawn(op: str, what: str = "MEDIUM", seed: int = 0, dtype=torch.float64) -> dict:
    """The input that the file of an operator's cases calls `what`."""
    return Case(what, of(op, what)).inputs(dtype, seed=seed)


def gradients_are_derivatives(op: str, backend: str, inputs: dict, **options) -> bool:
    """Run gradcheck on float64 inputs."""
    operator = OPERATORS[op]
    rest = {name: value for name, value in inputs.items() if name not in operator.differentiable}

    def smooth(*arguments):
        given = dict(zip(operator.differentiable, arguments, strict=True))
        return tuple(floating(operator.function(**given, **rest, backend=backend)))

    leaves = [inputs[leaf].requires_grad_() for leaf in operator.differentiable]
    return torch.autograd.gradcheck(smooth, leaves, **options)


class _Calls(TorchDispatchMode):
    """Notes the calls of ppl_fast's ops."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def __torch_dispatch__(self, op, types, arguments=(), options=None):
        if op.namespace == "ppl_fast":
            self.noted.append((op, arguments))
        return op(*arguments, **(options or {}))


def called(op: str, backend: str, inputs: dict, differentiable) -> list[tuple]:
    """The torch ops that the operator calls, forward and backward, each with its arguments."""
    leaves = {name: inputs[name].detach().requires_grad_() for name in differentiable}
    with _Calls() as calls:
        smooth = floating(OPERATORS[op].function(**{**inputs, **leaves}, backend=backend))
        if leaves:
            torch.autograd.grad(smooth, list(leaves.values()), [torch.rand_like(o) for o in smooth])
    return calls.noted


def opcheck(op: str, backend: str, inputs: dict) -> set[str]:
    """Run torch's opcheck on the ops that the operator calls, forward and backward, and return their names.

    Once with gradients to all differentiable arguments and once to the first alone.
    """
    operator, names = OPERATORS[op], set()
    for differentiable in {operator.differentiable, operator.differentiable[:1]}:
        for call, arguments in called(op, backend, inputs, differentiable):
            names.add(call.name().removeprefix("ppl_fast::"))
            if "_backward" in call.name():
                arguments = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments)
            else:
                wanted = len(differentiable)
                arguments = tuple(a.detach().requires_grad_() if i < wanted else a for i, a in enumerate(arguments))
            torch.library.opcheck(call, arguments)
    return names


def strided(x: torch.Tensor) -> torch.Tensor:
    """An equal tensor whose elements lie apart and out of order in memory."""
    if x.dim() < 2:
        return torch.stack([x, x], -1)[..., 0]
    order = list(reversed(range(x.dim())))
    return torch.stack([x, x], -1)[..., 0].permute(order).contiguous().permute(order)


def evaluate(op: str, inputs: dict, backend: str, upstream=None):
    """(outputs, gradients, upstream gradients) of the operator; upstream gradients are drawn where not given."""
    operator = OPERATORS[op]
    leaves = {name: inputs[name].detach().requires_grad_() for name in operator.differentiable}
    outputs = as_tuple(operator.function(**{**inputs, **leaves}, backend=backend))
    smooth = floating(outputs)
    if upstream is None:
        g = torch.Generator().manual_seed(1)
        upstream = [torch.randn(o.shape, generator=g, dtype=torch.float64).to(o.device) for o in smooth]
    given = [torch.empty_like(o).copy_(u) for u, o in zip(upstream, smooth, strict=True)]  # laid out as the outputs
    gradients = torch.autograd.grad(smooth, list(leaves.values()), given) if leaves else ()
    return [o.detach() for o in outputs], list(gradients), upstream


def away_from_ties(op: str, inputs: dict, upstream):
    """Zero the upstream gradient of link_heatmap where float32 may take another winner: two values nearly, not quite,
    equal. Exact ties stay: there every backend must choose the lowest index."""
    if op != "link_heatmap":
        return upstream
    links = inputs.get("links")
    links = ppl_fast.default_links(inputs["keypoints"].shape[1]) if links is None else links
    if len(links) < 2 or not len(inputs["keypoints"]):
        return upstream
    pixels = _definition._pixels(*ppl_fast._check.size("", "size", inputs["size"]), inputs["keypoints"])
    _, r = _definition._residuals(pixels, inputs["keypoints"][:, links][:, :, None, None])
    logs = inputs["weights"].clamp(min=0).log()[..., None, None] - r.square().sum(-1) / inputs["thickness"]
    gap = logs.amax(1, keepdim=True) - logs
    near = ((gap > 0) & (gap < 1e-2)).any(1, keepdim=True)
    return [upstream[0].masked_fill(near, 0)]


def assert_close(name: str, actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Compare norm-wise: the largest error against the largest finite value; NaN must match NaN."""
    assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    actual, expected = actual.double().cpu(), expected.double().cpu()
    nan = expected.isnan()
    assert torch.equal(actual.isnan(), nan), f"{name}: NaN in {int(actual.isnan().sum())} places, not {int(nan.sum())}"
    if nan.all():
        return
    error = (actual[~nan] - expected[~nan]).abs().max().item()
    largest = expected[~nan].abs().max().item()
    assert error <= tolerance * largest + 1e-30, f"{name}: error {error:.3g} at a largest value of {largest:.3g}"


def check(op: str, case, backend: str, dtype: torch.dtype, device: str = "cpu", *, layout=lambda x: x) -> None:
    """Assert that `backend` agrees with the float64 reference on `case`, values and gradients."""
    inputs = case.inputs(dtype, device)
    exact = {
        name: (x.double() if x.is_floating_point() else x).cpu() if isinstance(x, torch.Tensor) else x
        for name, x in inputs.items()
    }
    _, _, upstream = evaluate(op, exact, "reference")
    upstream = [u.to(dtype).double() for u in away_from_ties(op, exact, upstream)]
    expected, expected_grads, _ = evaluate(op, exact, "reference", upstream)
    laid_out = {
        name: layout(x) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for name, x in inputs.items()
    }
    with running(backend) as name, poisoned_memory():
        actual, grads, _ = evaluate(op, laid_out, name, [u.to(device) for u in upstream])
    dtypes = [dtype] * len(expected)
    if dtype.itemsize < 4:  # sums may come in float32
        dtypes = [o.dtype for o in evaluate(op, inputs, "reference")[0]]
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        if e.is_floating_point():
            assert a.dtype == dtypes[i]
            assert_close(f"{op}[{case.name}] output {i}", a, e, TOLERANCE[dtype])
        else:
            check_choice(a.cpu(), e, exact, dtype)
    for leaf, a, e in zip(OPERATORS[op].differentiable, grads, expected_grads, strict=True):
        assert a.dtype == dtype
        assert_close(f"{op}[{case.name}] gradient of {leaf}", a, e, TOLERANCE[dtype] * math.sqrt(a.numel() + 1))


def check_choice(actual, expected, inputs, dtype) -> None:
    """Nearest prototypes may differ only where float64 finds the two equally far, to within the dtype's tolerance."""
    squared = (inputs["tokens"].unsqueeze(2) - inputs["prototypes"]).square().sum(-1)
    different = actual != expected
    chosen, best = (squared.gather(2, i.unsqueeze(-1)).squeeze(-1)[different] for i in (actual, expected))
    assert torch.all((chosen - best) <= TOLERANCE[torch.float32 if dtype.itemsize < 4 else dtype] * best)
    assert not torch.any((chosen == best) & (actual > expected)[different]), "a tie must go to the lowest index"
