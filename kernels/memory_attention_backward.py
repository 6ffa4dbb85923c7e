"""memory_attention in Triton, backward; nothing of size B x m x k reaches memory, and all sums have a fixed order.

Hard mode: a row of tokens gets its values' gradient and 2 g (t - p_nearest); the prototypes, where asked for, come from
prototype_sums_kernel with GRADIENT set. Soft mode: tokens takes 16 tokens of a bank and walks its prototypes,
prototypes takes 16 prototypes and walks the bank's tokens; both compute distances and g . p again, which is cheaper
than keeping them, and multiply the weights' gradients with what they walk (tf32x3).
H200 at B = 64, m = 34, k = 16, d = 512, hard: 14.5 MB moved = 3.4 us for the tokens, 5.6 MB = 1.3 us for prototypes.
Predicted: 4 us, bound by memory, and 4 us. Soft: 136 and 68 programs of 8 warps, one wave of four steps at 2 us each,
8 to 10 us for either. Measured are 4.0 and 33; soft 36 and 61.
"""

import torch
import triton
import triton.language as tl
from ppl_fast.kernels._launch import launch, precision
from ppl_fast.kernels.memory_attention import LOG2E, SOFT, launch_sums, pairwise, sharpness, value_chunk

HARD = {"BLOCK_T": 4, "CHUNK": 512, "num_warps": 4}


