// memory_attention on CUDA: hard mode with many prototypes, on tensor cores, with the choice that differences make. A
// block takes 64 tokens of a bank past its share of the prototypes, 128 at a time. With c the bank's first prototype,
// t' = t - c and p' = p - c, products in tf32 give |p'|^2 - 2 t'.p' to within a bound that follows from the norms; the
// prototypes that may be nearest within it are compared by squared differences in float32, a warp a pair: for normal
// data 4.3 of a share of 1,024. Where the bound tells nothing (near ties, overflow, NaN) that is all: slow, not wrong.
// B = 64, m = 34, k = 16,384, d = 512: the prototypes are read once, 1.1 GB = 0.27 ms on an H200 (4.3 TB/s); 37 GFLOP
// in tf32, 0.15 ms at 250 TFLOP/s; 6,200 instructions (sm_90) for a warp's part of 128 prototypes, 0.3 ms at two thirds
// of the full rate: some 0.4 ms by what does not overlap, where differences alone take 1.1. Predicted: this has not run
// on a GPU. Not taken: three tf32 products for float32's accuracy, which cancellation would still spoil.
#include "memory_attention_cuda.cuh"

#include <atomic>

namespace ppl_fast {
namespace {

constexpr int kWarps = kPairThreads / kWarp;
constexpr int kDepth = 16;                     // elements at a time: a thread has one, of
constexpr int kLoads = kPairThreads / kDepth;  // so many rows at once
constexpr int kRowsX = kScreenTokens / kLoads, kRowsY = kScreenStep / kLoads;
constexpr int kProductX = 16, kProductY = 8;                        // sides of a product
constexpr int kAlong = kScreenTokens / kProductX;                   // warps along the tokens
constexpr int kAcross = kScreenStep / kProductY * kAlong / kWarps;  // products of a warp: 16 tokens and 64 prototypes

struct alignas(16) ScreenShared {
  union {
    float row[kScreenTokens + kScreenStep][kDepth];  // t' and p', in tf32
    float product[kScreenTokens][kScreenStep + 8];   // t'.p'
  };
  float norm[kScreenStep];  // |p'|^2
  // Of each token: |t'|^2, the least that |p'|^2 - 2 t'.p' is known to reach, and the nearest prototype so far.
  float token_norm[kScreenTokens], upper[kScreenTokens];
  Choice<float> best[kScreenTokens];
};

// What tensor cores take: a significand of 11 bits, the rest cut off.
__device__ inline float truncate_to_tf32(float x) { return __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

// How far |p'|^2 - 2 t'.p' may be off. Each factor is too small by a share of up to 2^-10: by Cauchy-Schwarz 2^-9 |t'|
// |p'| for the product. Sums of d terms in float32, those of the comparison included, and the subtraction of c add less
// than (2 d + 16) 2^-23 of |t'|^2 + |p'|^2.
__device__ inline float slack(float token_norm, float norm, float d) {
  return 0x1.02p-8f * sqrtf(token_norm) * sqrtf(norm) + 0x1p-22f * (d + 8) * (token_norm + norm) + 1e-30f;
}

// |x - y|^2, in every lane; the order of the sum is that of the elements, the same for every pair.
template <class S>
__device__ float squared_distance(const S* x, const S* y, int64_t d) {
  float sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x % kWarp; i < d; i += kWarp) sum = add_squared_difference(sum, float(x[i]), float(y[i]));
  return lane_sum<kWarp>(sum);
}

// product[r][j] = t'_r . p'_j and norm[j] = |p'_j|^2; of no meaning past the last row.
template <class S>
__device__ void screen(ScreenShared& shared, const Rows<S>& tokens, const Rows<S>& prototypes, const S* centre,
                       int64_t d) {
  const int column = threadIdx.x % kDepth, row = threadIdx.x / kDepth, warp = threadIdx.x / kWarp;
  // Of its warp's products a thread has rows `left` and left + 8, columns `right` and right + 1, see mma_tf32.
  const int group = threadIdx.x % kWarp / 4, member = threadIdx.x % 4;
  const int left = warp % kAlong * kProductX + group, right = warp / kAlong * kAcross * kProductY;
  int offset[kRowsX + kRowsY];  // kMostScreenStride: they fit; rows past the last repeat it
#pragma unroll
  for (int i = 0; i < kRowsX; ++i) offset[i] = min(row + i * kLoads, tokens.count - 1) * int(tokens.stride) + column;
#pragma unroll
  for (int i = 0; i < kRowsY; ++i) offset[kRowsX + i] = min(row + i * kLoads, prototypes.count - 1) * int(d) + column;
  S next[kRowsX + kRowsY], next_centre;
  const S *x = tokens.at, *y = prototypes.at, *c = centre + column;
  const auto fetch = [&](bool inside) {
    next_centre = inside ? *c : S(0);
#pragma unroll
    for (int i = 0; i < kRowsX + kRowsY; ++i) next[i] = inside ? (i < kRowsX ? x : y)[unsigned(offset[i])] : S(0);
    x += kDepth, y += kDepth, c += kDepth;
  };
  float products[kAcross][4] = {};
  float squares[kRowsY] = {};
  fetch(column < d);
  for (int64_t from = 0; from < d; from += kDepth) {
    __syncthreads();  // the piece before, or the products before, were in use
#pragma unroll
    for (int i = 0; i < kRowsX + kRowsY; ++i) {
      const float value = float(next[i]) - float(next_centre);
      shared.row[row + i * kLoads][column] = truncate_to_tf32(value);
      if (i >= kRowsX) squares[i - kRowsX] += value * value;
    }
    __syncthreads();
    if (from + kDepth < d) fetch(from + kDepth + column < d);
    // A lane has four neighbouring elements of a row, as two steps of two: the sum takes them in any order.
    const auto four = [&](int r) { return *reinterpret_cast<const Pack<float, 4>*>(&shared.row[r][4 * member]); };
    const Pack<float, 4> upper = four(left), lower = four(left + 8);
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
      const Pack<float, 4> right_row = four(kScreenTokens + right + j * kProductY + group);
#pragma unroll
      for (int k = 0; k < 4; k += 2)
        mma_tf32(products[j], {upper.at[k], lower.at[k], upper.at[k + 1], lower.at[k + 1]},
                 {right_row.at[k], right_row.at[k + 1]});
    }
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kAcross; ++j)
    for (int i = 0; i < 4; ++i)
      shared.product[left + i / 2 * 8][right + j * kProductY + 2 * member + i % 2] = products[j][i];
#pragma unroll
  for (int i = 0; i < kRowsY; ++i) {
    const float square = lane_sum<kDepth>(squares[i]);
    if (column == 0) shared.norm[row + i * kLoads] = square;
  }
  __syncthreads();
}

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
    const float norm = shared.norm[j], error = slack(token_norm, norm, float(d));
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
    screen(shared, tokens, prototypes, centre, a.d);
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
  enum : signed char { kUnknown, kNo, kYes };
  static std::atomic<signed char> known[64];  // by device; further ones are asked each time
  std::atomic<signed char>* const answer = device >= 0 && device < 64 ? &known[device] : nullptr;
  if (answer && *answer != kUnknown) return *answer == kYes;
  cudaFuncAttributes attributes;
  STD_CUDA_CHECK(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(memory_attention_screen_kernel<S>)));
  const bool has = attributes.ptxVersion >= 80;
  if (answer) *answer = has ? kYes : kNo;
  return has;
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
