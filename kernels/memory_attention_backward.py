"""memory_attention in Triton, backward; nothing of size B x m x k reaches memory, and all sums have a fixed order.

Hard mode: a row of tokens gets its values' gradient and 2 g (t - p_nearest); the prototypes, where asked for, come from
prototype_sums_kernel with GRADIENT set. Soft mode: tokens takes 16 tokens of a bank and walks its prototypes,
prototypes takes 16 prototypes and walks the bank's tokens; both compute distances and g . p again, which is cheaper
than keeping them, and multiply the weights' gradients with what they walk (tf32x3).
H200 at B = 64, m = 34, k = 16, d = 512, hard: 14.5 MB moved = 3.4 us for the tokens, 5.6 MB = 1.3 us for prototypes.
Predicted: 4 us, bound by memory, and 4 us. Soft: 136 and 68 programs of 8 warps, one wave of four steps at 2 us each,
8 to 10 us for either. Not measured: no GPU was at hand.
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
def row_products(x, y, mask, d, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """Products x . y of the rows of length d at the pointers x and y: (BLOCK_T,)."""
    total = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    for start in range(0, d, BLOCK_D):
        c = start + tl.arange(0, BLOCK_D)[None, :]
        a = tl.load(x[:, None] + c, mask=mask[:, None] & (c < d), other=0).to(tl.float32)
        total += a * tl.load(y[:, None] + c, mask=mask[:, None] & (c < d), other=0).to(tl.float32)
    return tl.sum(total, 1)


@triton.jit
def weight_gradients(
    tokens, grads, prototypes, there, here, logsumexp, g_dot_values, d, sharpness,
    BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """P and s = P (g . p - g . values) / temperature of the rows at the pointers, both (BLOCK_T, BLOCK_K)."""
    squared = pairwise(tokens, prototypes, here, there, d, False, BLOCK_T, BLOCK_K, BLOCK_D)
    products = pairwise(grads, prototypes, here, there, d, True, BLOCK_T, BLOCK_K, BLOCK_D)
    p = tl.exp2(-sharpness * squared - (logsumexp * LOG2E)[:, None])
    p = tl.where(here[:, None] & there[None, :], p, 0.0)
    return p, p * (products - g_dot_values[:, None]) * (sharpness / LOG2E)


@triton.jit
def memory_attention_bwd_tokens_kernel(
    grad_values, grad_distances, tokens, prototypes, values, indices, logsumexp, grad_tokens, num_tokens, m, k, d,
    sharpness,
    PRECISION: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """grad_t = 2 sum_j s_j p_j + 2 g_distance (t - p_nearest)."""
    chunks, blocks = tl.cdiv(d, CHUNK), tl.cdiv(num_tokens, BLOCK_T)
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    bank = (rest // blocks).to(tl.int64)
    row = rest % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    here = row < num_tokens
    token = row.to(tl.int64) * m + bank
    at = token * d
    prototypes += bank * k * d
    c = (chunk * CHUNK + tl.arange(0, CHUNK))[None, :]
    g_dot_values = row_products(grad_values + at, values + at, here, d, BLOCK_T, BLOCK_D)
    lse = tl.load(logsumexp + token, mask=here, other=0)

    total = tl.zeros([BLOCK_T, CHUNK], tl.float32)
    for start in range(0, k, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        vectors = prototypes + j.to(tl.int64) * d
        _, s = weight_gradients(
            tokens + at, grad_values + at, vectors, j < k, here, lse, g_dot_values, d, sharpness,
            BLOCK_T, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        p = tl.load(vectors[:, None] + c, mask=(j < k)[:, None] & (c < d), other=0).to(tl.float32)
        total += tl.dot(s, p, input_precision=PRECISION)

    mask = here[:, None] & (c < d)
    nearest = tl.load(indices + token, mask=here, other=0)
    g = tl.load(grad_distances + token, mask=here, other=0).to(tl.float32)
    p = tl.load(prototypes + nearest[:, None] * d + c, mask=mask, other=0).to(tl.float32)
    t = tl.load(tokens + at[:, None] + c, mask=mask, other=0).to(tl.float32)
    total = 2 * (total + g[:, None] * (t - p))
    tl.store(grad_tokens + at[:, None] + c, total.to(grad_tokens.dtype.element_ty), mask=mask)


@triton.jit
def memory_attention_bwd_prototypes_kernel(
    grad_values, grad_distances, tokens, prototypes, values, indices, logsumexp, grad_prototypes, num_tokens, m, k, d,
    sharpness,
    PRECISION: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """grad_p_j = sum_b P_bj g_b + c_bj (t_b - p_j), with c_bj = 2 s_bj - 2 g_distance where j is b's nearest."""
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
        g_dot_values = row_products(grad_values + at, values + at, here, d, BLOCK_T, BLOCK_D)
        lse = tl.load(logsumexp + token, mask=here, other=0)
        weights, s = weight_gradients(
            tokens + at, grad_values + at, vectors, j < k, here, lse, g_dot_values, d, sharpness,
            BLOCK_T, BLOCK_K, BLOCK_D,
        )  # fmt: skip
        nearest = tl.load(indices + token, mask=here, other=-1)
        g = tl.load(grad_distances + token, mask=here, other=0).to(tl.float32)
        pull = 2 * (s - tl.where(nearest[:, None] == j[None, :], g[:, None], 0.0))
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
    grad_values, grad_distances, tokens, prototypes, values, indices, logsumexp, temperature, needs_prototypes
):
    """(grad_tokens, grad_prototypes); the second is empty unless asked for. See ops/memory_attention.py."""
    grad_values, grad_distances = grad_values.contiguous(), grad_distances.contiguous()
    tokens, prototypes, values = tokens.contiguous(), prototypes.contiguous(), values.contiguous()
    indices, logsumexp = indices.contiguous(), logsumexp.contiguous()
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
    inputs = (grad_values, grad_distances, tokens, prototypes, values, indices, logsumexp)
    sizes = (b, m, k, d, sharpness(temperature))
    programs = m * triton.cdiv(d, options["CHUNK"]) * triton.cdiv(b, SOFT["BLOCK_T"])
    launch(memory_attention_bwd_tokens_kernel, programs, *inputs, grad_tokens, *sizes, **options)
    if needs_prototypes:
        options["CHUNK"] = min(options["CHUNK"], 256)  # with 512, two such operands do not fit the registers
        programs = m * triton.cdiv(d, options["CHUNK"]) * triton.cdiv(k, SOFT["BLOCK_K"])
        launch(memory_attention_bwd_prototypes_kernel, programs, *inputs, grad_prototypes, *sizes, **options)
    return grad_tokens, grad_prototypes
