"""Bad arguments of the operators: one sentence that names the argument, what was expected and what came."""

import re

import numpy as np
import pytest
import torch

import ppl_fast

K, W, A = torch.zeros(2, 4, 2), torch.zeros(6), torch.zeros(2, 4, 2, 3)
T, P, IDX = torch.zeros(2, 3, 5), torch.zeros(3, 7, 5), torch.zeros(2, 3, dtype=torch.long)
META = torch.zeros(6, device="meta")


def heat(keypoints=K, weights=W, size=8, thickness=1e-3, links=None, **kwargs):
    return ppl_fast.link_heatmap(keypoints, weights, size, thickness, links, **kwargs)


BAD = [
    (lambda: heat([1]), TypeError, "link_heatmap: keypoints must be a tensor, got list"),
    (lambda: heat(K.int()), TypeError, "link_heatmap: keypoints must have a dtype of float16, bfloat16, float32, "
     "float64, got int32"),
    (lambda: heat(K[0]), ValueError, "link_heatmap: keypoints must have shape (B, N, 2), got (4, 2)"),
    (lambda: heat(weights=W[:5]), ValueError, "link_heatmap: weights must have shape (6,) or (2, 6), got (5,)"),
    (lambda: heat(weights=META), ValueError, "link_heatmap: weights must be on cpu like the other tensors, got meta"),
    (lambda: heat(size=0), ValueError, "link_heatmap: size must be at least 1 in each direction, got 0"),
    (lambda: heat(size=(8, 8, 8)), TypeError, "link_heatmap: size must be an int or a pair (height, width) of ints, "
     "got (8, 8, 8)"),
    (lambda: heat(size=8.5), TypeError, "link_heatmap: size must be an int or a pair"),
    (lambda: heat(thickness=0), ValueError, "link_heatmap: thickness must be finite and above 0, got 0"),
    (lambda: heat(thickness=float("nan")), ValueError, "link_heatmap: thickness must be finite and above 0, got nan"),
    (lambda: heat(thickness="x"), TypeError, "link_heatmap: thickness must be a number, got str"),
    (lambda: heat(links=torch.zeros(6, 3, dtype=torch.long)), ValueError, "link_heatmap: links must have shape (E, 2), "
     "got (6, 3)"),
    (lambda: heat(links=torch.zeros(6, 2)), TypeError, "link_heatmap: links must have a dtype of int64, int32"),
    (lambda: heat(links=torch.full((6, 2), 4)), ValueError, "link_heatmap: links must hold keypoint indices from 0 to "
     "3, got 4 to 4"),
    (lambda: heat(links=torch.full((6, 2), -1)), ValueError, "got -1 to -1"),
    (lambda: heat(backend="cuda"), ValueError, "link_heatmap: backend must be one of auto, cpp, triton, reference, got "
     "'cuda'"),
    (lambda: ppl_fast.memory_attention(T[0], P), ValueError, "memory_attention: tokens must have shape (B, m, d), got "
     "(3, 5)"),
    (lambda: ppl_fast.memory_attention(T, P[:2]), ValueError, "memory_attention: prototypes must have shape (3, k, 5), "
     "got (2, 7, 5)"),
    (lambda: ppl_fast.memory_attention(T, P[:, :0]), ValueError, "memory_attention: prototypes must hold k >= 1"),
    (lambda: ppl_fast.memory_attention(T, P, 0.0), ValueError, "memory_attention: temperature must be finite and above "
     "0, got 0.0"),
    (lambda: ppl_fast.memory_attention(T, P, True), TypeError, "temperature must be a number, got bool"),
    (lambda: ppl_fast.prototype_sums(T, IDX.int(), 7), TypeError, "prototype_sums: indices must have a dtype of int64"),
    (lambda: ppl_fast.prototype_sums(T, IDX[:1], 7), ValueError, "prototype_sums: indices must have shape (2, 3), got "
     "(1, 3)"),
    (lambda: ppl_fast.prototype_sums(T, IDX, 0), ValueError, "prototype_sums: k must be an int of at least 1, got 0"),
    (lambda: ppl_fast.affine_warp(K, A[0]), ValueError, "affine_warp: affine must have shape (B, N, 2, 3), got "
     "(4, 2, 3)"),
    (lambda: ppl_fast.affine_warp(K[:, :3], A), ValueError, "affine_warp: keypoints must have shape (4, 2) or "
     "(2, 4, 2), got (2, 3, 2)"),
    (lambda: ppl_fast.bilinear_upsample2x(T), ValueError, "bilinear_upsample2x: maps must have shape (B, C, H, W), got "
     "(2, 3, 5)"),
    (lambda: ppl_fast.bilinear_upsample2x(A[:, :, :0]), ValueError, "bilinear_upsample2x: maps must have C, H and W >= "
     "1, got (2, 4, 0, 3)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[m[:60] for _, _, m in BAD])
def test_message(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_indices_out_of_range_never_reach_memory():
    """The kernels check what the wrapper, for the GPU's sake, does not read."""
    with pytest.raises(RuntimeError, match=re.escape("prototype_sums: indices must lie in [0, k)")):
        ppl_fast.prototype_sums(T, IDX + 7, 7, backend="cpp")
    with pytest.raises(RuntimeError, match="links must hold indices below N"):
        torch.ops.ppl_fast.link_heatmap(K, W, torch.full((6, 2), 9), 8, 8, 1e-3)


def test_a_backend_that_cannot_run_says_why_and_what_works():
    with pytest.raises(RuntimeError, match=r"affine_warp: backend 'cpp' cannot run on 'meta': there are no C\+\+ kern"):
        ppl_fast.affine_warp(K.to("meta"), A.to("meta"), backend="cpp")
    with pytest.raises(RuntimeError, match="backend='auto' or 'reference' work"):
        ppl_fast.affine_warp(K.to("meta"), A.to("meta"), backend="cpp")


def test_two_dtypes_are_promoted():
    assert heat(K.double(), W.float()).dtype == torch.float64
    assert heat(K.half(), W.float()).dtype == torch.float32
    assert ppl_fast.affine_warp(K[0].float(), A.double()).dtype == torch.float64


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint8, np.array, int])
def test_sizes_of_numpy(kind):
    keypoints, expected = torch.rand(2, 4, 2), (2, 1, 8, 9)
    for size in ((kind(8), kind(9)), [kind(8), kind(9)], np.array([8, 9], np.int32)):
        assert heat(keypoints, torch.rand(6), size).shape == expected
    assert heat(keypoints, torch.rand(6), kind(8)).shape == (2, 1, 8, 8)
    assert ppl_fast.prototype_sums(T, IDX, kind(7))[0].shape == (3, 7)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, np.array])
def test_numbers_of_numpy(kind):
    keypoints, weights, tokens = torch.rand(2, 4, 2), torch.rand(6), torch.rand(2, 3, 5)
    assert torch.equal(heat(keypoints, weights, 8, kind(0.25)), heat(keypoints, weights, 8, 0.25))
    soft = [ppl_fast.memory_attention(tokens, torch.ones(3, 7, 5), t)[0] for t in (kind(0.5), 0.5)]
    assert torch.equal(*soft)


@pytest.mark.parametrize("size", [np.float32(8), np.array([8.0, 8.0]), np.array([8, 8, 8]), np.array("8")])
def test_other_sizes_of_numpy_are_refused(size):
    with pytest.raises(TypeError, match=r"size must be an int or a pair \(height, width\) of ints"):
        heat(size=size)
