"""link_heatmap for the cycle model: B = 64, N = 16, 128 x 128, thickness 1e-3."""

from cycle_model import Workload

# The keypoints and the links, once each; 120 links, four a lane, twice; the 24 that are left, six a lane, twice, the
# second time within a piece of 32; and the 7.8 that four lanes walk.
TRIPS = (1, 1, 4, 4, 6, 1, 6, 7.8)
CYCLES = [
    Workload(
        "link_heatmap forward, 64 x 16 keypoints", "link_heatmap_cuda", "link_heatmap_fwd_kernelIf", 8192, TRIPS, 6.3e6
    )
]
