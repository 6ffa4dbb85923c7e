// memory_attention on CUDA: sums over the tokens that chose a prototype, for the moving average of a codebook and for
// the gradient of hard mode's distances. A block has eight prototypes of a bank, a warp each: it reads what 256 tokens
// chose and lists each prototype's in shared memory; a warp adds its own in order, loads of eight under way, 128
// elements at a time. Blocks share elements where prototypes alone do not fill the GPU. A prototype that none chose is
// written, not read. From sm_90 on the gradient's launch overlaps with that of the tokens'. B = 64, m = 34, k = 16, d =
// 512: 6.7 MB, 2 us at 3.35 TB/s, and two latencies; eight rounds of loads for a collapsed bank. An H200 takes 6.6 us
// with the gradient, and 88 for k = 4,096, where 285 MB are written (an H100 11 and 202 by warps that looked through
// all tokens, read their prototype first and waited for each distance's gradient). Not taken: sorting the tokens by
// prototype (a second launch), atomics (the order varies).
#include "memory_attention_cuda.cuh"

#include "memory_attention_arguments.h"

namespace ppl_fast {
namespace {

constexpr int kSumPrototypes = kPairThreads / kWarp;  // of a block
constexpr int kSumSlice = 4;                          // elements that a lane holds of a prototype's sum
constexpr int kSumElements = kSumSlice * kWarp;

struct SumsShared {
  int chosen[kPairThreads];                          // prototypes by their place in the block, of the tokens at hand
  unsigned char list[kSumPrototypes][kPairThreads];  // the tokens at hand that chose a prototype, in order
};

// Lists the tokens from b0 on that chose this warp's prototype, as many as the block has threads, and returns how many.
template <class S>
__device__ int list_tokens(SumsShared& shared, const Banks<S>& a, const int64_t* indices, int64_t b0) {
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
  const int tokens = int(min(a.b - b0, int64_t(kPairThreads)));
  __syncthreads();  // what was there was in use
  if (thread < tokens) {
    const int64_t j = indices[(b0 + thread) * a.m + blockIdx.y] - int64_t(blockIdx.x) * kSumPrototypes;
    shared.chosen[thread] = j >= 0 && j < kSumPrototypes ? int(j) : -1;
  }
  __syncthreads();
  int found = 0;
#pragma unroll
  for (int first = 0; first < kPairThreads; first += kWarp) {
    if (first >= tokens) break;
    const bool mine = first + lane < tokens && shared.chosen[first + lane] == warp;
    const unsigned all = __ballot_sync(kAllLanes, mine);
    if (mine) shared.list[warp][found + __popc(all & ((1u << lane) - 1))] = static_cast<unsigned char>(first + lane);
    found += __popc(all);
  }
  __syncwarp();
  return found;
}

// For each prototype, over the tokens that chose it: their number and sum, or (kGradient) the gradient of the
// distances; elements [blockIdx.z * share, ...) of both.
template <class S, class Out, bool kGradient>
__global__ void __launch_bounds__(kPairThreads, sizeof(S) > 4 ? 2 : 3)
    memory_attention_sums_kernel(Banks<S> a, int64_t share, const int64_t* indices, const S* grad_distances,
                                 Out* counts, Out* sums) {
  using T = Compute<S>;
  constexpr int tokens = sizeof(T) > 4 ? 4 : 8;  // whose loads travel together
  auto& shared = shared_memory<SumsShared>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t j = int64_t(blockIdx.x) * kSumPrototypes + warp, bank = blockIdx.y, row = (bank * a.k + j) * a.d;
  const int64_t begin = blockIdx.z * share, end = min(begin + share, a.d);
  const bool once = a.b <= kPairThreads;  // one list serves all elements
  int listed = 0;
  int64_t count = 0;
  for (int64_t first = begin + lane; first - lane == begin || first - lane < end; first += kSumElements) {
    const int rest = int(min(end - first, int64_t(kSumElements)));  // a lane has those of 0, 32, 64, 96 that are less
    T sum[kSumSlice] = {};
    count = 0;
    for (int64_t b0 = 0; b0 < a.b; b0 += kPairThreads) {
      if (!once || first - lane == begin) listed = list_tokens(shared, a, indices, b0);
      count += listed;
      if (listed == 0 || j >= a.k) continue;
      T own[kSumSlice];
#pragma unroll
      for (int c = 0; c < kSumSlice; ++c)
        if (kGradient && c * kWarp < rest) own[c] = T(a.prototypes[row + first + c * kWarp]);
      for (int next = 0; next < listed; next += tokens) {
        // A lane finds the place of one token, and its distance's gradient.
        const int64_t place = (b0 + shared.list[warp][min(next + lane % tokens, listed - 1)]) * a.m + bank;
        const S pull = kGradient ? grad_distances[place] : S(0);
        S token[tokens][kSumSlice];
#pragma unroll
        for (int i = 0; i < tokens; ++i) {
          const S* const from = a.tokens + __shfl_sync(kAllLanes, place, i) * a.d + first;
          if (next + i >= listed) continue;
#pragma unroll
          for (int c = 0; c < kSumSlice; ++c)
            if (c * kWarp < rest) token[i][c] = from[c * kWarp];
        }
#pragma unroll
        for (int i = 0; i < tokens; ++i) {
          const T scale = kGradient ? -2 * __shfl_sync(kAllLanes, T(pull), i) : T(1);
          if (next + i >= listed) continue;
#pragma unroll
          for (int c = 0; c < kSumSlice; ++c)
            if (c * kWarp < rest) sum[c] += kGradient ? scale * (T(token[i][c]) - own[c]) : T(token[i][c]);
        }
      }
    }
    if (once && listed == 0) {  // of many prototypes nearly all: in one go
      for (int64_t i = first; i < end && j < a.k; i += kWarp) sums[row + i] = Out(0);
      break;
    }
    if (j >= a.k) continue;
#pragma unroll
    for (int c = 0; c < kSumSlice; ++c)
      if (c * kWarp < rest) sums[row + first + c * kWarp] = Out(sum[c]);
  }
  if (!kGradient && j < a.k && blockIdx.z == 0 && lane == 0) counts[bank * a.k + j] = Out(count);
  await_previous();  // it has written nothing that is read here; what comes next waits for both
}

template <class S, class Out, bool kGradient>
void launch_sums(bool overlapping, const Banks<S>& a, const int64_t* indices, const S* grad_distances, Out* counts,
                 Out* sums, cudaStream_t stream) {
  const int64_t groups = ceil_div(a.k, kSumPrototypes), d = std::max<int64_t>(1, a.d);
  const int64_t share = share_of(groups * a.m, d, kSumElements);
  launch_as(overlapping, memory_attention_sums_kernel<S, Out, kGradient>, Grid{groups, a.m, ceil_div(d, share)},
            kPairThreads, sizeof(SumsShared), stream, a, share, indices, grad_distances, counts, sums);
}

std::tuple<Tensor, Tensor> prototype_sums_cuda(const Tensor& tokens, const Tensor& indices, int64_t k) {
  check_prototype_sums(tokens, indices);
  const OnDevice device(tokens);
  const auto t = torch::stable::contiguous(tokens), chosen = torch::stable::contiguous(indices);
  const int64_t m = t.size(1), d = t.size(2);
  const auto counts = empty(t, {m, k}, compute_type(t)), sums = empty(t, {m, k, d}, compute_type(t));
  dispatch_storage(t.scalar_type(), "prototype_sums", [&](auto zero) {
    using S = decltype(zero);
    const Banks<S> a = {read<S>(t), nullptr, t.size(0), m, k, d};
    launch_sums<S, Compute<S>, false>(false, a, read<int64_t>(chosen), nullptr, write<Compute<S>>(counts),
                                      write<Compute<S>>(sums), device.stream());
  });
  return {counts, sums};
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kPairThreads, sizeof(SumsShared), memory_attention_sums_kernel<float, float, true>),
    PPL_FAST_KERNEL(kPairThreads, sizeof(SumsShared), memory_attention_sums_kernel<float, float, false>),
};

}  // namespace

template <class S>
void launch_sums_gradient(const Banks<S>& a, const int64_t* indices, const S* grad_distances, S* grad_prototypes,
                          int device, cudaStream_t stream) {
  static CompiledFor compiled(memory_attention_sums_kernel<S, S, true>);
  launch_sums<S, S, true>(may_overlap(compiled, device), a, indices, grad_distances, nullptr, grad_prototypes, stream);
}

#define PPL_FAST_SUMS(S) \
  template void launch_sums_gradient(const Banks<S>&, const int64_t*, const S*, S*, int, cudaStream_t);
PPL_FAST_SUMS(float)
PPL_FAST_SUMS(double)
PPL_FAST_SUMS(c10::Half)
PPL_FAST_SUMS(c10::BFloat16)

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("prototype_sums"), TORCH_BOX(&prototype_sums_cuda));
}

}  // namespace ppl_fast
