// affine_warp on CUDA. Forward: a thread a point. Backward: a warp a keypoint where the template is shared: its lanes
// take every 32nd sample in order and then add up crosswise, so the order of sums is fixed; a thread a point where it
// is not. 56 bytes a point forward, 72 backward, a dozen operations: at B = 64, N = 16 some 60 KB, 20 ns on an H200
// (4.3 TB/s); the launch, about 2 us, is what it costs. Not taken: reducing over blocks, which would need a second
// launch; one launch for this, link_heatmap and the boundary term. It would save a dozen launches of a training step,
// 2 us each in a graph: 25 us beside some 20 ms for the perceptual loss alone (VGG16 to relu4_3 at 224 x 224 is 28
// GFLOP an image; two forward and one backward of 64 are 5.4 TFLOP at about 0.3 PFLOP/s), and the points would still
// have to be written, since the memory term reads them. Predicted: this has not run on a GPU.
#include "common.cuh"

#include "affine_warp.h"
#include "affine_warp_arguments.h"

namespace ppl_fast {
namespace {

constexpr int kThreads = 256;

template <class S>
__global__ void __launch_bounds__(kThreads)
    affine_warp_fwd_kernel(const S* __restrict__ keypoints, const S* __restrict__ affine, int64_t points,
                           int64_t period, S* out) {
  using T = Compute<S>;
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= points) return;
  T theta[6], point[2];
  for (int c = 0; c < 6; ++c) theta[c] = T(affine[6 * i + c]);
  const S* const from = keypoints + 2 * (i % period);
  warp_point(theta, T(from[0]), T(from[1]), point);
  out[2 * i] = S(point[0]), out[2 * i + 1] = S(point[1]);
}

// Writes one point's grad_affine and adds to its grad_keypoint.
template <class S, class T>
__device__ void point_backward(const S* grad, const S* keypoint, const S* affine, S* grad_affine, T* grad_keypoint) {
  T theta[6], grad_theta[6];
  for (int c = 0; c < 6; ++c) theta[c] = T(affine[c]);
  warp_point_backward(theta, T(keypoint[0]), T(keypoint[1]), T(grad[0]), T(grad[1]), grad_theta, grad_keypoint);
  for (int c = 0; c < 6; ++c) grad_affine[c] = S(grad_theta[c]);
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    affine_warp_bwd_own_kernel(const S* grad, const S* __restrict__ keypoints, const S* __restrict__ affine,
                               int64_t points, S* grad_keypoints, S* grad_affine) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= points) return;
  Compute<S> sum[2] = {};
  point_backward(grad + 2 * i, keypoints + 2 * i, affine + 6 * i, grad_affine + 6 * i, sum);
  grad_keypoints[2 * i] = S(sum[0]), grad_keypoints[2 * i + 1] = S(sum[1]);
}

template <class S>
__global__ void __launch_bounds__(kThreads)
    affine_warp_bwd_shared_kernel(const S* grad, const S* keypoints, const S* affine, int64_t samples, int64_t n,
                                  S* grad_keypoints, S* grad_affine) {
  const int64_t key = int64_t(blockIdx.x) * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (key >= n) return;  // a whole warp
  const int lane = threadIdx.x % kWarp;
  Compute<S> sum[2] = {};
  for (int64_t b = lane; b < samples; b += kWarp) {
    const int64_t i = b * n + key;
    point_backward(grad + 2 * i, keypoints + 2 * key, affine + 6 * i, grad_affine + 6 * i, sum);
  }
  for (int c = 0; c < 2; ++c) {
    sum[c] = lane_sum<kWarp>(sum[c]);
    if (lane == 0) grad_keypoints[2 * key + c] = S(sum[c]);
  }
}

Tensor affine_warp_cuda(const Tensor& keypoints, const Tensor& affine) {
  check_affine_warp(keypoints, affine);
  const OnDevice device(keypoints);
  const auto type = keypoints.scalar_type();
  const auto x = torch::stable::contiguous(keypoints), theta = torch::stable::contiguous(affine);
  const int64_t b = affine.size(0), n = affine.size(1), period = x.dim() == 2 ? n : b * n;
  const auto points = empty(x, {b, n, 2}, type);
  dispatch_storage(type, "affine_warp", [&](auto zero) {
    using S = decltype(zero);
    launch(affine_warp_fwd_kernel<S>, Grid{ceil_div(b * n, kThreads)}, kThreads, 0, device.stream(), read<S>(x),
           read<S>(theta), b * n, period, write<S>(points));
  });
  return points;
}

std::tuple<Tensor, Tensor> affine_warp_backward_cuda(const Tensor& grad_points, const Tensor& keypoints,
                                                     const Tensor& affine) {
  check_affine_warp_backward(grad_points, keypoints, affine);
  const OnDevice device(keypoints);
  const auto type = keypoints.scalar_type();
  const auto g = contiguous_as(grad_points, type), x = torch::stable::contiguous(keypoints),
             theta = torch::stable::contiguous(affine);
  const int64_t b = affine.size(0), n = affine.size(1);
  const auto grad_x = torch::stable::new_empty(x, x.sizes()),
             grad_theta = torch::stable::new_empty(theta, theta.sizes());
  dispatch_storage(type, "affine_warp_backward", [&](auto zero) {
    using S = decltype(zero);
    if (x.dim() == 2)
      launch(affine_warp_bwd_shared_kernel<S>, Grid{ceil_div(n, kThreads / kWarp)}, kThreads, 0, device.stream(),
             read<S>(g), read<S>(x), read<S>(theta), b, n, write<S>(grad_x), write<S>(grad_theta));
    else
      launch(affine_warp_bwd_own_kernel<S>, Grid{ceil_div(b * n, kThreads)}, kThreads, 0, device.stream(), read<S>(g),
             read<S>(x), read<S>(theta), b * n, write<S>(grad_x), write<S>(grad_theta));
  });
  return {grad_x, grad_theta};
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kThreads, 0, affine_warp_fwd_kernel<float>),
    PPL_FAST_KERNEL(kThreads, 0, affine_warp_bwd_own_kernel<float>),
    PPL_FAST_KERNEL(kThreads, 0, affine_warp_bwd_shared_kernel<float>),
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("affine_warp"), TORCH_BOX(&affine_warp_cuda));
  m.impl(PPL_FAST_CUDA_OP("affine_warp_backward"), TORCH_BOX(&affine_warp_backward_cuda));
}

}  // namespace ppl_fast
