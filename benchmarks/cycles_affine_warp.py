"""affine_warp for the cycle model, 64 x 16 points: no loop, or one turn of it."""

from cycle_model import Workload

CYCLES = [
    Workload("affine_warp backward", "affine_warp_cuda", "affine_warp_bwd_own_kernelIf", 32, (), 1024 * 72),
    Workload("affine_warp backward, shared keypoints", "affine_warp_cuda", "bwd_shared_kernelIf", 64, (1,), 1024 * 56),
    Workload("affine_warp forward", "affine_warp_cuda", "affine_warp_fwd_kernelIf", 32, (), 1024 * 32),
]
