// memory_attention on CUDA: hard mode. A block of 256 threads takes 16 tokens of a bank (64 where there are many) past
// its prototypes, 16 or 64 at a time, keeps the nearest in registers and copies it: one launch, nothing of size B x m x
// k. Where tokens alone do not fill the GPU, blocks share the prototypes and a second kernel compares, the shares
// divided among the lanes of a warp. Backward: a pass over the tokens, and sums over them
// (memory_attention_sums_cuda.cu). B = 64, m = 34, k = 16, d = 512: 10 MB, 2.4 us at 4.3 TB/s; 3,390 instructions a
// warp (sm_90, benchmarks/cycle_model.py), 3.5 us at an H200's full rate; four rounds of loads and a copy, each about
// 0.5 us of latency: 5 us with the launch, 5 more backward. From 1,024 prototypes on and more than 16 tokens, tensor
// cores choose which to compare (memory_attention_screen_cuda.cu); that does not pay for few. Predicted: this has not
// run on a GPU.
#include "memory_attention_cuda.cuh"

#include <optional>
#include <type_traits>

#include "memory_attention_arguments.h"

namespace ppl_fast {
namespace {

constexpr int kRowThreads = 128;

template <class T>
using Least = PairShape<T, 1, 1>;
template <class T>
using Few = PairShape<T, 1, 4>;
template <class T>
using Many = PairShape<T, 4, 4>;

template <class S>
__device__ void copy_row(const S* from, S* to, int64_t d, int lane, int lanes) {
  for_elements<S>(d, lane, lanes, [&](int64_t i) { return from[i]; }, [&](int64_t i, S value) { to[i] = value; });
}

template <class S>
struct Chosen {
  S* values;         // (b, m, d)
  int64_t* indices;  // (b, m)
  S* distances;      // (b, m)
};

template <class T, class Shape>
struct HardShared {
  typename Shape::Shared pairs;
  int nearest[Shape::x];
};

// Prototypes [blockIdx.z * share, ...) of bank blockIdx.y; `partial` (shares, b, m) where there are several shares.
template <class S, class Shape>
__global__ void __launch_bounds__(kPairThreads, 2)
    memory_attention_fwd_kernel(Banks<S> a, int64_t share, Choice<Compute<S>>* partial, Chosen<S> out) {
  using T = Compute<S>;
  auto& shared = shared_memory<HardShared<T, Shape>>();
  const int thread = threadIdx.x, tx = thread % kSide, ty = thread / kSide;
  const int64_t b0 = int64_t(blockIdx.x) * Shape::x, bank = blockIdx.y;
  const int64_t begin = blockIdx.z * share, end = min(begin + share, a.k);
  const Rows<S> tokens = a.token_rows(a.tokens, bank, b0, Shape::x);
  Choice<T> best[Shape::rows_x];
  for (int i = 0; i < Shape::rows_x; ++i) best[i] = {T(INFINITY), int(begin)};
  for (int64_t first = begin; first < end; first += Shape::y) {
    const Rows<S> prototypes = a.prototype_rows(bank, first, end, Shape::y);
    T distance[Shape::rows_x][Shape::rows_y];
    pair_sums<Shape>(shared.pairs, tokens, prototypes, a.d, SquaredDifference(), distance);
    for (int j = 0; j < Shape::rows_y; ++j) {
      const int c = tx + kSide * j;
      if (c >= prototypes.count) continue;
      for (int i = 0; i < Shape::rows_x; ++i) best[i].meet(distance[i][j], int(first) + c);
    }
  }
  for (int i = 0; i < Shape::rows_x; ++i) {
    const Choice<T> choice = lane_choice<kSide>(best[i]);
    const int r = ty + kSide * i;
    if (tx != 0 || r >= tokens.count) continue;
    const int64_t at = (b0 + r) * a.m + bank;
    if (partial) {
      partial[blockIdx.z * a.b * a.m + at] = choice;
    } else {
      shared.nearest[r] = choice.nearest();
      out.indices[at] = choice.nearest(), out.distances[at] = S(choice.distance);
    }
  }
  if (partial) return;
  __syncthreads();
  for (int r = thread / kWarp; r < tokens.count; r += kPairThreads / kWarp) {
    const S* const from = a.prototypes + (bank * a.k + shared.nearest[r]) * a.d;
    S* const to = out.values + ((b0 + r) * a.m + bank) * a.d;
    copy_row(from, to, a.d, thread % kWarp, kWarp);
  }
}

template <class S>
__global__ void __launch_bounds__(kRowThreads)
    memory_attention_compare_kernel(Banks<S> a, int shares, const Choice<Compute<S>>* partial, Chosen<S> out) {
  using T = Compute<S>;
  const int64_t row = blockIdx.x, rows = a.b * a.m;
  Choice<T> choice = {T(INFINITY), 0};
  constexpr int batch = 4;  // loads that travel together
  for (int first = threadIdx.x % kWarp; first < shares; first += batch * kWarp) {
    Choice<T> next[batch];
#pragma unroll
    for (int i = 0; i < batch; ++i)
      next[i] = first + i * kWarp < shares ? partial[(first + i * kWarp) * rows + row] : Choice<T>{T(INFINITY), 0};
#pragma unroll
    for (int i = 0; i < batch; ++i) choice.meet(next[i]);
  }
  choice = lane_choice<kWarp>(choice);  // each warp does it all
  if (threadIdx.x == 0) out.indices[row] = choice.nearest(), out.distances[row] = S(choice.distance);
  const S* const from = a.prototypes + (row % a.m * a.k + choice.nearest()) * a.d;
  copy_row(from, out.values + row * a.d, a.d, threadIdx.x, kRowThreads);
}

template <class S>
__global__ void __launch_bounds__(kRowThreads)
    memory_attention_bwd_tokens_kernel(Banks<S> a, const S* grad_values, const S* grad_distances,
                                       const int64_t* indices, S* grad_tokens) {
  using T = Compute<S>;
  const int64_t row = blockIdx.x, nearest = min(max(indices[row], int64_t(0)), a.k - 1);
  const S *const token = a.tokens + row * a.d, *const prototype = a.prototypes + (row % a.m * a.k + nearest) * a.d;
  const S* const grad = grad_values + row * a.d;
  S* const out = grad_tokens + row * a.d;
  const T pull = 2 * T(grad_distances[row]);
  for_elements<S>(
      a.d, threadIdx.x, kRowThreads, [&](int64_t i) { return S(T(grad[i]) + pull * (T(token[i]) - T(prototype[i]))); },
      [&](int64_t i, S value) { out[i] = value; });
}

template <class Shape, class S>
void launch_hard_fwd(const Banks<S>& a, const Tensor& like, const Chosen<S>& out, cudaStream_t stream) {
  using T = Compute<S>;
  const int64_t tiles = ceil_div(a.b, Shape::x), share = share_of(tiles * a.m, a.k, Shape::y);
  const int64_t shares = ceil_div(a.k, share);
  const auto partial =
      empty(like, {shares > 1 ? shares * a.b * a.m * int64_t(sizeof(Choice<T>)) : 0}, ScalarType::Byte);
  auto* const choices = shares > 1 ? reinterpret_cast<Choice<T>*>(partial.mutable_data_ptr()) : nullptr;
  launch(memory_attention_fwd_kernel<S, Shape>, Grid{tiles, a.m, shares}, kPairThreads, sizeof(HardShared<T, Shape>),
         stream, a, share, choices, out);
  if (shares > 1)
    launch(memory_attention_compare_kernel<S>, Grid{a.b * a.m}, kRowThreads, 0, stream, a, int(shares), choices, out);
}

template <class S>
void launch_screened_fwd(const Banks<S>& a, const Tensor& like, const Chosen<S>& out, cudaStream_t stream) {
  const int64_t share = screen_share_of(ceil_div(a.b, kScreenTokens) * a.m, a.k), shares = ceil_div(a.k, share);
  const auto partial = empty(like, {shares * a.b * a.m * int64_t(sizeof(Choice<float>))}, ScalarType::Byte);
  auto* const choices = reinterpret_cast<Choice<float>*>(partial.mutable_data_ptr());
  launch_screen(a, share, choices, stream);
  launch(memory_attention_compare_kernel<S>, Grid{a.b * a.m}, kRowThreads, 0, stream, a, int(shares), choices, out);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> memory_attention_cuda(const Tensor& tokens, const Tensor& prototypes,
                                                                 std::optional<double> temperature) {
  check_memory_attention(tokens, prototypes);
  const OnDevice device(tokens);
  const auto given = tokens.scalar_type(), type = temperature ? compute_type(tokens) : given;
  const auto t = contiguous_as(tokens, type), p = contiguous_as(prototypes, type);
  const int64_t b = t.size(0), m = t.size(1), k = p.size(1), d = t.size(2);
  const auto values = empty(t, {b, m, d}, type), distances = empty(t, {b, m}, type);
  const auto indices = empty(t, {b, m}, ScalarType::Long);
  const auto softmax = temperature ? empty(t, {2, b, m}, type) : empty(t, {0}, compute_type(t));
  if (temperature) {
    launch_soft_fwd(t, p, *temperature, values, indices, distances, softmax, device.stream());
  } else {
    dispatch_storage(type, "memory_attention", [&](auto zero) {
      using S = decltype(zero);
      using T = Compute<S>;
      const auto a = make_banks<S>(t, p);
      const Chosen<S> out = {write<S>(values), write<int64_t>(indices), write<S>(distances)};
      const bool many = b > Few<T>::x && k >= 4 * Many<T>::y;
      if constexpr (!std::is_same_v<S, double>)
        if (many && k >= 8 * kScreenStep && a.m * a.d <= kMostScreenStride && has_tensor_cores<S>(t.get_device_index()))
          return launch_screened_fwd(a, t, out, device.stream());
      if (many)
        launch_hard_fwd<Many<T>>(a, t, out, device.stream());
      else if (k <= Least<T>::y)
        launch_hard_fwd<Least<T>>(a, t, out, device.stream());
      else
        launch_hard_fwd<Few<T>>(a, t, out, device.stream());
    });
  }
  return {cast(values, given), indices, cast(distances, given), softmax};
}

std::tuple<Tensor, Tensor> memory_attention_backward_cuda(const Tensor& grad_values, const Tensor& grad_distances,
                                                          const Tensor& tokens, const Tensor& prototypes,
                                                          const Tensor& values, const Tensor& indices,
                                                          const Tensor& softmax, std::optional<double> temperature,
                                                          bool needs_prototypes) {
  check_memory_attention_backward(grad_values, grad_distances, tokens, prototypes, values, indices, softmax,
                                  temperature.has_value());
  const OnDevice device(tokens);
  const auto given = tokens.scalar_type(), type = temperature ? compute_type(tokens) : given;
  const auto t = contiguous_as(tokens, type), p = contiguous_as(prototypes, type),
             gv = contiguous_as(grad_values, type), gd = contiguous_as(grad_distances, type),
             chosen = torch::stable::contiguous(indices);
  const auto grad_t = torch::stable::new_empty(t, t.sizes());
  const auto grad_p = !needs_prototypes ? empty(p, {0}, type)
                      : t.size(0) == 0  ? torch::stable::new_zeros(p, p.sizes())
                                        : torch::stable::new_empty(p, p.sizes());
  if (temperature) {
    const auto v = contiguous_as(values, type), relative = contiguous_as(softmax, type);
    launch_soft_bwd(gv, gd, t, p, v, chosen, relative, *temperature, grad_t, grad_p, device.stream());
  } else {
    dispatch_storage(type, "memory_attention_backward", [&](auto zero) {
      using S = decltype(zero);
      const auto a = make_banks<S>(t, p);
      launch(memory_attention_bwd_tokens_kernel<S>, Grid{a.b * a.m}, kRowThreads, 0, device.stream(), a, read<S>(gv),
             read<S>(gd), read<int64_t>(chosen), write<S>(grad_t));
      if (needs_prototypes)
        launch_sums_gradient(a, read<int64_t>(chosen), read<S>(gd), write<S>(grad_p), device.stream());
    });
  }
  return {cast(grad_t, given), cast(grad_p, given)};
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kPairThreads, sizeof(HardShared<float, Least<float>>),
                    memory_attention_fwd_kernel<float, PairShape<float, 1, 1>>),
    PPL_FAST_KERNEL(kPairThreads, sizeof(HardShared<float, Few<float>>),
                    memory_attention_fwd_kernel<float, PairShape<float, 1, 4>>),
    PPL_FAST_KERNEL(kPairThreads, sizeof(HardShared<float, Many<float>>),
                    memory_attention_fwd_kernel<float, PairShape<float, 4, 4>>),
    PPL_FAST_KERNEL(kRowThreads, 0, memory_attention_compare_kernel<float>),
    PPL_FAST_KERNEL(kRowThreads, 0, memory_attention_bwd_tokens_kernel<float>),
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("memory_attention"), TORCH_BOX(&memory_attention_cuda));
  m.impl(PPL_FAST_CUDA_OP("memory_attention_backward"), TORCH_BOX(&memory_attention_backward_cuda));
}

}  // namespace ppl_fast
