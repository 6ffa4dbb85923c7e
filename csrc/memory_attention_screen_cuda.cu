// memory_attention on CUDA: hard mode with many prototypes, on tensor cores, with the choice that differences make. A
// block takes 64 tokens of a bank past its share of the prototypes, 128 at a time. With c the bank's first prototype,
// t' = t - c and p' = p - c, products in tf32 (memory_attention_tensor_cuda.cuh) give |p'|^2 - 2 t'.p' to within a
// bound that follows from the norms; the prototypes that may be nearest within it are compared by squared differences
// in float32, a warp a pair: for normal data 4.3 of a share of 1,024. Where the bound tells nothing (near ties,
// overflow, NaN) that is all: slow, not wrong. B = 64, m = 34, k = 16,384, d = 512: the prototypes are read once, 1.1
// GB = 0.27 ms on an H200 (4.3 TB/s); 37 GFLOP in tf32, 0.15 ms at 250 TFLOP/s; 6,300 instructions (sm_90) for a warp's
// part of 128 prototypes, 0.3 ms at two thirds of the full rate: some 0.35 ms, where differences alone take 1.1.
// Predicted: this has not run on a GPU. Not taken: copies that pass the registers by (c is subtracted on the way, or 56
// operations more a piece), three tf32 products for float32's accuracy, which cancellation would still spoil.
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
    const float norm = shared.norm[j], error = slack<false>(token_norm, norm, float(d));
    const float score = norm - 2 * shared.product[row][j];
    lower[c] = score - error;
    if (j < prototypes.count) upper = fmin(upper, score + error);
  }
  upper = -lane_max<kWarp>(-upper);
  Choice<float> best = shared.best[row];
#pragma unroll
  for (int c = 0; c < kScreenStep / kWarp; ++c) {
    // Negated, so that what is not a number is compared.
    unsigned left = __ballot_sync(kAllLanes, c * kWarp + lane < prototypes.count && !(lower[c] > upper));
    for (; left; left &= left - 1) {
      const int j = c * kWarp + __ffs(left) - 1;
      best.meet(squared_distance(token, prototypes.at + j * prototypes.stride, d), first + j);
    }
  }
  __syncwarp();  // every lane has read them: shuffles and votes order no memory
  if (lane == 0) shared.upper[row] = upper, shared.best[row] = best;
}

template <class S>
__global__ void __launch_bounds__(kPairThreads, 2)
    memory_attention_screen_kernel(Banks<S> a, int64_t share, Choice<float>* partial) {
  auto& shared = shared_memory<ScreenShared>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t b0 = int64_t(blockIdx.x) * kScreenTokens, bank = blockIdx.y;
  const int64_t begin = blockIdx.z * share, end = min(begin + share, a.k);
  const Rows<S> tokens = a.token_rows(a.tokens, bank, b0, kScreenTokens);
  const S* const centre = a.prototypes + bank * a.k * a.d;
  for (int r = warp; r < tokens.count; r += kWarps) {
    const float norm = squared_distance(tokens.at + r * tokens.stride, centre, a.d);
    if (lane == 0) shared.token_norm[r] = norm, shared.upper[r] = INFINITY, shared.best[r] = {INFINITY, int(begin)};
  }
  for (int64_t first = begin; first < end; first += kScreenStep) {
    const Rows<S> prototypes = a.prototype_rows(bank, first, end, kScreenStep);
    screen<false>(shared, tokens, prototypes, centre, a.d);
    for (int r = warp; r < tokens.count; r += kWarps)
      if (shared.best[r].distance == shared.best[r].distance)  // else it stays
        compare(shared, r, tokens.at + r * tokens.stride, prototypes, int(first), a.d);
  }
  __syncwarp();
  for (int r = warp; r < tokens.count; r += kWarps)
    if (lane == 0) partial[(blockIdx.z * a.b + b0 + r) * a.m + bank] = shared.best[r];
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
