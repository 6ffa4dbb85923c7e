// affine_warp on CUDA. Forward: a thread a point. Backward: a thread a point where each has its own keypoint. Where the
// template is shared, a block a keypoint, eight lanes a sample: one has a number of its matrix or of its gradient,
// which the others get by shuffles. Samples lie far apart, and a multiprocessor looks up one line of 128 bytes a cycle:
// 13 for four samples, 28 by a lane a sample. 72 bytes a point: at B = 64, N = 16 the launch and two latencies are the
// cost. An H200 takes 1.4 us for it, and 5.0 for B = 1024, N = 64 (5.5 and 77 on an H100, by a warp a keypoint, a lane
// a sample); forward 1.0 and 1.4. Not taken: reducing over blocks, by a second launch; one launch for this,
// link_heatmap and the boundary term: 25 us of a training step beside some 20 ms for the perceptual loss, and the
// points must be written for the memory term.
#include "common.cuh"

#include "affine_warp.h"
#include "affine_warp_arguments.h"

namespace ppl_fast {
namespace {

constexpr int kThreads = 256;
// Of a block that takes a keypoint of a shared template.
constexpr int kMostWarps = 16, kSampleLanes = 8, kSampleLoads = 4;

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

template <class T>
struct TemplateSums {
  T of_warp[2][kMostWarps];
};

template <class S>
__global__ void __launch_bounds__(kMostWarps* kWarp)
    affine_warp_bwd_shared_kernel(const S* __restrict__ grad, const S* __restrict__ keypoints,
                                  const S* __restrict__ affine, int64_t samples, int64_t n, S* grad_keypoints,
                                  S* grad_affine) {
  using T = Compute<S>;
  auto& shared = shared_memory<TemplateSums<T>>();
  const int64_t key = blockIdx.x;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int c = lane % kSampleLanes, group = lane - c, row = threadIdx.x / kSampleLanes,
            rows = blockDim.x / kSampleLanes;
  const bool of_theta = c < 6;
  const T x = T(keypoints[2 * key]), y = T(keypoints[2 * key + 1]);
  const S* from = of_theta ? affine + 6 * (row * n + key) + c : grad + 2 * (row * n + key) + c - 6;
  S* to = grad_affine + 6 * (row * n + key) + c;
  const int64_t step = rows * n;
  T sum = 0;  // of theta_c g
  for (int64_t b = 0; b < samples; b += kSampleLoads * rows) {
    const int left = int(min(samples - b, int64_t(kSampleLoads * rows))) - row;
    T number[kSampleLoads];
#pragma unroll
    for (int i = 0; i < kSampleLoads; ++i, from += (of_theta ? 6 : 2) * step)
      number[i] = i * rows < left ? T(*from) : T(0);
#pragma unroll
    for (int i = 0; i < kSampleLoads; ++i, to += 6 * step) {
      const T gx = __shfl_sync(kAllLanes, number[i], group + 6), gy = __shfl_sync(kAllLanes, number[i], group + 7);
      T grad_number;
      warp_number_backward(c, number[i], x, y, gx, gy, grad_number, sum);
      if (of_theta && i * rows < left) *to = S(grad_number);
    }
  }
  sum += __shfl_sync(kAllLanes, sum, lane + 3);  // A's other row; of use to the first two lanes of each eight
  for (int offset = kSampleLanes; offset < kWarp; offset *= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
  if (lane < 2) shared.of_warp[lane][warp] = sum;
  __syncthreads();
  if (warp > 0) return;
  static_assert(2 * kMostWarps == kWarp);
  const int of = lane / kMostWarps, other = lane % kMostWarps;
  const T total = lane_sum<kMostWarps>(other < warps ? shared.of_warp[of][other] : T(0));
  if (other == 0) grad_keypoints[2 * key + of] = S(total);
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
  const int warps = int(std::clamp<int64_t>(ceil_div(b * kSampleLanes, kWarp * kSampleLoads), 1, kMostWarps));
  dispatch_storage(type, "affine_warp_backward", [&](auto zero) {
    using S = decltype(zero);
    if (x.dim() == 2)
      launch(affine_warp_bwd_shared_kernel<S>, Grid{n}, kWarp * warps, sizeof(TemplateSums<Compute<S>>),
             device.stream(), read<S>(g), read<S>(x), read<S>(theta), b, n, write<S>(grad_x), write<S>(grad_theta));
    else
      launch(affine_warp_bwd_own_kernel<S>, Grid{ceil_div(b * n, kThreads)}, kThreads, 0, device.stream(), read<S>(g),
             read<S>(x), read<S>(theta), b * n, write<S>(grad_x), write<S>(grad_theta));
  });
  return {grad_x, grad_theta};
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kThreads, 0, affine_warp_fwd_kernel<float>),
    PPL_FAST_KERNEL(kThreads, 0, affine_warp_bwd_own_kernel<float>),
    PPL_FAST_KERNEL(kMostWarps * kWarp, sizeof(TemplateSums<float>), affine_warp_bwd_shared_kernel<float>),
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("affine_warp"), TORCH_BOX(&affine_warp_cuda));
  m.impl(PPL_FAST_CUDA_OP("affine_warp_backward"), TORCH_BOX(&affine_warp_backward_cuda));
}

}  // namespace ppl_fast
