"""link_heatmap in Triton, backward: three launches, no atomics, the same bits from run to run.

bwd: a warp per 16 x 16 pixels evaluates each pixel's winner and then, winner by winner in the order of their indices,
adds up what its pixels contribute: five sums per tile and link, written where a byte says so. links: a program per
sample and 32 links adds these over the tiles. keypoints: a program per sample and 16 keypoints adds what links pull.
Not taken: atomics on floats, whose order varies; a one-hot matrix product, 120 x 256 for the 7 winners of a tile.
H200 at B = 64, N = 16, 128 x 128: 6.3 MB read = 1.5 us. Predicted: 4,096 tiles x (870 + 6.7 winners x 175) = 8.4 M
warp instructions, 11 us at three quarters of the 1.05 T/s that can issue; 3 us for each of the others; measured are
18, 5.3 and 2.8, and torch's sum where samples share weights comes on top.
"""

import math

import torch
import triton
import triton.language as tl
from ppl_fast.kernels._launch import launch
from ppl_fast.kernels.link_heatmap import (
    centre_of,
    ends_of,
    log_value,
    make_link,
    residual,
    scaling,
    scan_sample,
)

from ppl_fast.ops.link_heatmap import largest_coordinate, poisoned_samples

FIELDS = tl.constexpr(5)


