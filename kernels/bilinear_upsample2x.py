"""bilinear_upsample2x in Triton, forward and backward: one launch each, a program a block of numbers of a row of cells.

A lane takes a number of a cell: forward, it loads the 3 x 3 around it and writes its 2 x 2 outputs; backward, it loads
the 4 x 4 outputs that it went into. Channels last, lanes are neighbouring channels, so that all is read and written in
whole lines; what lanes and programs read in common comes from L1 and L2. Contiguous maps are pictures of one channel,
whose outputs are then written at every second place. Not taken: walking down the rows, as csrc/ does, which would read
each row once and a half, not three times, from L2. 20 bytes a float32 cell: 310 us for (64, 256, 64, 64) on an H200,
which takes 336 forward and 423 backward.
"""

import torch
import triton
import triton.language as tl
from ppl_fast.kernels._launch import launch

from ppl_fast.ops.bilinear_upsample2x import empty_maps, layout_of

OPTIONS = {"BLOCK": 1024, "num_warps": 8}


@triton.jit
def place(height, width, channels, BLOCK: tl.constexpr):
    """Row of a picture, picture, column and channel of a program's lanes, and which of them there are."""
    blocks = tl.cdiv(width * channels, BLOCK)
    line = tl.program_id(0) // blocks
    at = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    i, picture = (line % height).to(tl.int64), (line // height).to(tl.int64)
    return i, picture, at // channels, at % channels, at < width * channels


@triton.jit
def blend(row, before, here, after, far, near, mask):
    """The even and the odd output between three cells of a row."""
    x = tl.load(row + here, mask=mask, other=0).to(tl.float32)
    even = far * tl.load(row + before, mask=mask, other=0).to(tl.float32) + near * x
    return even, 0.75 * x + 0.25 * tl.load(row + after, mask=mask, other=0).to(tl.float32)


@triton.jit
def bilinear_upsample2x_fwd_kernel(maps, doubled, height, width, channels, BLOCK: tl.constexpr):
    """Outputs 2i and 2i + 1 of cell i along both axes, between its neighbours; see ops/bilinear_upsample2x.py."""
    i, picture, j, c, mask = place(height, width, channels, BLOCK)
    line = width * channels
    after_i, after_j = tl.minimum(i + 1, height - 1), tl.minimum(j + 1, width - 1)
    before_i, before_j = tl.where(i > 0, i - 1, after_i), tl.where(j > 0, j - 1, after_j)
    far, near = tl.where(j > 0, 0.25, 0.0), tl.where(j > 0, 0.75, 1.0)
    picture_at = maps + picture * height * line
    before, here, after = before_j * channels + c, j * channels + c, after_j * channels + c
    above_even, above_odd = blend(picture_at + before_i * line, before, here, after, far, near, mask)
    even, odd = blend(picture_at + i * line, before, here, after, far, near, mask)
    below_even, below_odd = blend(picture_at + after_i * line, before, here, after, far, near, mask)
    far, near = tl.where(i > 0, 0.25, 0.0), tl.where(i > 0, 0.75, 1.0)
    dtype = doubled.dtype.element_ty
    to = doubled + (picture * height + i) * 4 * line + 2 * j * channels + c
    tl.store(to, (far * above_even + near * even).to(dtype), mask=mask)
    tl.store(to + channels, (far * above_odd + near * odd).to(dtype), mask=mask)
    tl.store(to + 2 * line, (0.75 * even + 0.25 * below_even).to(dtype), mask=mask)
    tl.store(to + 2 * line + channels, (0.75 * odd + 0.25 * below_odd).to(dtype), mask=mask)


@triton.jit
def gather(row, first, even, odd, last, w0, w1, w2, w3, mask):
    """The weighted sum of four outputs of a row."""
    total = w0 * tl.load(row + first, mask=mask, other=0).to(tl.float32)
    total += w1 * tl.load(row + even, mask=mask, other=0).to(tl.float32)
    total += w2 * tl.load(row + odd, mask=mask, other=0).to(tl.float32)
    return total + w3 * tl.load(row + last, mask=mask, other=0).to(tl.float32)


@triton.jit
def taps(i, n):
    """The first and last of the four outputs that cell i of n gathers, and their weights."""
    w0, w1 = tl.where(i > 0, 0.25, 0.0), tl.where(i > 0, 0.75, 1.0)
    w2, w3 = tl.where(i + 1 < n, 0.75, 1.0), tl.where(i + 1 < n, 0.25, 0.0)
    return tl.maximum(2 * i - 1, 0), tl.minimum(2 * i + 2, 2 * n - 1), w0, w1, w2, w3


@triton.jit
def bilinear_upsample2x_bwd_kernel(grad_doubled, grad_maps, height, width, channels, BLOCK: tl.constexpr):
    """The sum over the 4 x 4 outputs that a cell went into; see ops/bilinear_upsample2x.py."""
    i, picture, j, c, mask = place(height, width, channels, BLOCK)
    line = 2 * width * channels
    first, last, w0, w1, w2, w3 = taps(j, width)
    first, last = first * channels + c, last * channels + c
    even, odd = 2 * j * channels + c, (2 * j + 1) * channels + c
    picture_at = grad_doubled + picture * 2 * height * line
    top, bottom, v0, v1, v2, v3 = taps(i, height)
    total = v0 * gather(picture_at + top * line, first, even, odd, last, w0, w1, w2, w3, mask)
    total += v1 * gather(picture_at + 2 * i * line, first, even, odd, last, w0, w1, w2, w3, mask)
    total += v2 * gather(picture_at + (2 * i + 1) * line, first, even, odd, last, w0, w1, w2, w3, mask)
    total += v3 * gather(picture_at + bottom * line, first, even, odd, last, w0, w1, w2, w3, mask)
    to = grad_maps + (picture * height + i) * width * channels + j * channels + c
    tl.store(to, total.to(grad_maps.dtype.element_ty), mask=mask)


def run(kernel, maps, made, height, width):
    """Launch a kernel for cells (height, width) that writes `made`, which lies as `maps` do, and return it."""
    layout = layout_of(maps)
    maps, (pictures, channels) = maps.contiguous(memory_format=layout), maps.shape[:2]
    if layout is torch.contiguous_format:
        pictures, channels = pictures * channels, 1
    programs = pictures * height * triton.cdiv(width * channels, OPTIONS["BLOCK"])
    launch(kernel, programs, maps, made, height, width, channels, **OPTIONS)
    return made


def bilinear_upsample2x(maps):
    """Doubled (B, C, 2H, 2W); see ops/bilinear_upsample2x.py."""
    height, width = maps.shape[2:]
    doubled = empty_maps(maps, 2 * height, 2 * width)
    return run(bilinear_upsample2x_fwd_kernel, maps, doubled, height, width)


def bilinear_upsample2x_backward(grad_doubled):
    """grad_maps; see ops/bilinear_upsample2x.py."""
    height, width = (size // 2 for size in grad_doubled.shape[2:])
    grad_maps = empty_maps(grad_doubled, height, width)
    return run(bilinear_upsample2x_bwd_kernel, grad_doubled, grad_maps, height, width)
