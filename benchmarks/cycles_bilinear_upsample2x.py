"""bilinear_upsample2x for the cycle model: (64, 256, 64, 64), channels last; a warp walks down eight rows."""

from cycle_model import Workload

WARPS = 64 * 8 * 64 * 64 // 32  # pictures, strips, columns, shares of a cell
BYTES = 64 * 64 * 64 * 256 * 20
SOURCE = "bilinear_upsample2x_cuda"
CYCLES = [
    Workload("bilinear_upsample2x forward", SOURCE, "upsample2x_fwd_kernelIfLi4ELb0E", WARPS, (8,), BYTES),
    Workload("bilinear_upsample2x backward", SOURCE, "upsample2x_bwd_kernelIfLi4ELb0E", WARPS, (8,), BYTES),
]
