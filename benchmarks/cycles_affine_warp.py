"""affine_warp for the cycle model: 72 bytes a point, no loop."""

from cycle_model import Workload

CYCLES = [
    Workload(
        "affine_warp backward, 64 x 16 points", "affine_warp_cuda", "affine_warp_bwd_own_kernelIf", 32, (), 1024 * 72
    )
]
