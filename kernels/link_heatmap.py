"""link_heatmap in Triton, forward; the backward is in link_heatmap_backward.py. The maths: csrc/link_heatmap.h.

table: a program per sample turns its links into rows of eight floats. fwd: a warp per 8 x 16 pixels sees 32 links at a
time, one a lane, from the tile's centre: once for the best, once for those that may win a pixel. Their flags become a
word, and the warp walks its bits in order, its pixels in registers: no list in memory, any number of links. Not taken:
lists by prefix sum and two levels of tiles, which cost more than they save; two warps where a multiprocessor holds 16
programs (sm_86): 16 warps already hide a link's loads behind its 53 instructions, and a tile for two has 34 links left.
H200 at B = 64, N = 16, 128 x 128, thickness 1e-3: 6.3 MB written = 1.5 us. Predicted: 8,192 tiles x (4 words x 64 + 24
links x 53 + 240) = 14.7 M warp instructions, 20 us at three quarters of the 1.05 T/s that can issue, and 2.5 us for the
table; measured are 27 and 2.2.
"""

import math

import torch
import triton
import triton.language as tl
from ppl_fast.kernels._launch import launch

from ppl_fast.ops.link_heatmap import largest_coordinate, poisoned_samples

TILES = ((8, 8, 1), (8, 16, 1), (16, 16, 1), (16, 16, 2))  # what there is to tune: rows and columns of pixels, warps
TILE = (8, 16, 1)
EPSILON = tl.constexpr(1.1920929e-7)
LOG2_TINY = tl.constexpr(-126.0)  # log2 of the smallest normal number
LARGEST = tl.constexpr(3.4028234663852886e38)
FIELDS = tl.constexpr(8)
DARK = tl.constexpr(1)  # no weight is positive: S = 0 and the tie goes to link 0
POISONED = tl.constexpr(2)


@triton.jit
def indices_of(links, e, mask, num_keypoints):
    """Load the keypoints that the links `e` join, 0 where `mask` is not set, and whether there are such keypoints."""
    i = tl.load(links + 2 * e, mask=mask, other=0)
    j = tl.load(links + 2 * e + 1, mask=mask, other=0)
    return i, j, (i >= 0) & (i < num_keypoints) & (j >= 0) & (j < num_keypoints)


@triton.jit
def ends_of(keypoints, links, e, mask, num_keypoints):
    """Load both ends of the links `e` of a sample; 0 where `mask` is not set or a link holds a wrong index."""
    i, j, right = indices_of(links, e, mask, num_keypoints)
    mask = mask & right
    ax = tl.load(keypoints + 2 * i, mask=mask, other=0).to(tl.float32)
    ay = tl.load(keypoints + 2 * i + 1, mask=mask, other=0).to(tl.float32)
    bx = tl.load(keypoints + 2 * j, mask=mask, other=0).to(tl.float32)
    by = tl.load(keypoints + 2 * j + 1, mask=mask, other=0).to(tl.float32)
    return ax, ay, bx, by


@triton.jit
def scan_sample(keypoints, weights, links, num_keypoints, num_links, limit, BLOCK: tl.constexpr):
    """Whether a sample is poisoned, whether a weight is positive, and its largest coordinate, up to `limit`."""
    lane = tl.arange(0, BLOCK)
    wrong = tl.zeros([BLOCK], tl.int32)
    positive = tl.zeros([BLOCK], tl.int32)
    largest = tl.zeros([BLOCK], tl.float32)
    for start in range(0, 2 * num_keypoints, BLOCK):
        x = tl.load(keypoints + start + lane, mask=start + lane < 2 * num_keypoints, other=0).to(tl.float32)
        wrong |= (~(tl.abs(x) <= limit)).to(tl.int32)
        largest = tl.maximum(largest, tl.abs(x))
    for start in range(0, num_links, BLOCK):
        mask = start + lane < num_links
        _i, _j, right = indices_of(links, start + lane, mask, num_keypoints)
        w = tl.load(weights + start + lane, mask=mask, other=0).to(tl.float32)
        wrong |= (~(right & (tl.abs(w) <= LARGEST))).to(tl.int32)
        positive |= (w > 0).to(tl.int32)
    return tl.max(wrong, 0), tl.max(positive, 0), tl.max(largest, 0)


