// affine_warp on the CPU. 14 values a point in and out, so one plain loop; a shared template's gradient is summed over
// the batch in order, keypoint by keypoint.
#include "affine_warp.h"
#include "affine_warp_arguments.h"
#include "operators.h"
#include "tensors.h"

namespace ppl_fast {
namespace {

constexpr int64_t kGrain = 4096;  // points a thread; below, starting one costs more than it saves

Tensor affine_warp_cpu(const Tensor& keypoints, const Tensor& affine) {
  check_affine_warp(keypoints, affine);
  const auto type = compute_type(keypoints);
  const auto x = contiguous_as(keypoints, type), theta = contiguous_as(affine, type);
  const int64_t b = affine.size(0), n = affine.size(1);
  const auto points = empty(x, {b, n, 2}, type);
  dispatch(type, "affine_warp", [&](auto zero) {
    using T = decltype(zero);
    const auto *from = read<T>(x), *maps = read<T>(theta);
    auto* const to = write<T>(points);
    const int64_t period = x.dim() == 2 ? n : b * n;
    torch::stable::parallel_for(0, b * n, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto* const p = from + 2 * (i % period);
        warp_point(maps + 6 * i, p[0], p[1], to + 2 * i);
      }
    });
  });
  return cast(points, keypoints.scalar_type());
}

std::tuple<Tensor, Tensor> affine_warp_backward_cpu(const Tensor& grad_points, const Tensor& keypoints,
                                                    const Tensor& affine) {
  check_affine_warp_backward(grad_points, keypoints, affine);
  const auto type = compute_type(keypoints);
  const auto g = contiguous_as(grad_points, type), x = contiguous_as(keypoints, type),
             theta = contiguous_as(affine, type);
  const int64_t b = affine.size(0), n = affine.size(1);
  const auto grad_x = torch::stable::new_zeros(x, x.sizes()),
             grad_theta = torch::stable::new_empty(theta, theta.sizes());
  dispatch(type, "affine_warp_backward", [&](auto zero) {
    using T = decltype(zero);
    const auto *from = read<T>(x), *maps = read<T>(theta), *up = read<T>(g);
    auto *const to_x = write<T>(grad_x), *const to_theta = write<T>(grad_theta);
    const bool shared = x.dim() == 2;
    torch::stable::parallel_for(0, n, kGrain / (b + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t sample = 0; sample < b; ++sample)
        for (int64_t i = begin; i < end; ++i) {
          const int64_t at = sample * n + i, key = 2 * (shared ? i : at);
          warp_point_backward(maps + 6 * at, from[key], from[key + 1], up[2 * at], up[2 * at + 1], to_theta + 6 * at,
                              to_x + key);
        }
    });
  });
  return {cast(grad_x, keypoints.scalar_type()), cast(grad_theta, affine.scalar_type())};
}

const Schemas kSchemas = {
    "affine_warp(Tensor keypoints, Tensor affine) -> Tensor",
    "affine_warp_backward(Tensor grad_points, Tensor keypoints, Tensor affine) -> (Tensor, Tensor)",
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, CPU, m) {
  m.impl("affine_warp", TORCH_BOX(&affine_warp_cpu));
  m.impl("affine_warp_backward", TORCH_BOX(&affine_warp_backward_cpu));
}

}  // namespace ppl_fast