@triton.jit
def link_heatmap_bwd_kernel(
    grad_heatmap, keypoints, links, winner, present, sums, num_keypoints, num_links, height, width, scale, step_x,
    step_y,
    BLOCK: tl.constexpr, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    """Sums of a tile's pixels by the link that won them: g, (1 - t) g r and t g r, with r in scaled coordinates."""
    tiles_x = tl.cdiv(width, TILE_W)
    tiles = tiles_x * tl.cdiv(height, TILE_H)
    b, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    columns = tile % tiles_x * TILE_W + tl.arange(0, TILE_W)
    rows = tile // tiles_x * TILE_H + tl.arange(0, TILE_H)
    at = b.to(tl.int64) * height * width + (rows[:, None] * width + columns[None, :])
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    who = tl.load(winner + at, mask=inside, other=-1).to(tl.int32)
    grad = tl.load(grad_heatmap + at, mask=inside, other=0).to(tl.float32)
    first = tl.program_id(0).to(tl.int64) * num_links
    for start in range(0, num_links, BLOCK):
        e = start + tl.arange(0, BLOCK)
        tl.store(present + first + e, tl.zeros([BLOCK], tl.uint8), mask=e < num_links)

    won = who >= 0
    px, py, qx, qy = ends_of(keypoints + b.to(tl.int64) * num_keypoints * 2, links, who, won, num_keypoints)
    ax, ay, dx, dy, ux, uy = make_link(px, py, qx, qy, scale)
    xs = centre_of(columns, tl.maximum(width - 1, 1), step_x)
    ys = centre_of(rows, tl.maximum(height - 1, 1), step_y)
    t, rx, ry = residual(xs[None, :] - ax, ys[:, None] - ay, dx, dy, ux, uy)
    # Selected, not multiplied by 0: a gradient that is not a number must stay with the link that won its pixel.
    g = tl.where(won, grad * tl.exp2(log_value(0.0, rx, ry)), 0.0)
    to_b = t * g
    to_a = g - to_b

    tl.debug_barrier()  # the zeros above are written before the ones below
    left = tl.where(won, who, num_links)
    e = tl.min(left)
    while e < num_links:
        mine = left == e
        to = sums + (first + e) * FIELDS
        tl.store(present + first + e, tl.full([], 1, tl.uint8))
        tl.store(to, tl.sum(tl.where(mine, g, 0.0)))
        tl.store(to + 1, tl.sum(tl.where(mine, to_a * rx, 0.0)))
        tl.store(to + 2, tl.sum(tl.where(mine, to_a * ry, 0.0)))
        tl.store(to + 3, tl.sum(tl.where(mine, to_b * rx, 0.0)))
        tl.store(to + 4, tl.sum(tl.where(mine, to_b * ry, 0.0)))
        left = tl.where(mine, num_links, left)
        e = tl.min(left)


@triton.jit
def add_tiles(sums, at, here, field):
    return tl.load(sums + at * FIELDS + field, mask=here, other=0)


@triton.jit
def link_heatmap_bwd_links_kernel(
    keypoints, weights, links, present, sums, grad_weights, pulls, num_keypoints, num_links, weight_stride, tiles,
    factor, limit,
    BLOCK: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    """From the tiles' sums to a link's gradient (B, E) and the pull on its ends (B, E, 4): ax, ay, bx, by."""
    blocks = tl.cdiv(num_links, BLOCK_E)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    e = tl.program_id(0) % blocks * BLOCK_E + tl.arange(0, BLOCK_E)
    mask = e < num_links
    g = tl.zeros([BLOCK_T, BLOCK_E], tl.float32)
    ax, ay, bx, by = g, g, g, g
    for start in range(0, tiles, BLOCK_T):
        tile = start + tl.arange(0, BLOCK_T)
        at = (b * tiles + tile)[:, None] * num_links + e[None, :]
        here = tl.load(present + at, mask=(tile < tiles)[:, None] & mask[None, :], other=0) != 0
        g += add_tiles(sums, at, here, 0)
        ax += add_tiles(sums, at, here, 1)
        ay += add_tiles(sums, at, here, 2)
        bx += add_tiles(sums, at, here, 3)
        by += add_tiles(sums, at, here, 4)
    weights += b * weight_stride
    keypoints += b * num_keypoints * 2
    poisoned, _, _ = scan_sample(keypoints, weights, links, num_keypoints, num_links, limit, BLOCK)
    w = tl.load(weights + e, mask=mask, other=0).to(tl.float32)
    grad_w = tl.where(poisoned > 0, float("nan"), tl.where(w >= 0, tl.sum(g, 0), 0.0))
    tl.store(grad_weights + b * num_links + e, grad_w, mask=mask)
    to = pulls + (b * num_links + e) * 4
    pull = factor * w
    tl.store(to, tl.where(w > 0, pull * tl.sum(ax, 0), 0.0), mask=mask)
    tl.store(to + 1, tl.where(w > 0, pull * tl.sum(ay, 0), 0.0), mask=mask)
    tl.store(to + 2, tl.where(w > 0, pull * tl.sum(bx, 0), 0.0), mask=mask)
    tl.store(to + 3, tl.where(w > 0, pull * tl.sum(by, 0), 0.0), mask=mask)


@triton.jit
def link_heatmap_bwd_keypoints_kernel(
    keypoints, weights, links, pulls, grad_keypoints, num_keypoints, num_links, weight_stride, limit,
    BLOCK: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Add what the links pull on each keypoint, in the order of the links."""
    blocks = tl.cdiv(num_keypoints, BLOCK_N)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    n = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    gx = tl.zeros([BLOCK_E, BLOCK_N], tl.float32)
    gy = tl.zeros([BLOCK_E, BLOCK_N], tl.float32)
    for start in range(0, num_links, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        mask = e < num_links
        at = pulls + (b * num_links + e) * 4
        for end in tl.static_range(2):
            mine = tl.load(links + 2 * e + end, mask=mask, other=-1)[:, None] == n[None, :]
            gx += tl.where(mine, tl.load(at + 2 * end, mask=mask, other=0)[:, None], 0.0)
            gy += tl.where(mine, tl.load(at + 2 * end + 1, mask=mask, other=0)[:, None], 0.0)
    keypoints += b * num_keypoints * 2
    weights += b * weight_stride
    poisoned, _, _ = scan_sample(keypoints, weights, links, num_keypoints, num_links, limit, BLOCK)
    to = grad_keypoints + (b * num_keypoints + n) * 2
    dtype = grad_keypoints.dtype.element_ty
    tl.store(to, tl.where(poisoned > 0, float("nan"), tl.sum(gx, 0)).to(dtype), mask=n < num_keypoints)
    tl.store(to + 1, tl.where(poisoned > 0, float("nan"), tl.sum(gy, 0)).to(dtype), mask=n < num_keypoints)


def tile_for(num_links: int) -> tuple[int, int]:
    """The side of a tile and its warps.

    The more links, the larger: the sums take 21 bytes for each link and tile, which up to 4,096 links stays below six
    heatmaps in float32.
    """
    return (16, 1) if num_links <= 256 else (32, 8) if num_links <= 1024 else (64, 16)


def link_heatmap_backward(grad_heatmap, keypoints, weights, links, winner, thickness):
    """(grad_keypoints, grad_weights); see ops/link_heatmap.py."""
    (b, n), e = keypoints.shape[:2], links.shape[0]
    height, width = winner.shape[1:]
    if b == 0 or e == 0:
        bad = poisoned_samples(keypoints.float(), weights.expand(b, e), thickness)
        return torch.zeros_like(keypoints).masked_fill_(bad[:, None, None], math.nan), torch.zeros_like(weights)
    grad_heatmap, winner = grad_heatmap.contiguous(), winner.contiguous()
    keypoints, weights, links = keypoints.contiguous(), weights.contiguous(), links.contiguous()
    side, warps = tile_for(e)
    tiles = triton.cdiv(height, side) * triton.cdiv(width, side)
    present = keypoints.new_empty((b, tiles, e), dtype=torch.uint8)
    sums = keypoints.new_empty((b, tiles, e, FIELDS.value), dtype=torch.float32)
    scale, step_x, step_y = scaling(height, width, thickness)
    launch(
        link_heatmap_bwd_kernel, b * tiles, grad_heatmap, keypoints, links, winner, present, sums, n, e, height, width,
        scale, step_x, step_y, BLOCK=128, TILE_H=side, TILE_W=side, num_warps=warps,
    )  # fmt: skip
    stride, limit = e if weights.dim() == 2 else 0, largest_coordinate(torch.float32, thickness)
    grad_weights = keypoints.new_empty((b, e), dtype=torch.float32)
    pulls = keypoints.new_empty((b, e, 4), dtype=torch.float32)
    launch(
        link_heatmap_bwd_links_kernel, b * triton.cdiv(e, 32), keypoints, weights, links, present, sums, grad_weights,
        pulls, n, e, stride, tiles, 2 / (thickness * scale), limit, BLOCK=128, BLOCK_T=32, BLOCK_E=32, num_warps=4,
    )  # fmt: skip
    grad_keypoints = torch.empty_like(keypoints)
    launch(
        link_heatmap_bwd_keypoints_kernel, b * triton.cdiv(n, 16), keypoints, weights, links, pulls, grad_keypoints, n,
        e, stride, limit, BLOCK=128, BLOCK_E=64, BLOCK_N=16, num_warps=4,
    )  # fmt: skip
    if weights.dim() == 1:
        grad_weights = grad_weights.sum(0)
    return grad_keypoints, grad_weights.to(weights.dtype)