@triton.jit
def make_link(px, py, qx, qy, scale):
    """The scaled a = p, (dx, dy) = b - a and (ux, uy) = (b - a) / |b - a|^2, which is 0 for a link of zero length.

    The difference of the ends comes first, and it is divided by the square: see make_link in csrc/link_heatmap.h.
    """
    dx, dy = (qx - px) * scale, (qy - py) * scale
    length2 = dx * dx + dy * dy
    divisor = tl.where(length2 > 0, length2, float("inf"))
    return px * scale, py * scale, dx, dy, dx / divisor, dy / divisor


@triton.jit
def residual(x, y, dx, dy, ux, uy):
    """Parameter t and residual r of pixels at (x, y) from end a."""
    t = tl.minimum(tl.maximum(x * ux + y * uy, 0.0), 1.0)
    return t, x - t * dx, y - t * dy


@triton.jit
def log_value(lw, rx, ry):
    return lw - rx * rx - ry * ry


@triton.jit
def centre_of(pixel, last, step):
    """The scaled coordinate of a pixel's centre; `last` is the last pixel (1 where there is one alone)."""
    return (2 * pixel - last).to(tl.float32) * step


@triton.jit
def link_heatmap_table_kernel(
    keypoints, weights, links, table, num_keypoints, num_links, weight_stride, scale, limit, BLOCK: tl.constexpr
):
    """Rows (ax, ay, dx, dy, ux, uy, log2 w, 0) of a sample's links and a last row (state, slack, ...)."""
    b = tl.program_id(0).to(tl.int64)
    keypoints += b * num_keypoints * 2
    weights += b * weight_stride
    table += b * (num_links + 1) * FIELDS
    poisoned, positive, largest = scan_sample(keypoints, weights, links, num_keypoints, num_links, limit, BLOCK)
    for start in range(0, num_links, BLOCK):
        e = start + tl.arange(0, BLOCK)
        mask = e < num_links
        px, py, qx, qy = ends_of(keypoints, links, e, mask, num_keypoints)
        ax, ay, dx, dy, ux, uy = make_link(px, py, qx, qy, scale)
        w = tl.load(weights + e, mask=mask, other=0).to(tl.float32)
        lw = tl.where(w > 0, tl.log2(w), float("-inf"))
        row = table + e * FIELDS
        tl.store(row, ax, mask=mask)
        tl.store(row + 1, ay, mask=mask)
        tl.store(row + 2, dx, mask=mask)
        tl.store(row + 3, dy, mask=mask)
        tl.store(row + 4, ux, mask=mask)
        tl.store(row + 5, uy, mask=mask)
        tl.store(row + 6, lw, mask=mask)
    state = tl.where(poisoned > 0, POISONED, tl.where(positive > 0, 0, DARK))
    last_row = table + num_links * FIELDS
    tl.store(last_row, state.to(tl.float32))
    tl.store(last_row + 1, tl.maximum(largest, 1.0) * scale * (4 * EPSILON))


@triton.jit
def split_fours(x, SHAPE: tl.constexpr):
    """Split (..., 4), given as SHAPE = (..., 2, 2), into its columns."""
    even, odd = tl.split(tl.reshape(x, SHAPE))
    x0, x2 = tl.split(even)
    x1, x3 = tl.split(odd)
    return x0, x1, x2, x3


@triton.jit
def load_link(table, e):
    """Load the row of one link, as two loads of 16 bytes."""
    quad = tl.arange(0, 4)
    ax, ay, dx, dy = split_fours(tl.load(table + e * FIELDS + quad), (2, 2))
    ux, uy, lw, _ = split_fours(tl.load(table + e * FIELDS + 4 + quad), (2, 2))
    return ax, ay, dx, dy, ux, uy, lw


