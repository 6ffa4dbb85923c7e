// memory_attention on CUDA: hard mode with many prototypes, on tensor cores, with the choice that differences make. A
// block takes 64 tokens of a bank past its share of the prototypes, 128 at a time. With c the bank's first prototype,
// t' = t - c and p' = p - c, products in tf32 (memory_attention_tensor_cuda.cuh) give |p'|^2 - 2 t'.p' to within a
// bound that follows from the norms; the prototypes that may be nearest within it are compared by squared differences
// in float32, a warp a pair: for normal data 2.3 of a share of 256. Where the bound tells nothing (near ties, overflow,
// NaN) that is all: slow, not wrong. B = 64, m = 34, k = 4,096, d = 512 on an H100: 87 us for the bytes, 75 for what is
// issued; an H200 takes 188 (353 on an H100 with one piece on its way, in registers, half of them in waiting for it and
// for differences). Not taken: three tf32 products for float32's accuracy, which cancellation would still spoil.
#include "memory_attention_tensor_cuda.cuh"

namespace ppl_fast {
namespace {

// Lets a token meet those of the prototypes that may be its nearest; the first has the index `first`. A warp a token.
template <class S>
__device__ void compare(ScreenShared& shared, int row, const S* token, const Rows<S>& prototypes, int first,
                        int64_t d) {
  const int lane = threadIdx.x % kWarp;
  const float token_norm = shared.token_norm[row];
  float lower[kScreenStep / kWarp], upper = shared.upper[row];
#pragma unroll
  for (int c = 0; c < kScreenStep / kWarp; ++c) {
    const int j = c * kWarp + lane;
    const float norm = shared.norm[j], error = slack<false>(token_norm + norm, float(d));
    const float score = norm - 2 * shared.product[row][j];
    lower[c] = score - error;
    if (j < prototypes.count) upper = fmin(upper, score + error);
  }
  upper = -lane_max<kWarp>(-upper);
  unsigned left[kScreenStep / kWarp];
#pragma unroll
  for (int c = 0; c < kScreenStep / kWarp; ++c)  // negated, so that what is not a number is compared
    left[c] = __ballot_sync(kAllLanes, c * kWarp + lane < prototypes.count && !(lower[c] > upper));
  Choice<float> best = shared.best[row];
#pragma unroll 1
  for (int from = 0; from < kScreenStep; from += kWarp) {
    for (; left[0]; left[0] &= left[0] - 1) {
      const int j = from + __ffs(left[0]) - 1;
      best.meet(squared_distance(token, prototypes.at + j * int(prototypes.stride), d), first + j);
    }
#pragma unroll
    for (int c = 0; c + 1 < kScreenStep / kWarp; ++c) left[c] = left[c + 1];  // an index would cost registers
  }
  __syncwarp();  // every lane has read them: shuffles and votes order no memory
  if (lane == 0) shared.upper[row] = upper, shared.best[row] = best;
}

template <class S>
__global__ void __launch_bounds__(kPairThreads, 2)
    memory_attention_screen_kernel(Banks<S> a, int64_t share, Choice<float>* partial) {
  auto& shared = shared_memory<ScreenShared>();
  const int begin = int(blockIdx.z * share), end = int(min(begin + share, a.k)), count = BlockTile().count(a);
  for (int r = BlockTile().warp; r < count; r += kWarps) {
    const BlockTile tile;
    const float norm = squared_distance(tile.row(a, a.tokens, r), tile.bank_of(a), a.d);
    if (tile.lane == 0) shared.token_norm[r] = norm, shared.upper[r] = INFINITY, shared.best[r] = {INFINITY, begin};
  }
  for (int first = begin; first < end; first += kScreenStep) {
    const auto prototypes_of = [&](int64_t bank) { return a.prototype_rows(bank, first, end, kScreenStep); };
    {
      const BlockTile tile;
      screen<false>(shared, tile.rows(a, a.tokens), prototypes_of(tile.bank), tile.bank_of(a), a.d);
    }
    const BlockTile tile;
    for (int r = tile.warp; r < count; r += kWarps)
      if (shared.best[r].distance == shared.best[r].distance)  // else it stays
        compare(shared, r, tile.row(a, a.tokens, r), prototypes_of(tile.bank), first, a.d);
  }
  __syncwarp();
  const BlockTile tile;
  for (int r = tile.warp; r < count; r += kWarps)
    if (tile.lane == 0) partial[blockIdx.z * a.b * a.m + tile.at(a, r)] = shared.best[r];
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kPairThreads, sizeof(ScreenShared), memory_attention_screen_kernel<float>),
};

}  // namespace

template <class S>
bool has_tensor_cores(int device) {
  static CompiledFor compiled(memory_attention_screen_kernel<S>);
  return compiled.on(device) >= 80;
}

template <class S>
void launch_screen(const Banks<S>& a, int64_t share, Choice<float>* partial, cudaStream_t stream) {
  launch(memory_attention_screen_kernel<S>, Grid{ceil_div(a.b, kScreenTokens), a.m, ceil_div(a.k, share)}, kPairThreads,
         sizeof(ScreenShared), stream, a, share, partial);
}

#define PPL_FAST_SCREEN(S)                       \
  template bool has_tensor_cores<S>(int device); \
  template void launch_screen(const Banks<S>&, int64_t, Choice<float>*, cudaStream_t);
PPL_FAST_SCREEN(float)
PPL_FAST_SCREEN(c10::Half)
PPL_FAST_SCREEN(c10::BFloat16)

}  // namespace ppl_fast
