"""What the C++ kernels refuse when they are called past the Python wrappers, as a C++ program calls them."""

import re

import cuda_emulator
import pytest
import torch

from ppl_fast import _library

CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
KEYPOINTS, AFFINE, LINKS = torch.rand(2, 3, 2), torch.rand(2, 3, 2, 3), torch.tensor([[0, 1], [1, 2]])
TOKENS, PROTOTYPES = torch.rand(2, 3, 4), torch.rand(3, 5, 4)
HEATMAP, WINNER = torch.rand(2, 1, 6, 7), torch.zeros(2, 6, 7, dtype=torch.int16)
INDICES, DISTANCES = torch.zeros(2, 3, dtype=torch.long), torch.rand(2, 3)
CALLS = {
    "affine_warp": (KEYPOINTS, AFFINE),
    "affine_warp_backward": (KEYPOINTS, KEYPOINTS, AFFINE),
    "link_heatmap": (KEYPOINTS, torch.rand(2), LINKS, 6, 7, 0.1),
    "link_heatmap_backward": (HEATMAP, KEYPOINTS, torch.rand(2), LINKS, WINNER, 0.1),
    "memory_attention": (TOKENS, PROTOTYPES, None),
    "memory_attention_backward": (TOKENS, DISTANCES, TOKENS, PROTOTYPES, TOKENS, INDICES, torch.rand(0), None, True),
    "prototype_sums": (TOKENS, INDICES, 5),
}
EACH = [
    pytest.param(op, i, id=f"{op}-{i}")
    for op, arguments in CALLS.items()
    for i, argument in enumerate(arguments)
    if isinstance(argument, torch.Tensor)
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


@pytest.mark.parametrize(("op", "i"), EACH)
def test_tensors_on_two_devices_are_refused(op, i, call):
    call(op, *CALLS[op])
    elsewhere = [a.to("meta") if j == i else a for j, a in enumerate(CALLS[op])]
    with pytest.raises(RuntimeError, match=rf"{re.sub('_backward$', '', op)}\w*: .* on (one|the) device"):
        call(op, *elsewhere)


@pytest.mark.parametrize("op", list(CALLS))
def test_other_dtypes_are_refused(op, call):
    integers = [a.int() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in CALLS[op]]
    with pytest.raises(RuntimeError, match="must be float16, bfloat16, float32 or float64"):
        call(op, *integers)