@triton.jit
def see_links(table, start, num_links, x, y):
    """The log2 values and r at (x, y) of the 32 links from `start`, one a lane; -inf past the last."""
    e = start + tl.arange(0, 32)
    mask = (e < num_links)[:, None]
    at = table + (e * FIELDS)[:, None] + tl.arange(0, 4)[None, :]
    ax, ay, dx, dy = split_fours(tl.load(at, mask=mask, other=0), (32, 2, 2))
    ux, uy, lw, _ = split_fours(tl.load(at + 4, mask=mask, other=float("-inf")), (32, 2, 2))
    _, rx, ry = residual(x - ax, y - ay, dx, dy, ux, uy)
    return tl.where(e < num_links, log_value(lw, rx, ry), float("-inf")), rx, ry


@triton.jit
def best_at_centre(table, num_links, x, y, hx, hy):
    """The index of the best link at the tile's centre, and the highest value that any reaches on the tile.

    |r|^2 is convex in the pixel, so it lies above its tangent at the centre.
    """
    best = tl.full([32], float("-inf"), tl.float32)
    bound = tl.full([32], float("-inf"), tl.float32)
    where = tl.zeros([32], tl.int32)
    for start in range(0, num_links, 32):
        v, rx, ry = see_links(table, start, num_links, x, y)
        where = tl.where(v > best, start + tl.arange(0, 32), where)
        best = tl.maximum(best, v)
        bound = tl.maximum(bound, v + 2 * (hx * tl.abs(rx) + hy * tl.abs(ry)))
    return tl.min(tl.where(best == tl.max(best, 0), where, num_links), 0), tl.max(bound, 0)


@triton.jit
def make_rival(table, e, x, y, hx, hy):
    """The residual r of the link `e` at the tile's centre, and what another must reach there to win a pixel of it.

    |r_e|^2 lies above its tangent, |r_f|^2 below |p - (f's nearest point to the centre)|^2, so v_e - v_f grows by at
    most 2 |r_e - r_f| . h + |h|^2. What rounding can take is allowed for as in csrc/link_heatmap.h.
    """
    ax, ay, dx, dy, ux, uy, lw = load_link(table, e)
    _, fx, fy = residual(x - ax, y - ay, dx, dy, ux, uy)
    v = log_value(lw, fx, fy)
    return fx, fy, v - (hx * hx + hy * hy) - (2 * tl.abs(v) + v + 1) * (16 * EPSILON)


@triton.jit
def may_win(v, rx, ry, fx, fy, hx, hy, threshold):
    return 2 * (hx * tl.abs(rx - fx) + hy * tl.abs(ry - fy)) + v * (1 - 16 * EPSILON) >= threshold


@triton.jit
def lowest_bit(word):
    """The lowest set bit of a uint32 and its position, from the exponent of the power of two as a float."""
    bit = word & (0 - word)
    return bit, (bit.to(tl.float32).to(tl.int32, bitcast=True) >> 23) - 127


