"""Which backend a GPU gets, by what was built and by the GPU that the tensor is on; none is needed here."""

import contextlib
import types

import pytest
import torch

from ppl_fast import _backend, _library

OP = "link_heatmap"  # any will do
DEFAULT = "80-real 86-real 89-real 90-real 100-real 100-virtual"


@pytest.fixture
def gpus(monkeypatch, choosing):
    """Let there be GPUs of the given capabilities and a _C_cuda that was built for the given architectures."""

    def pretend(built: str, *capabilities: tuple[int, int]):
        kernels = types.SimpleNamespace(build_info=lambda: {"architectures": built}, kernel_info=lambda: [])
        monkeypatch.setitem(_library._loaded, "_C_cuda", kernels)
        monkeypatch.delitem(_library._failures, "_C_cuda", raising=False)
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(_library, "has_kernel", lambda op, key: True)
        find = lambda device: capabilities[torch.device(device).index or 0]  # noqa: E731
        monkeypatch.setattr(torch.cuda, "get_device_capability", find)
        monkeypatch.setattr(torch.cuda, "device", lambda _: contextlib.nullcontext())
        return kernels

    return pretend


def chosen(device: str, backend: str = "auto") -> str:
    return _backend.select(OP, backend, torch.device(device)).name().removeprefix("ppl_fast::")


@pytest.mark.parametrize(
    ("built", "capability", "serves"),
    [
        (DEFAULT, (9, 0), True),
        (DEFAULT, (8, 7), True),  # binaries serve later minor numbers
        (DEFAULT, (7, 5), False),
        (DEFAULT, (12, 0), True),  # from PTX
        ("80-real 90-real", (10, 0), False),
        ("86-real", (8, 0), False),
        ("90a-real", (9, 0), True),
        ("90a-virtual", (10, 0), False),
        ("100f-real", (10, 3), True),
        ("100f-virtual", (12, 0), False),
    ],
)
def test_the_extension_serves_what_it_was_built_for(built, capability, serves, gpus):
    gpus(built, capability)
    assert (_backend.reason_against(OP, "cpp", "cuda") is None) == serves
    assert chosen("cuda") == (OP if serves else f"{OP}_triton")


def test_the_sentence_says_what_would_add_this_gpu(gpus):
    gpus("80-real 90-real", (7, 5))
    with pytest.raises(RuntimeError) as caught:
        chosen("cuda", "cpp")
    assert (
        f"{OP}: backend 'cpp' cannot run on 'cuda': ppl_fast._C_cuda was built for 80-real 90-real, not for this GPU's "
        "7.5; to build it, with nvcc and a C++ compiler at hand: TORCH_CUDA_ARCH_LIST=7.5 PPL_FAST_CUDA=on pip install "
    ) in str(caught.value)


def test_a_driver_that_is_too_old(gpus):
    def fail():
        raise RuntimeError("kernel_info: some_fwd_kernel<float>: CUDA driver version is insufficient")

    gpus(DEFAULT, (9, 0)).kernel_info = fail
    reason = _backend.reason_against(OP, "cpp", "cuda")
    assert reason == (
        "ppl_fast._C_cuda does not run on this GPU (kernel_info: some_fwd_kernel<float>: CUDA driver version is "
        "insufficient)"
    )
    assert chosen("cuda") == f"{OP}_triton"


def test_each_gpu_is_judged_by_itself(gpus):
    gpus("90-real", (9, 0), (7, 5), (6, 1))
    with pytest.warns(RuntimeWarning, match="the slow PyTorch reference is used"):
        assert [chosen(f"cuda:{i}") for i in range(3)] == [OP, f"{OP}_triton", f"{OP}_reference"]
    with pytest.raises(RuntimeError, match="needs a GPU of compute capability 7.0 or later, this one has 6.1"):
        chosen("cuda:2", "triton")