@triton.jit
def memory_attention_bwd_hard_kernel(
    grad_values, grad_distances, tokens, prototypes, indices, grad_tokens, num_rows, m, k, d,
    BLOCK_T: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """grad_t = g + 2 g_distance (t - p_nearest); a row is a token, (b, bank) in order."""
    chunks = tl.cdiv(d, CHUNK)
    row = (tl.program_id(0) // chunks).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    c = (tl.program_id(0) % chunks * CHUNK + tl.arange(0, CHUNK))[None, :]
    mask = (row < num_rows)[:, None] & (c < d)
    nearest = tl.load(indices + row, mask=row < num_rows, other=0)
    g = tl.load(grad_distances + row, mask=row < num_rows, other=0).to(tl.float32)
    at = row[:, None] * d + c
    p = tl.load(prototypes + (row % m * k + nearest)[:, None] * d + c, mask=mask, other=0).to(tl.float32)
    t = tl.load(tokens + at, mask=mask, other=0).to(tl.float32)
    total = tl.load(grad_values + at, mask=mask, other=0).to(tl.float32) + 2 * g[:, None] * (t - p)
    tl.store(grad_tokens + at, total.to(grad_tokens.dtype.element_ty), mask=mask)


@triton.jit
def centred_products(
    x, y, centre, x_mask, y_mask, d, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr
):
    """X . (y - centre) for all pairs of the rows at x and y, each x with its own centre: (BLOCK_T, BLOCK_K)."""
    total = tl.zeros([BLOCK_T, BLOCK_K, BLOCK_D], tl.float32)
    for start in tl.range(0, d, BLOCK_D, num_stages=1):
        c = start + tl.arange(0, BLOCK_D)[None, :]
        mask = x_mask[:, None] & (c < d)
        a = tl.load(x[:, None] + c, mask=mask, other=0).to(tl.float32)[:, None, :]
        n = tl.load(centre[:, None] + c, mask=mask, other=0).to(tl.float32)[:, None, :]
        b = tl.load(y[:, None] + c, mask=y_mask[:, None] & (c < d), other=0).to(tl.float32)[None, :, :]
        total += a * (b - n)
    return tl.sum(total, 2)


@triton.jit
def weights_and_products(
    tokens, grads, prototypes, nearest_rows, is_nearest, there, here, least, total, d, sharpness,
    BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """P and h = g . (p - p_nearest) of the rows at the pointers, both (BLOCK_T, BLOCK_K).

    Of the nearest both are known: rounding must not find another there than the forward did, nor any nearer one.
    """
    squared = pairwise(tokens, prototypes, here, there, d, BLOCK_T, BLOCK_K, BLOCK_D)
    h = centred_products(grads, prototypes, nearest_rows, here, there, d, BLOCK_T, BLOCK_K, BLOCK_D)
    gap = tl.where(is_nearest, 0.0, tl.minimum(least[:, None] - squared, 0.0))
    p = tl.exp2(gap * sharpness) / total[:, None]
    return tl.where(here[:, None] & there[None, :], p, 0.0), h


@triton.jit
def memory_attention_bwd_tokens_kernel(
    grad_values, grad_distances, tokens, prototypes, values, indices, smallest, totals, q, grad_tokens, num_tokens, m,
    k, d, sharpness,
    PRECISION: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """grad_t = 2 / temperature (sum_j P_j h_j p_j - q values) + 2 g_distance (t - p_nearest), q = sum_j P_j h_j."""
    chunks, blocks = tl.cdiv(d, CHUNK), tl.cdiv(num_tokens, BLOCK_T)
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    bank = (rest // blocks).to(tl.int64)
    row = rest % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    here = row < num_tokens
    token = row.to(tl.int64) * m + bank
    at = token * d
    prototypes += bank * k * d
    c = (chunk * CHUNK + tl.arange(0, CHUNK))[None, :]
    nearest = tl.load(indices + token, mask=here, other=0)
    nearest_rows = prototypes + nearest * d
    least, weight = tl.load(smallest + token, mask=here, other=0), tl.load(totals + token, mask=here, other=1)

    total = tl.zeros([BLOCK_T, CHUNK], tl.float32)
    mean = tl.zeros([BLOCK_T], tl.float32)
    for start in range(0, k, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        vectors = prototypes + j.to(tl.int64) * d
        p, h = weights_and_products(
            tokens + at, grad_values + at, vectors, nearest_rows, nearest[:, None] == j[None, :], j < k, here, least,
            weight, d, sharpness, BLOCK_T, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        share = p * h
        mean += tl.sum(share, 1)
        p = tl.load(vectors[:, None] + c, mask=(j < k)[:, None] & (c < d), other=0).to(tl.float32)
        total += tl.dot(share, p, input_precision=PRECISION)

    mask = here[:, None] & (c < d)
    g = tl.load(grad_distances + token, mask=here, other=0).to(tl.float32)
    p = tl.load(nearest_rows[:, None] + c, mask=mask, other=0).to(tl.float32)
    t = tl.load(tokens + at[:, None] + c, mask=mask, other=0).to(tl.float32)
    v = tl.load(values + at[:, None] + c, mask=mask, other=0).to(tl.float32)
    total = 2 * ((total - mean[:, None] * v) * (sharpness / LOG2E) + g[:, None] * (t - p))
    if chunk == 0:
        tl.store(q + token, mean, mask=here)
    tl.store(grad_tokens + at[:, None] + c, total.to(grad_tokens.dtype.element_ty), mask=mask)


@triton.jit
def memory_attention_bwd_prototypes_kernel(
    grad_values, grad_distances, tokens, prototypes, indices, smallest, totals, q, grad_prototypes, num_tokens, m, k, d,
    sharpness,
    PRECISION: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """grad_p_j = sum_b P_bj g_b + c_bj (t_b - p_j), with c_bj = 2 s_bj - 2 g_distance where j is b's nearest.

    s_bj = P_bj (h_bj - q_b) / temperature, where the tokens' kernel has left q.
    """
    chunks, blocks = tl.cdiv(d, CHUNK), tl.cdiv(k, BLOCK_K)
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    bank = (rest // blocks).to(tl.int64)
    j = rest % blocks * BLOCK_K + tl.arange(0, BLOCK_K)
    vectors = prototypes + (bank * k + j) * d
    c = (chunk * CHUNK + tl.arange(0, CHUNK))[None, :]

    total = tl.zeros([BLOCK_K, CHUNK], tl.float32)
    sum_c = tl.zeros([BLOCK_K], tl.float32)
    for start in range(0, num_tokens, BLOCK_T):
        row = start + tl.arange(0, BLOCK_T)
        here = row < num_tokens
        token = row.to(tl.int64) * m + bank
        at = token * d
        least, total_weight = tl.load(smallest + token, mask=here, other=0), tl.load(totals + token, mask=here, other=1)
        nearest = tl.load(indices + token, mask=here, other=0)
        is_nearest = nearest[:, None] == j[None, :]
        weights, h = weights_and_products(
            tokens + at, grad_values + at, vectors, prototypes + (bank * k + nearest) * d, is_nearest, j < k, here,
            least, total_weight, d, sharpness, BLOCK_T, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        mean = tl.load(q + token, mask=here, other=0)
        g = tl.load(grad_distances + token, mask=here, other=0).to(tl.float32)
        pull = 2 * (weights * (h - mean[:, None]) * (sharpness / LOG2E) - tl.where(is_nearest, g[:, None], 0.0))
        sum_c += tl.sum(pull, 0)
        mask = here[:, None] & (c < d)
        upstream = tl.load(grad_values + at[:, None] + c, mask=mask, other=0).to(tl.float32)
        total += tl.dot(tl.trans(weights), upstream, input_precision=PRECISION)
        t = tl.load(tokens + at[:, None] + c, mask=mask, other=0).to(tl.float32)
        total += tl.dot(tl.trans(pull), t, input_precision=PRECISION)
    mask = (j < k)[:, None] & (c < d)
    total -= sum_c[:, None] * tl.load(vectors[:, None] + c, mask=mask, other=0).to(tl.float32)
    to = grad_prototypes + (bank * k + j)[:, None] * d + c
    tl.store(to, total.to(grad_prototypes.dtype.element_ty), mask=mask)


def memory_attention_backward(
    grad_values, grad_distances, tokens, prototypes, values, indices, softmax, temperature, needs_prototypes
):
    """(grad_tokens, grad_prototypes); the second is empty unless asked for. See ops/memory_attention.py."""
    grad_values, grad_distances = grad_values.contiguous(), grad_distances.contiguous()
    tokens, prototypes, values = tokens.contiguous(), prototypes.contiguous(), values.contiguous()
    indices, softmax = indices.contiguous(), softmax.contiguous()
    (b, m, d), k = tokens.shape, prototypes.shape[1]
    grad_tokens = torch.empty_like(tokens)
    grad_prototypes = torch.empty_like(prototypes) if needs_prototypes else prototypes.new_empty(0)
    if temperature is None:
        programs = triton.cdiv(b * m, HARD["BLOCK_T"]) * triton.cdiv(d, HARD["CHUNK"])
        launch(
            memory_attention_bwd_hard_kernel, programs, grad_values, grad_distances, tokens, prototypes, indices,
            grad_tokens, b * m, m, k, d, **HARD,
        )  # fmt: skip
        if needs_prototypes:
            launch_sums(tokens, indices, prototypes, grad_distances, None, grad_prototypes)
        return grad_tokens, grad_prototypes

    options = {**SOFT, "CHUNK": value_chunk(d), "PRECISION": precision(tokens)}
    inputs, q = (grad_values, grad_distances, tokens, prototypes), tokens.new_empty((b, m), dtype=torch.float32)
    relative = (indices, *softmax.unbind(0), q)
    sizes = (b, m, k, d, sharpness(temperature))
    programs = m * triton.cdiv(d, options["CHUNK"]) * triton.cdiv(b, SOFT["BLOCK_T"])
    launch(memory_attention_bwd_tokens_kernel, programs, *inputs, values, *relative, grad_tokens, *sizes, **options)
    if needs_prototypes:
        options["CHUNK"] = min(options["CHUNK"], 256)  # with 512, two such operands do not fit the registers
        programs = m * triton.cdiv(d, options["CHUNK"]) * triton.cdiv(k, SOFT["BLOCK_K"])
        launch(memory_attention_bwd_prototypes_kernel, programs, *inputs, *relative, grad_prototypes, *sizes, **options)
    return grad_tokens, grad_prototypes