@triton.jit
def link_heatmap_fwd_kernel(
    table, heatmap, winner, num_links, height, width, step_x, step_y, TILE_H: tl.constexpr, TILE_W: tl.constexpr
):
    tiles_x = tl.cdiv(width, TILE_W)
    tiles = tiles_x * tl.cdiv(height, TILE_H)
    b, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    x0, y0 = tile % tiles_x * TILE_W, tile // tiles_x * TILE_H
    table += b.to(tl.int64) * (num_links + 1) * FIELDS
    state, slack, _, _ = split_fours(tl.load(table + num_links * FIELDS + tl.arange(0, 4)), (2, 2))

    last_x, last_y = tl.maximum(width - 1, 1), tl.maximum(height - 1, 1)
    left, right = centre_of(x0, last_x, step_x), centre_of(tl.minimum(x0 + TILE_W, width) - 1, last_x, step_x)
    top, bottom = centre_of(y0, last_y, step_y), centre_of(tl.minimum(y0 + TILE_H, height) - 1, last_y, step_y)
    cx, cy, hx, hy = (left + right) / 2, (top + bottom) / 2, (right - left) / 2 + slack, (bottom - top) / 2 + slack
    drawn = tl.where(state == 0, num_links, 0)
    rival, bound = best_at_centre(table, drawn, cx, cy, hx, hy)
    drawn = tl.where(bound >= LOG2_TINY, drawn, 0)
    fx, fy, threshold = make_rival(table, tl.minimum(rival, num_links - 1), cx, cy, hx, hy)

    columns, rows = x0 + tl.arange(0, TILE_W), y0 + tl.arange(0, TILE_H)
    xs, ys = centre_of(columns, last_x, step_x), centre_of(rows, last_y, step_y)
    best = tl.full([TILE_H, TILE_W], float("-inf"), tl.float32)
    who = tl.full([TILE_H, TILE_W], -1, tl.int32)
    for start in range(0, drawn, 32):
        v, rx, ry = see_links(table, start, drawn, cx, cy)
        kept = may_win(v, rx, ry, fx, fy, hx, hy, threshold)
        word = tl.sum(tl.where(kept, tl.full([32], 1, tl.uint32) << tl.arange(0, 32).to(tl.uint32), 0), 0)
        while word != 0:
            bit, lane = lowest_bit(word)
            ax, ay, dx, dy, ux, uy, lw = load_link(table, start + lane)
            _t, px, py = residual((xs - ax)[None, :], (ys - ay)[:, None], dx, dy, ux, uy)
            value = log_value(lw, px, py)
            who = tl.where(value > best, start + lane, who)  # strictly: the lowest index keeps a tie
            best = tl.maximum(value, best)
            word ^= bit
    vanished = best < LOG2_TINY
    value = tl.where(vanished, 0.0, tl.exp2(best))
    value = tl.where(state == POISONED, float("nan"), value)
    who = tl.where(vanished, tl.where(state == DARK, 0, -1), who)
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    at = b.to(tl.int64) * height * width + (rows[:, None] * width + columns[None, :])
    tl.store(heatmap + at, value.to(heatmap.dtype.element_ty), mask=inside)
    tl.store(winner + at, who.to(winner.dtype.element_ty), mask=inside)


def scaling(height: int, width: int, thickness: float) -> tuple[float, float, float]:
    """The scale of the coordinates and half the distance of neighbouring pixels in x and y, scaled."""
    scale = math.sqrt(math.log2(math.e) / thickness)
    return scale, scale / max(width - 1, 1), scale / max(height - 1, 1)


def link_heatmap(keypoints, weights, links, height, width, thickness):
    """Heatmap (B, 1, H, W) and winner (B, H, W); see ops/link_heatmap.py."""
    b, n = keypoints.shape[:2]
    e = links.shape[0]
    heatmap = keypoints.new_empty((b, 1, height, width))
    winner = keypoints.new_empty((b, height, width), dtype=torch.int16 if e <= 32767 else torch.int32)
    if e == 0:
        bad = poisoned_samples(keypoints.float(), weights.expand(b, 0), thickness)
        return heatmap.zero_().masked_fill_(bad[:, None, None, None], math.nan), winner.fill_(-1)
    keypoints, weights, links = keypoints.contiguous(), weights.contiguous(), links.contiguous()
    table = keypoints.new_empty((b, e + 1, FIELDS.value), dtype=torch.float32)
    scale, step_x, step_y = scaling(height, width, thickness)
    stride = e if weights.dim() == 2 else 0
    limit = largest_coordinate(torch.float32, thickness)
    launch(
        link_heatmap_table_kernel, b, keypoints, weights, links, table, n, e, stride, scale, limit, BLOCK=128,
        num_warps=4,
    )  # fmt: skip
    tile_h, tile_w, warps = TILE
    programs = b * triton.cdiv(height, tile_h) * triton.cdiv(width, tile_w)
    launch(
        link_heatmap_fwd_kernel, programs, table, heatmap, winner, e, height, width, step_x, step_y,
        TILE_H=tile_h, TILE_W=tile_w, num_warps=warps,
    )  # fmt: skip
    return heatmap, winner
