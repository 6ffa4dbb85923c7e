"""What the C++ kernels refuse when they are called past the Python wrappers, as a C++ program calls them."""

import re

import cuda_emulator
import pytest
import torch
from op_tester import OPERATORS, called, drawn

from ppl_fast import _library

CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
CALLS = {  # the torch ops behind each operator, with arguments
    call.name().removeprefix("ppl_fast::").removesuffix("_reference"): arguments
    for name, operator in OPERATORS.items()
    for call, arguments in called(name, "reference", drawn(name, dtype=torch.float32), operator.differentiable)
}
TENSORS = {op: [i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor)] for op, arguments in CALLS.items()}
EACH = [  # a kernel with one tensor is chosen by it
    pytest.param(op, i, id=f"{op}-{i}") for op, places in TENSORS.items() if len(places) > 1 for i in places
]


@pytest.fixture(params=["", "_plain"], ids=["cpu", "cuda"])
def call(request):
    """The kernels themselves: the dispatcher would not choose them for tensors of two devices."""
    reason = cuda_emulator.reason_against() if request.param else _library.failure("_C_cpu")
    if reason:
        pytest.skip(reason)
    if request.param:
        cuda_emulator.register("plain")
    return lambda op, *arguments: getattr(torch.ops.ppl_fast, op + request.param).default.redispatch(CPU, *arguments)


def test_every_op_is_called():
    assert set(CALLS) == {op for operator in OPERATORS.values() for op in operator.ops}


@pytest.mark.parametrize(("op", "i"), EACH)
def test_tensors_on_two_devices_are_refused(op, i, call):
    with torch.no_grad():
        call(op, *CALLS[op])
        elsewhere = [a.to("meta") if j == i else a for j, a in enumerate(CALLS[op])]
        with pytest.raises(RuntimeError, match=rf"{re.sub('_backward$', '', op)}\w*: .* on (one|the) device"):
            call(op, *elsewhere)


@pytest.mark.parametrize("op", list(CALLS))
def test_other_dtypes_are_refused(op, call):
    integers = [a.int() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in CALLS[op]]
    with torch.no_grad(), pytest.raises(RuntimeError, match="must be float16, bfloat16, float32 or float64"):
        call(op, *integers)
