// memory_attention on CUDA: hard mode. Up to 16 prototypes: a block takes 8 tokens of a bank, a warp 4 x 8 pairs of
// them, its lanes along d, so that rows go from memory to registers. More: a block of 256 threads takes 16 tokens (64
// where there are many) past its prototypes, 16 or 64 at a time, by shared memory; where tokens alone do not fill the
// GPU, blocks share the prototypes and a second kernel compares. The nearest is copied in the same launch; nothing of
// size B x m x k. Backward: a pass over the tokens, and sums over them (memory_attention_sums_cuda.cu). B = 64, m = 34,
// k = 16, d = 512: 10 MB, 3 us at 3.35 TB/s; 2 us of instructions. An H200 takes 5.9 us (an H100 12.7 by 136 blocks of
// 16 tokens through shared memory, two warps a scheduler waiting for it); the tokens' gradient 3.6. From 1,024
// prototypes on and more than 16 tokens, tensor cores choose which to compare (memory_attention_screen_cuda.cu).
#include "memory_attention_cuda.cuh"

#include <optional>
#include <type_traits>

#include "memory_attention_arguments.h"

namespace ppl_fast {
namespace {

constexpr int kRowThreads = 128;

// Of a block that takes few prototypes, and of each of its warps.
constexpr int kFewTokens = 8, kFewPrototypes = 16, kWarpTokens = 4, kWarpPrototypes = 8;
constexpr int kWarpsAcross = kFewPrototypes / kWarpPrototypes;
constexpr int kFewThreads = kFewTokens / kWarpTokens * kWarpsAcross * kWarp;

template <class T>
using Few = PairShape<T, 1, 4>;
template <class T>
using Many = PairShape<T, 4, 4>;

template <class S>
__device__ void copy_row(const S* __restrict__ from, S* __restrict__ to, int64_t d, int lane, int lanes) {
#pragma unroll 4
  for (int64_t i = lane; i < d; i += lanes) to[i] = from[i];
}

template <class S>
struct Chosen {
  S* values;         // (b, m, d)
  int64_t* indices;  // (b, m)
  S* distances;      // (b, m)
};

// Of 32 sums in each lane the warp's total of one, that of the lane's number; all in the same order.
template <class T>
__device__ T lane_total(T (&sums)[kWarp]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int level = 1; level <= 5; ++level) {  // each halves the lanes that a sum comes from, and the sums of a lane
    const int n = kWarp >> level;
#pragma unroll
    for (int i = 0; i < kWarp / 2; ++i) {
      if (i >= n) continue;
      const T kept = lane & n ? sums[i + n] : sums[i], sent = lane & n ? sums[i] : sums[i + n];
      sums[i] = kept + __shfl_xor_sync(kAllLanes, sent, n);
    }
  }
  return sums[0];
}

// At most 16 prototypes: lanes along d, so that rows come from memory as they lie, with no barrier before the choice.
template <class S>
__global__ void __launch_bounds__(kFewThreads, sizeof(S) > 4 ? 2 : 4)
    memory_attention_fwd_few_kernel(Banks<S> a, Chosen<S> out) {
  using T = Compute<S>;
  static_assert(kWarpTokens * kWarpPrototypes == kWarp);
  using Choices = Choice<T>[kFewTokens][kWarpsAcross];
  auto& choices = shared_memory<Choices>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int x0 = warp / kWarpsAcross * kWarpTokens, y0 = warp % kWarpsAcross * kWarpPrototypes;
  const int64_t b0 = int64_t(blockIdx.x) * kFewTokens, bank = blockIdx.y;
  const Rows<S> x = a.token_rows(a.tokens, bank, b0 + x0, kWarpTokens);
  const Rows<S> y = a.prototype_rows(bank, y0, a.k, kWarpPrototypes);
  T sums[kWarp] = {};
  if (x.count > 0 && y.count > 0) {
    const S *of_x[kWarpTokens] = {x.at + lane}, *of_y[kWarpPrototypes] = {y.at + lane};
    // The last in place of those that are not there.
    for (int r = 1; r < kWarpTokens; ++r) of_x[r] = of_x[r - 1] + (r < x.count ? x.stride : 0);
    for (int c = 1; c < kWarpPrototypes; ++c) of_y[c] = of_y[c - 1] + (c < y.count ? y.stride : 0);
#pragma unroll 4
    for (int64_t i = lane; i < a.d; i += kWarp) {
      T vx[kWarpTokens], vy[kWarpPrototypes];
      for (int r = 0; r < kWarpTokens; ++r) vx[r] = T(*of_x[r]), of_x[r] += kWarp;
      for (int c = 0; c < kWarpPrototypes; ++c) vy[c] = T(*of_y[c]), of_y[c] += kWarp;
      for (int pair = 0; pair < kWarp; ++pair)
        sums[pair] = add_squared_difference(sums[pair], vx[pair / kWarpPrototypes], vy[pair % kWarpPrototypes]);
    }
  }
  const T distance = lane_total(sums);
  const int r = lane / kWarpPrototypes, c = lane % kWarpPrototypes;
  const auto choice = lane_choice<kWarpPrototypes>(Choice<T>{c < y.count ? distance : T(INFINITY), y0 + c});
  if (c == 0) choices[x0 + r][warp % kWarpsAcross] = choice;
  __syncthreads();
  for (int64_t i = warp; i < kFewTokens && b0 + i < a.b; i += kFewThreads / kWarp) {
    Choice<T> best = choices[i][0];
    for (int across = 1; across < kWarpsAcross; ++across) best.meet(choices[i][across]);
    const int64_t at = (b0 + i) * a.m + bank;
    if (lane == 0) out.indices[at] = best.nearest(), out.distances[at] = S(best.distance);
    copy_row(a.prototypes + (bank * a.k + best.nearest()) * a.d, out.values + at * a.d, a.d, lane, kWarp);
  }
}

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
  let_next_begin();  // the sums over tokens
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
      else if (k <= kFewPrototypes)
        launch(memory_attention_fwd_few_kernel<S>, Grid{ceil_div(b, kFewTokens), m}, kFewThreads,
               sizeof(Choice<T>) * kFewTokens * kWarpsAcross, device.stream(), a, out);
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
        launch_sums_gradient(a, read<int64_t>(chosen), read<S>(gd), write<S>(grad_p), t.get_device_index(),
                             device.stream());
    });
  }
  return {cast(grad_t, given), cast(grad_p, given)};
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kFewThreads, sizeof(Choice<float>) * kFewTokens * kWarpsAcross,
                    memory_attention_fwd_few_kernel<float>),
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
