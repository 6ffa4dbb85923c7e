// memory_attention on CUDA: soft mode, values = softmax(-distance^2 / temperature) prototypes, by differences; what
// pays on tensor cores is memory_attention_soft_tensor_cuda.cu's. A warp takes two tokens of a bank past its
// prototypes, 16 at a time, without shared memory or a barrier: each lane sums all 32 pairs over its columns of d, then
// lanes exchange sums until each has one pair, for an online softmax, and add the weighted prototypes, in L1 by now, to
// their columns. The values so far wait in the output itself, where there are more than 16 prototypes. B = 64, m = 34,
// k = 16, d = 512: 10 MB, 2.1 us on an H200, 3.4 by what is issued (benchmarks/cycle_model.py); it takes 9.3 (an H100
// 24.7 when 16 tokens a block met in shared memory, eight warps a multiprocessor). Not taken: four tokens a warp, half
// the loads from L1 but one warp a scheduler.
#include "memory_attention_soft_cuda.cuh"

namespace ppl_fast {
namespace {

template <class T, bool kWhole>
__global__ void __launch_bounds__(kSoftThreads, kSoftBlocks<T>)
    memory_attention_soft_fwd_kernel(Banks<T> a, Softmax<T> softmax, SoftOut<T> out) {
  constexpr int columns = kColumns<T>;
  const int lane = threadIdx.x % kWarp, r = lane / kPrototypes, j = lane % kPrototypes;
  const int64_t b0 = first_token(), bank = blockIdx.y;
  if (b0 >= a.b) return;  // a whole warp
  const Rows<T> tokens = a.token_rows(a.tokens, bank, b0, kTokens);
  T* const values = out.values + (b0 * a.m + bank) * a.d;
  const Rows<T> before = {values, tokens.stride, tokens.count};
  Choice<T> best = {T(INFINITY), 0};
  // The same in all 16 lanes of a token. Relative to a finite number, a distance that overflows has the weight 0.
  T least = Limits<T>::largest, total = 0;
  for (int64_t first = 0; first < a.k; first += kPrototypes) {
    const Rows<T> prototypes = a.prototype_rows(bank, first, a.k, kPrototypes);
    const T distance = meet<kWhole>(tokens, prototypes, a.d, SquaredDifference());
    const bool real = j < prototypes.count, last = first + kPrototypes >= a.k;
    if (real) best.meet(distance, int(first) + j);
    const T nearest = -lane_max<kPrototypes>(-(real ? fmin(least, distance) : least));
    T shrink = power_of_two((nearest - least) * softmax.sharpness);
    T weight = real ? power_of_two((nearest - distance) * softmax.sharpness) : T(0);
    least = nearest, total = total * shrink + lane_sum<kPrototypes>(weight);
    if (last) shrink /= total, weight /= total;
    const OfTokens<T> shrinks(shrink);
    const Weights<T> weights(weight);
    for (int64_t from = lane; from < a.d; from += columns * kWarp) {
      T sums[kTokens][columns];
      load<kWhole>(before, from, a.d, sums, first > 0);
#pragma unroll
      for (int i = 0; i < kTokens * columns; ++i) sums[i / columns][i % columns] *= shrinks.at[i / columns];
      weights.template add<kWhole>(prototypes, from, a.d, sums);
      store<kWhole>(values, tokens.stride, tokens.count, from, a.d, sums);
    }
  }
  best = lane_choice<kPrototypes>(best);
  if (j != 0 || r >= tokens.count) return;
  const int64_t at = (b0 + r) * a.m + bank;
  out.indices[at] = best.nearest(), out.distances[at] = best.distance;
  out.least[at] = least, out.total[at] = total;
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kSoftThreads, 0, memory_attention_soft_fwd_kernel<float, true>),
    PPL_FAST_KERNEL(kSoftThreads, 0, memory_attention_soft_fwd_kernel<float, false>),
};

}  // namespace

// Whether tensor cores are taken to: in float32, as which half types come, with more than 16 tokens a bank, 256
// prototypes or more, and rows of tokens that lie no further apart than a tile's offsets allow, where the code that is
// loaded has their products. Differences take the rest. A backward goes the way of its forward, whose sums it relies
// on.
bool pays_on_tensor_cores(const Banks<float>& a, int device) {
  return a.b > 16 && a.k >= 2 * kScreenStep && a.m * a.d <= kMostScreenStride && has_tensor_cores<float>(device);
}

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
    launch(are_whole(a) ? memory_attention_soft_fwd_kernel<T, true> : memory_attention_soft_fwd_kernel<T, false>,
           token_grid(a, a.m), kSoftThreads, 0, stream, a, make_softmax<T>(temperature), out);
  });
}

}  // namespace ppl_fast
