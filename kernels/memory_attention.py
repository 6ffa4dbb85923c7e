"""memory_attention and prototype_sums in Triton, forward; the backward is in memory_attention_backward.py.

fwd: a program takes 8 (soft: 16) tokens of a bank and streams over its prototypes, 16 at a time, and over d. Squared
differences are summed in registers, for each token, prototype and lane, and across lanes once per 16 prototypes; then a
running minimum, or an online softmax. One launch does distances, choice and values. Not taken: |t|^2 - 2 t.p + |p|^2 on
tensor cores, which cancels where tokens lie near prototypes; the soft values alone are matrix products (tf32x3).
sums: a program per bank, 16 prototypes and 64 columns adds the tokens in their order, passing over those of others.
H200 at B = 64, m = 34, k = 16, d = 512: 10 MB moved = 2.3 us, 53 MFLOP = 0.8 us. Predicted: 272 programs x 4 warps x
2,200 instructions = 2.4 M, 3 us at three quarters of the 1.05 T/s that can issue, and 1 us until the first data; sums
2.9 M, 4 us (5.6 MB = 1.3 us). Measured are 9.4 (soft 16.5) and 33: programs wait for one load after the other.
"""

import torch
import triton
import triton.language as tl
from ppl_fast.kernels._launch import launch, precision

from ppl_fast.ops.memory_attention import usable_temperature

HARD = {"BLOCK_T": 8, "BLOCK_K": 16, "BLOCK_D": 64, "CHUNK": 64, "num_warps": 4}
SOFT = {"BLOCK_T": 16, "BLOCK_K": 16, "BLOCK_D": 32, "num_warps": 8}
SUMS = {"BLOCK_T": 16, "BLOCK_K": 16, "CHUNK": 64, "num_warps": 4}
LOG2E = tl.constexpr(1.4426950408889634)
LARGEST = tl.constexpr(3.4028234663852886e38)  # number in float32


@triton.jit
def pairwise(x, y, x_mask, y_mask, d, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr):
    """|x - y|^2 for all pairs of the rows of length d at the pointers x and y: (BLOCK_T, BLOCK_K)."""
    total = tl.zeros([BLOCK_T, BLOCK_K, BLOCK_D], tl.float32)
    for start in tl.range(0, d, BLOCK_D, num_stages=3):
        c = start + tl.arange(0, BLOCK_D)[None, :]
        a = tl.load(x[:, None] + c, mask=x_mask[:, None] & (c < d), other=0).to(tl.float32)[:, None, :]
        b = tl.load(y[:, None] + c, mask=y_mask[:, None] & (c < d), other=0).to(tl.float32)[None, :, :]
        total += (a - b) * (a - b)
    return tl.sum(total, 2)


