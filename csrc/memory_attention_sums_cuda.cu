// memory_attention on CUDA: sums over the tokens that chose a prototype, for the moving average of a codebook and for
// the gradient of hard mode's distances. A warp has 256 elements of one prototype; it finds its tokens by ballot, 32 at
// a time, and adds them in order, four loads under way: where a codebook has collapsed one warp adds all tokens. B =
// 64, m = 34, k = 16, d = 512: 5.6 MB, 1.3 us at 4.3 TB/s, and 1.1 us by what is issued (benchmarks/cycle_model.py);
// at most 16 rounds of loads, 8 us, for a collapsed bank. Predicted: this has not run on a GPU. Not taken: sorting the
// tokens by prototype (a second launch), atomics (the order varies).
#include "memory_attention_cuda.cuh"

#include "memory_attention_arguments.h"

namespace ppl_fast {
namespace {

constexpr int kSumSlice = 8;   // elements a lane holds of a prototype's sum
constexpr int kSumTokens = 4;  // whose loads travel together: where a codebook has collapsed, one warp adds all tokens

// For each prototype, over the tokens that chose it: their number and sum, or (kGradient) the gradient of the
// distances. A warp has 256 elements of one prototype.
template <class S, class Out, bool kGradient>
__global__ void __launch_bounds__(kPairThreads)
    memory_attention_sums_kernel(Banks<S> a, const int64_t* indices, const S* grad_distances, Out* counts, Out* sums) {
  using T = Compute<S>;
  const int lane = threadIdx.x % kWarp;
  const int64_t j = int64_t(blockIdx.x) * (kPairThreads / kWarp) + threadIdx.x / kWarp, bank = blockIdx.y;
  if (j >= a.k) return;  // a whole warp
  const int64_t first = int64_t(blockIdx.z) * kSumSlice * kWarp + lane, row = (bank * a.k + j) * a.d;
  T sum[kSumSlice] = {}, own[kSumSlice] = {};
  if (kGradient)
    for (int c = 0; c < kSumSlice; ++c)
      if (first + c * kWarp < a.d) own[c] = T(a.prototypes[row + first + c * kWarp]);
  int64_t count = 0;
  for (int64_t b0 = 0; b0 < a.b; b0 += kWarp) {
    const bool chose = b0 + lane < a.b && indices[(b0 + lane) * a.m + bank] == j;
    unsigned left = __ballot_sync(kAllLanes, chose);
    count += __popc(left);
    while (left) {
      S token[kSumTokens][kSumSlice];
      T scale[kSumTokens];
      unsigned next = left;
#pragma unroll
      for (int i = 0; i < kSumTokens; ++i, next &= next - 1) {
        if (!next) continue;
        const int64_t at = (b0 + __ffs(next) - 1) * a.m + bank;
        scale[i] = kGradient ? -2 * T(grad_distances[at]) : T(1);
#pragma unroll
        for (int c = 0; c < kSumSlice; ++c)
          if (first + c * kWarp < a.d) token[i][c] = a.tokens[at * a.d + first + c * kWarp];
      }
#pragma unroll
      for (int i = 0; i < kSumTokens; ++i, left &= left - 1) {
        if (!left) continue;
#pragma unroll
        for (int c = 0; c < kSumSlice; ++c)
          if (first + c * kWarp < a.d) sum[c] += scale[i] * (T(token[i][c]) - own[c]);
      }
    }
  }
  for (int c = 0; c < kSumSlice; ++c)
    if (first + c * kWarp < a.d) sums[row + first + c * kWarp] = Out(sum[c]);
  if (!kGradient && blockIdx.z == 0 && lane == 0) counts[bank * a.k + j] = Out(count);
}

template <class S>
Grid sums_grid(const Banks<S>& a) {
  return {ceil_div(a.k, kPairThreads / kWarp), a.m, std::max<int64_t>(1, ceil_div(a.d, kSumSlice * kWarp))};
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
    launch(memory_attention_sums_kernel<S, Compute<S>, false>, sums_grid(a), kPairThreads, 0, device.stream(), a,
           read<int64_t>(chosen), nullptr, write<Compute<S>>(counts), write<Compute<S>>(sums));
  });
  return {counts, sums};
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kPairThreads, 0, memory_attention_sums_kernel<float, float, true>),
    PPL_FAST_KERNEL(kPairThreads, 0, memory_attention_sums_kernel<float, float, false>),
};

}  // namespace

template <class S>
void launch_sums_gradient(const Banks<S>& a, const int64_t* indices, const S* grad_distances, S* grad_prototypes,
                          cudaStream_t stream) {
  launch(memory_attention_sums_kernel<S, S, true>, sums_grid(a), kPairThreads, 0, stream, a, indices, grad_distances,
         nullptr, grad_prototypes);
}

#define PPL_FAST_SUMS(S) \
  template void launch_sums_gradient(const Banks<S>&, const int64_t*, const S*, S*, cudaStream_t);
PPL_FAST_SUMS(float)
PPL_FAST_SUMS(double)
PPL_FAST_SUMS(c10::Half)
PPL_FAST_SUMS(c10::BFloat16)

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("prototype_sums"), TORCH_BOX(&prototype_sums_cuda));
}

}  // namespace ppl_fast
