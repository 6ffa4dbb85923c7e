// memory_attention on CUDA: soft mode, values = softmax(-distance^2 / temperature) prototypes; what pays on tensor
// cores is memory_attention_soft_tensor_cuda.cu's and its backward's. A block takes 16 tokens of a bank past its
// prototypes, 64 at a time: 16 x 16 threads meet the pairs, keep the minimum and sum of an online softmax and leave the
// weights in shared memory; then each thread has columns of d, and adds the weighted prototypes to 16 tokens in
// registers. The values so far wait in the output itself (in L2), where there are more than 64 prototypes. The backward
// recomputes the weights the same way, once with tokens and once with prototypes as the 16 rows: both gradients are
// summed in order, without atomics. B = 64, m = 34, k = 16, d = 512: 15 MB forward, 3.5 us at 4.3 TB/s, 25 MB backward,
// 6 us; by what is issued (sm_90, benchmarks/cycle_model.py) 8.3 us forward and 12.6 + 7.1 backward, at an H200's full
// rate. Predicted: this has not run on a GPU. Not taken: keeping the values so far in shared memory, which would bound
// d.
#include "memory_attention_cuda.cuh"

#include <type_traits>

namespace ppl_fast {
namespace {

template <class T>
using Shape = PairShape<T, 1, 4>;
constexpr int kNear = Shape<float>::x, kFar = Shape<float>::y;  // 16 rows that stay, 64 that pass by
static_assert(kNear == kSide && kFar == 4 * kSide);

template <class T>
struct alignas(16) SoftShared {
  typename Shape<T>::Shared pairs;
  T weight[kFar][kNear], slope[kFar][kNear];
  T shrink[kNear], total[kNear];
  T q[kNear];
  T pull[kNear];  // of a token to its nearest prototype, from the gradient of their distance
  const T* nearest[kNear];
};

// sums[r] += weight[c][r] * x_c[i] over the rows x_c; the sums of 16 rows at once.
template <class T>
__device__ void add_weighted(const T (&weight)[kFar][kNear], const Rows<T>& x, int64_t i, T (&sums)[kNear]) {
  for (int c = 0; c < x.count; ++c) {
    const T value = x.at[c * x.stride + i];
#pragma unroll
    for (int r = 0; r < kNear; ++r) sums[r] += weight[c][r] * value;
  }
}

template <class T>
__global__ void __launch_bounds__(kPairThreads, 1)
    memory_attention_soft_fwd_kernel(Banks<T> a, Softmax<T> softmax, SoftOut<T> out) {
  auto& shared = shared_memory<SoftShared<T>>();
  const int thread = threadIdx.x, tx = thread % kSide, ty = thread / kSide;
  const int64_t b0 = int64_t(blockIdx.x) * kNear, bank = blockIdx.y;
  const Rows<T> tokens = a.token_rows(a.tokens, bank, b0, kNear);
  T* const values = out.values + (b0 * a.m + bank) * a.d;
  Choice<T> best = {T(INFINITY), 0};
  // The same in all 16 threads of a token. Relative to a finite number, a distance that overflows has the weight 0.
  T least = Limits<T>::largest, total = 0;
  for (int64_t first = 0; first < a.k; first += kFar) {
    const Rows<T> prototypes = a.prototype_rows(bank, first, a.k, kFar);
    T distance[1][4];
    pair_sums<Shape<T>>(shared.pairs, tokens, prototypes, a.d, SquaredDifference(), distance);
    T nearest = least, sum = 0;
    for (int j = 0; j < 4; ++j)
      if (tx + kSide * j < prototypes.count) {
        best.meet(distance[0][j], int(first) + tx + kSide * j);
        nearest = fmin(nearest, distance[0][j]);
      }
    nearest = -lane_max<kSide>(-nearest);
    const T shrink = power_of_two((nearest - least) * softmax.sharpness);
    for (int j = 0; j < 4; ++j) {
      const int c = tx + kSide * j;
      const T weight = c < prototypes.count ? power_of_two((nearest - distance[0][j]) * softmax.sharpness) : T(0);
      shared.weight[c][ty] = weight, sum += weight;
    }
    least = nearest, total = total * shrink + lane_sum<kSide>(sum);
    if (tx == 0) shared.shrink[ty] = shrink, shared.total[ty] = total;
    __syncthreads();
    const bool last = first + kFar >= a.k;
    for (int64_t i = thread; i < a.d; i += kPairThreads) {
      T sums[kNear];
#pragma unroll
      for (int r = 0; r < kNear; ++r)
        sums[r] = first > 0 && r < tokens.count ? values[r * a.m * a.d + i] * shared.shrink[r] : T(0);
      add_weighted(shared.weight, prototypes, i, sums);
#pragma unroll
      for (int r = 0; r < kNear; ++r)
        if (r < tokens.count) values[r * a.m * a.d + i] = last ? sums[r] / shared.total[r] : sums[r];
    }
  }
  best = lane_choice<kSide>(best);
  if (tx != 0 || ty >= tokens.count) return;
  const int64_t at = (b0 + ty) * a.m + bank;
  out.indices[at] = best.nearest(), out.distances[at] = best.distance;
  out.least[at] = least, out.total[at] = total;
}

template <class T>
__global__ void __launch_bounds__(kPairThreads, 1)
    memory_attention_soft_bwd_tokens_kernel(Banks<T> a, Softmax<T> softmax, SoftGrad<T> g) {
  auto& shared = shared_memory<SoftShared<T>>();
  const int thread = threadIdx.x, tx = thread % kSide, ty = thread / kSide;
  const int64_t b0 = int64_t(blockIdx.x) * kNear, bank = blockIdx.y;
  const Rows<T> tokens = a.token_rows(a.tokens, bank, b0, kNear), grads = a.token_rows(g.grad_values, bank, b0, kNear);
  T* const out = g.grad_tokens + (b0 * a.m + bank) * a.d;
  const Rows<T> values = a.token_rows(g.values, bank, b0, kNear);
  const int mine = min(ty, tokens.count - 1);
  const int64_t own = (b0 + mine) * a.m + bank;
  const T* const nearest = g.nearest(a, bank, b0 + mine);
  const T g_dot_nearest = sum_in_order(grads.at + mine * grads.stride, nearest, a.d, Product());
  if (tx == 0) shared.pull[ty] = 2 * g.grad_distances[own], shared.nearest[ty] = nearest;
  T q = 0;
  for (int64_t first = 0; first < a.k; first += kFar) {
    const Rows<T> prototypes = a.prototype_rows(bank, first, a.k, kFar);
    T distance[1][4], product[1][4];
    pair_sums<Shape<T>>(shared.pairs, tokens, prototypes, a.d, SquaredDifference(), distance);
    pair_sums<Shape<T>>(shared.pairs, grads, prototypes, a.d, Product(), product);
    for (int j = 0; j < 4; ++j) {
      const int c = tx + kSide * j;
      const T share = g.weight(softmax.sharpness, own, distance[0][j]) * (product[0][j] - g_dot_nearest);
      shared.slope[c][ty] = share;
      if (c < prototypes.count) q += share;
    }
    const bool last = first + kFar >= a.k;
    if (last) {
      q = lane_sum<kSide>(q);
      if (tx == 0) shared.q[ty] = q;
      if (tx == 0 && ty < tokens.count) g.g_dot_nearest[own] = g_dot_nearest, g.q[own] = q;
    }
    __syncthreads();
    for (int64_t i = thread; i < a.d; i += kPairThreads) {
      T sums[kNear];
#pragma unroll
      for (int r = 0; r < kNear; ++r) sums[r] = first > 0 && r < tokens.count ? out[r * a.m * a.d + i] : T(0);
      add_weighted(shared.slope, prototypes, i, sums);
#pragma unroll
      for (int r = 0; r < kNear; ++r) {
        if (r >= tokens.count) continue;
        if (last)
          sums[r] = 2 * softmax.inverse_temperature * (sums[r] - shared.q[r] * values.at[r * values.stride + i]) +
                    shared.pull[r] * (tokens.at[r * tokens.stride + i] - shared.nearest[r][i]);
        out[r * a.m * a.d + i] = sums[r];
      }
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kPairThreads, 1)
    memory_attention_soft_bwd_prototypes_kernel(Banks<T> a, Softmax<T> softmax, SoftGrad<T> g) {
  auto& shared = shared_memory<SoftShared<T>>();
  const int thread = threadIdx.x, tx = thread % kSide, ty = thread / kSide;
  const int64_t j0 = int64_t(blockIdx.x) * kNear, bank = blockIdx.y;
  const Rows<T> prototypes = a.prototype_rows(bank, j0, a.k, kNear);
  T* const out = g.grad_prototypes + (bank * a.k + j0) * a.d;
  for (int64_t first = 0; first < a.b; first += kFar) {
    const Rows<T> tokens = a.token_rows(a.tokens, bank, first, kFar),
                  grads = a.token_rows(g.grad_values, bank, first, kFar);
    T distance[1][4], product[1][4];
    pair_sums<Shape<T>>(shared.pairs, prototypes, tokens, a.d, SquaredDifference(), distance);
    pair_sums<Shape<T>>(shared.pairs, prototypes, grads, a.d, Product(), product);
    for (int j = 0; j < 4; ++j) {
      const int c = tx + kSide * j;
      if (c >= tokens.count) continue;
      const int64_t at = (first + c) * a.m + bank;
      const T weight = g.weight(softmax.sharpness, at, distance[0][j]);
      const T slope = softmax_slope(weight, product[0][j], g.g_dot_nearest[at], g.q[at], softmax.inverse_temperature);
      shared.weight[c][ty] = weight;
      shared.slope[c][ty] = 2 * (slope - (g.indices[at] == j0 + ty ? g.grad_distances[at] : T(0)));
    }
    __syncthreads();
    for (int64_t i = thread; i < a.d; i += kPairThreads) {
      T sums[kNear], own[kNear];
#pragma unroll
      for (int r = 0; r < kNear; ++r) {
        own[r] = r < prototypes.count ? prototypes.at[r * a.d + i] : T(0);
        sums[r] = first > 0 && r < prototypes.count ? out[r * a.d + i] : T(0);
      }
      for (int c = 0; c < tokens.count; ++c) {
        const T grad = grads.at[c * grads.stride + i], token = tokens.at[c * tokens.stride + i];
#pragma unroll
        for (int r = 0; r < kNear; ++r) sums[r] += shared.weight[c][r] * grad + shared.slope[c][r] * (token - own[r]);
      }
#pragma unroll
      for (int r = 0; r < kNear; ++r)
        if (r < prototypes.count) out[r * a.d + i] = sums[r];
    }
  }
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kPairThreads, sizeof(SoftShared<float>), memory_attention_soft_fwd_kernel<float>),
    PPL_FAST_KERNEL(kPairThreads, sizeof(SoftShared<float>), memory_attention_soft_bwd_tokens_kernel<float>),
    PPL_FAST_KERNEL(kPairThreads, sizeof(SoftShared<float>), memory_attention_soft_bwd_prototypes_kernel<float>),
};

// Whether tensor cores are taken to: in float32, as which half types come, with more than 16 tokens a bank, 256
// prototypes or more, and rows of tokens that lie no further apart than a tile's offsets allow, where the code that is
// loaded has their products. Differences take the rest. A backward goes the way of its forward, whose sums it relies
// on.
bool pays_on_tensor_cores(const Banks<float>& a, int device) {
  return a.b > kNear && a.k >= 2 * kScreenStep && a.m * a.d <= kMostScreenStride && has_tensor_cores<float>(device);
}

}  // namespace

void launch_soft_fwd(const Tensor& tokens, const Tensor& prototypes, double temperature, const Tensor& values,
                     const Tensor& indices, const Tensor& distances, const Tensor& softmax, cudaStream_t stream) {
  dispatch(tokens.scalar_type(), "memory_attention", [&](auto zero) {
    using T = decltype(zero);
    const auto a = make_banks<T>(tokens, prototypes);
    T* const least = write<T>(softmax);
    const SoftOut<T> out = {write<T>(values), write<int64_t>(indices), write<T>(distances), least, least + a.b * a.m};
    if constexpr (std::is_same_v<T, float>)
      if (pays_on_tensor_cores(a, tokens.get_device_index()))
        return launch_soft_tensor_fwd(a, make_softmax<float>(temperature), out, tokens, stream);
    launch(memory_attention_soft_fwd_kernel<T>, Grid{ceil_div(a.b, kNear), a.m}, kPairThreads, sizeof(SoftShared<T>),
           stream, a, make_softmax<T>(temperature), out);
  });
}

void launch_soft_bwd(const Tensor& grad_values, const Tensor& grad_distances, const Tensor& tokens,
                     const Tensor& prototypes, const Tensor& values, const Tensor& indices, const Tensor& softmax,
                     double temperature, const Tensor& grad_tokens, const Tensor& grad_prototypes,
                     cudaStream_t stream) {
  dispatch(tokens.scalar_type(), "memory_attention_backward", [&](auto zero) {
    using T = decltype(zero);
    const auto a = make_banks<T>(tokens, prototypes);
    const auto between = empty(tokens, {2, a.b * a.m}, tokens.scalar_type());
    const T* const least = read<T>(softmax);
    T* const g_dot_nearest = write<T>(between);
    const SoftGrad<T> g = {read<T>(grad_values),
                           read<T>(grad_distances),
                           read<T>(values),
                           read<int64_t>(indices),
                           least,
                           least + a.b * a.m,
                           g_dot_nearest,
                           g_dot_nearest + a.b * a.m,
                           write<T>(grad_tokens),
                           write<T>(grad_prototypes)};
    const bool needs_prototypes = grad_prototypes.numel() > 0 && a.b > 0;
    if constexpr (std::is_same_v<T, float>)
      if (pays_on_tensor_cores(a, tokens.get_device_index()))
        return launch_soft_tensor_bwd(a, make_softmax<float>(temperature), g, needs_prototypes, tokens, stream);
    launch(memory_attention_soft_bwd_tokens_kernel<T>, Grid{ceil_div(a.b, kNear), a.m}, kPairThreads,
           sizeof(SoftShared<T>), stream, a, make_softmax<T>(temperature), g);
    if (!needs_prototypes) return;
    launch(memory_attention_soft_bwd_prototypes_kernel<T>, Grid{ceil_div(a.k, kNear), a.m}, kPairThreads,
           sizeof(SoftShared<T>), stream, a, make_softmax<T>(temperature), g);
  });
}

}  // namespace ppl_fast
