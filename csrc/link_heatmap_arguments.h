// link_heatmap: what the CPU and the CUDA host code require of their arguments (see affine_warp_arguments.h).
#pragma once

#include "tensors.h"

namespace ppl_fast {

constexpr int64_t kMostLinksInInt16 = 32767;

inline ScalarType winner_type(int64_t links) {
  return links <= kMostLinksInInt16 ? ScalarType::Short : ScalarType::Int;
}

inline void check_link_heatmap(const Tensor& keypoints, const Tensor& weights, const Tensor& links, double thickness) {
  STD_TORCH_CHECK(keypoints.dim() == 3 && keypoints.size(2) == 2, "link_heatmap: keypoints must have shape (B, N, 2)");
  STD_TORCH_CHECK(links.scalar_type() == ScalarType::Long && links.dim() == 2 && links.size(1) == 2,
                  "link_heatmap: links must be int64 of shape (E, 2)");
  STD_TORCH_CHECK(is_floating(keypoints), "link_heatmap: keypoints must be float16, bfloat16, float32 or float64");
  STD_TORCH_CHECK(weights.scalar_type() == keypoints.scalar_type(),
                  "link_heatmap: weights must share keypoints' dtype");
  STD_TORCH_CHECK(has_sizes(weights, {links.size(0)}) || has_sizes(weights, {keypoints.size(0), links.size(0)}),
                  "link_heatmap: weights must have shape (E,) or (B, E)");
  STD_TORCH_CHECK(thickness > 0, "link_heatmap: thickness must be above 0");
  STD_TORCH_CHECK(on_one_device({&keypoints, &weights, &links}),
                  "link_heatmap: keypoints, weights and links must be on one device");
}

inline void check_link_heatmap_backward(const Tensor& grad_heatmap, const Tensor& keypoints, const Tensor& weights,
                                        const Tensor& links, const Tensor& winner, double thickness) {
  check_link_heatmap(keypoints, weights, links, thickness);
  STD_TORCH_CHECK(
      winner.dim() == 3 && winner.size(0) == keypoints.size(0) && winner.scalar_type() == winner_type(links.size(0)),
      "link_heatmap_backward: winner must have shape (B, H, W), int16 up to 32,767 links, else int32");
  STD_TORCH_CHECK(has_sizes(grad_heatmap, {winner.size(0), 1, winner.size(1), winner.size(2)}),
                  "link_heatmap_backward: grad_heatmap must have shape (B, 1, H, W)");
  STD_TORCH_CHECK(on_one_device({&keypoints, &grad_heatmap, &winner}),
                  "link_heatmap_backward: grad_heatmap and winner must be on the device of keypoints");
}

}  // namespace ppl_fast