@triton.jit
def memory_attention_fwd_kernel(
    tokens, prototypes, values, indices, distances, smallest, totals, num_tokens, m, k, d, sharpness,
    SOFT: tl.constexpr, PRECISION: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(num_tokens, BLOCK_T)
    chunks = tl.maximum(tl.cdiv(d, CHUNK), 1) if SOFT else 1
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    bank = (rest // blocks).to(tl.int64)
    row = rest % blocks * BLOCK_T + tl.arange(0, BLOCK_T)
    here = row < num_tokens
    token = row.to(tl.int64) * m + bank
    prototypes += bank * k * d
    c = chunk * CHUNK + tl.arange(0, CHUNK)[None, :]

    least = tl.full([BLOCK_T], float("inf"), tl.float32)
    nearest = tl.zeros([BLOCK_T], tl.int32)
    missing = tl.zeros([BLOCK_T], tl.int32)  # whether a distance is not a number
    weight = tl.zeros([BLOCK_T], tl.float32)
    mixed = tl.zeros([BLOCK_T, CHUNK if SOFT else 1], tl.float32)
    for start in range(0, k, BLOCK_K):
        j = start + tl.arange(0, BLOCK_K)
        at = prototypes + j.to(tl.int64) * d
        squared = pairwise(tokens + token * d, at, here, j < k, d, BLOCK_T, BLOCK_K, BLOCK_D)
        squared = tl.where((j < k)[None, :], squared, float("inf"))
        missing |= tl.max((squared != squared).to(tl.int32), 1)
        block_least, block_nearest = tl.min(squared, 1, return_indices=True)
        nearest = tl.where(block_least < least, start + block_nearest, nearest)  # strictly: the lowest index on ties
        before, least = least, tl.minimum(least, block_least)
        if SOFT:  # differences first: see csrc/memory_attention.h; of a finite number, so that infinity weighs nothing
            p = tl.exp2((tl.minimum(least, LARGEST)[:, None] - squared) * sharpness)
            shrink = tl.exp2((tl.minimum(least, LARGEST) - tl.minimum(before, LARGEST)) * sharpness)
            weight = weight * shrink + tl.sum(p, 1)
            vectors = tl.load(at[:, None] + c, mask=(j < k)[:, None] & (c < d), other=0).to(tl.float32)
            mixed = mixed * shrink[:, None] + tl.dot(p, vectors, input_precision=PRECISION)

    nearest = tl.where(missing > 0, 0, nearest)
    least = tl.where(missing > 0, float("nan"), least)
    if chunk == 0:
        tl.store(indices + token, nearest.to(tl.int64), mask=here)
        tl.store(distances + token, least.to(distances.dtype.element_ty), mask=here)
        if SOFT:
            tl.store(smallest + token, least, mask=here)
            tl.store(totals + token, weight, mask=here)
    at = values + token[:, None] * d
    if SOFT:
        mixed = mixed / weight[:, None]
        tl.store(at + c, mixed.to(values.dtype.element_ty), mask=here[:, None] & (c < d))
    else:
        chosen = prototypes + nearest.to(tl.int64)[:, None] * d
        for start in range(0, d, CHUNK):
            c = start + tl.arange(0, CHUNK)[None, :]
            mask = here[:, None] & (c < d)
            tl.store(at + c, tl.load(chosen + c, mask=mask), mask=mask)


@triton.jit
def prototype_sums_kernel(
    tokens, indices, prototypes, grad_distances, counts, sums, num_tokens, m, k, d,
    GRADIENT: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_K: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Add, to each prototype, the tokens that chose it; with GRADIENT, their distances' gradients 2 g (p - t)."""
    chunks, blocks = tl.maximum(tl.cdiv(d, CHUNK), 1), tl.cdiv(k, BLOCK_K)
    chunk, rest = tl.program_id(0) % chunks, tl.program_id(0) // chunks
    bank = (rest // blocks).to(tl.int64)
    j = rest % blocks * BLOCK_K + tl.arange(0, BLOCK_K)
    c = chunk * CHUNK + tl.arange(0, CHUNK)
    total = tl.zeros([BLOCK_K, CHUNK], tl.float32)
    count = tl.zeros([BLOCK_K], tl.float32)
    for start in range(0, num_tokens, BLOCK_T):
        row = start + tl.arange(0, BLOCK_T)
        token = row.to(tl.int64) * m + bank
        chosen = tl.load(indices + token, mask=row < num_tokens, other=-1)
        mine = j[:, None] == chosen[None, :]
        chose = tl.sum(mine.to(tl.float32), 1)
        if tl.max(chose, 0) > 0:  # most blocks of many prototypes were chosen by none of these tokens
            mask = (row < num_tokens)[:, None] & (c < d)[None, :]
            t = tl.load(tokens + token[:, None] * d + c[None, :], mask=mask, other=0).to(tl.float32)
            if GRADIENT:
                mask &= (chosen >= 0)[:, None] & (chosen < k)[:, None]
                p = tl.load(prototypes + (bank * k + chosen)[:, None] * d + c[None, :], mask=mask, other=0)
                g = tl.load(grad_distances + token, mask=row < num_tokens, other=0).to(tl.float32)
                t = 2 * g[:, None] * (p.to(tl.float32) - t)
            # Selected, not multiplied by 0: a token that is not a number must stay with the prototype that it chose.
            total += tl.sum(tl.where(mine[:, :, None], t[None, :, :], 0.0), 1)
            count += chose
    mask = (j < k)[:, None] & (c < d)[None, :]
    tl.store(sums + (bank * k + j)[:, None] * d + c[None, :], total.to(sums.dtype.element_ty), mask=mask)
    if not GRADIENT and chunk == 0:
        tl.store(counts + bank * k + j, count, mask=j < k)


def launch_sums(tokens, indices, prototypes, grad_distances, counts, sums) -> None:
    """Launch prototype_sums_kernel; `prototypes` and `grad_distances` are None for sums, `counts` for gradients."""
    (b, m, d), k = tokens.shape, sums.shape[1]
    programs = m * triton.cdiv(k, SUMS["BLOCK_K"]) * max(triton.cdiv(d, SUMS["CHUNK"]), 1)
    launch(
        prototype_sums_kernel, programs, tokens, indices, prototypes, grad_distances, counts, sums, b, m, k, d,
        GRADIENT=counts is None, **SUMS,
    )  # fmt: skip


def sharpness(temperature: float | None) -> float:
    """log2(e) / temperature: weights are 2^(-sharpness distance)."""
    return 0.0 if temperature is None else LOG2E.value / usable_temperature(temperature, torch.float32)


def value_chunk(d: int) -> int:
    """How many columns of the soft values one program sums: with more, distances are computed again."""
    return min(max(triton.next_power_of_2(d), 16), 512)


def memory_attention(tokens, prototypes, temperature):
    """Values (B, m, d), indices (B, m), distances (B, m), softmax; see ops/memory_attention.py."""
    tokens, prototypes = tokens.contiguous(), prototypes.contiguous()
    (b, m, d), k = tokens.shape, prototypes.shape[1]
    soft = temperature is not None
    values, distances = torch.empty_like(tokens), tokens.new_empty((b, m))
    indices = tokens.new_empty((b, m), dtype=torch.int64)
    softmax = tokens.new_empty((2, b, m) if soft else 0, dtype=torch.float32)
    relative = softmax.unbind(0) if soft else (softmax, softmax)
    options = {**SOFT, "CHUNK": value_chunk(d)} if soft else HARD
    programs = m * triton.cdiv(b, options["BLOCK_T"]) * (max(triton.cdiv(d, options["CHUNK"]), 1) if soft else 1)
    launch(
        memory_attention_fwd_kernel, programs, tokens, prototypes, values, indices, distances, *relative, b, m, k, d,
        sharpness(temperature), SOFT=soft, PRECISION=precision(tokens), **options,
    )  # fmt: skip
    return values, indices, distances, softmax


def prototype_sums(tokens, indices, k):
    """Counts (m, k) and sums (m, k, d); see ops/memory_attention.py."""
    tokens, indices = tokens.contiguous(), indices.contiguous()
    m, d = tokens.shape[1:]
    counts = tokens.new_empty((m, k), dtype=torch.float32)
    sums = tokens.new_empty((m, k, d), dtype=torch.float32)
    launch_sums(tokens, indices, None, None, counts, sums)
    return counts, sums
