"""link_heatmap for the cycle model: B = 64, N = 16, 128 x 128, thickness 1e-3."""

from cycle_model import Workload

# The keypoints, once; two regions, and in each the 120 links, four a lane, twice; the 24 that are left, six a lane,
# twice, the second time within a piece of 32; and the 7.8 that four lanes walk, each group its own.
FORWARD = (1, 2, 4, 4, 6, 1, 6, 7.8)
# Sums of 120 links and 4 warps become 0; keypoints; links; two tiles a warp, each with 4.6 links that won (as many as a
# GPU has counted); the sums of the block's warps.
SUMS = (3, 4, 1, 1, 2, 4.6, 1)
# A warp a keypoint looks at 120 links, lists the 15 that end there, and has two lanes add the 16 regions of each. The
# other three loops are those of the blocks that add the shared weights.
REDUCE = (0, 1, 1, 8, 1, 1, 0, 0, 0)
CYCLES = [
    Workload(
        "link_heatmap forward", "link_heatmap_cuda", "link_heatmap_fwd_kernelIf", 4096, FORWARD, 6.3e6,
        {4: 4, 6: 4, 7: 8},
    ),
    Workload(
        "link_heatmap backward, sums", "link_heatmap_backward_cuda", "bwd_sums_kernelIf", 4096, SUMS, 8.8e6,
        {4: 8, 5: 5},
    ),
    Workload(
        "link_heatmap backward, reduction", "link_heatmap_backward_cuda", "bwd_reduce_kernelIf", 1024, REDUCE, 2.5e6
    ),
]  # fmt: skip
