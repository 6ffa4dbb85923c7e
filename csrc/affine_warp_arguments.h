// affine_warp: what the CPU and the CUDA host code require of their arguments. The Python wrapper checks first and says
// more; these keep a call that bypasses it from reading where nothing is.
#pragma once

#include "tensors.h"

namespace ppl_fast {

inline void check_affine_warp(const Tensor& keypoints, const Tensor& affine) {
  STD_TORCH_CHECK(affine.dim() == 4 && affine.size(2) == 2 && affine.size(3) == 3,
                  "affine_warp: affine must have shape (B, N, 2, 3)");
  const bool shared = keypoints.dim() == 2;
  STD_TORCH_CHECK((shared || (keypoints.dim() == 3 && keypoints.size(0) == affine.size(0))) &&
                      keypoints.size(shared ? 0 : 1) == affine.size(1) && keypoints.size(shared ? 1 : 2) == 2,
                  "affine_warp: keypoints must have shape (N, 2) or (B, N, 2)");
  STD_TORCH_CHECK(is_floating(keypoints), "affine_warp: keypoints must be float16, bfloat16, float32 or float64");
  STD_TORCH_CHECK(keypoints.scalar_type() == affine.scalar_type(), "affine_warp: affine must share keypoints' dtype");
  STD_TORCH_CHECK(on_one_device({&keypoints, &affine}), "affine_warp: keypoints and affine must be on one device");
}

inline void check_affine_warp_backward(const Tensor& grad_points, const Tensor& keypoints, const Tensor& affine) {
  check_affine_warp(keypoints, affine);
  STD_TORCH_CHECK(has_sizes(grad_points, {affine.size(0), affine.size(1), 2}),
                  "affine_warp_backward: grad_points must have shape (B, N, 2)");
  STD_TORCH_CHECK(on_one_device({&keypoints, &grad_points}),
                  "affine_warp_backward: grad_points must be on the device of keypoints");
}

}  // namespace ppl_fast
