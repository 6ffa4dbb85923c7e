// memory_attention on CUDA: what the forward and the backward of soft mode by differences share: a warp's two tokens
// and 16 prototypes. The functions are of whole warps.
#pragma once

#include <type_traits>

#include "memory_attention_cuda.cuh"

namespace ppl_fast {

constexpr int kTokens = 2, kPrototypes = 16;  // that a warp meets at a time: a pair for each lane
static_assert(kTokens * kPrototypes == kWarp);
constexpr int kSoftWarps = 4, kSoftThreads = kSoftWarps * kWarp;
// Blocks on a multiprocessor, for which float32 keeps within 168 registers: B = 64, m = 34 are two or three on each.
template <class T>
constexpr int kSoftBlocks = std::is_same_v<T, float> ? 3 : 2;

// Elements of a row that a lane takes at a time, whose loads travel together: no more than there are registers for.
template <class T>
constexpr int kColumns = 16 / int(sizeof(T));

// Whether tiles are whole, which is not asked again then: a block's eight tokens, 16 prototypes, and all elements that
// a lane takes at a time.
template <class T>
bool are_whole(const Banks<T>& a) {
  return a.b % (kSoftWarps * kTokens) == 0 && a.k % kPrototypes == 0 && a.d % (kColumns<float> * kWarp) == 0;
}

// to[r][c] = element `from` + 32 c of row r, if wanted: 0 past the row's end, and of the last row where there are no
// more.
template <bool kWhole, int R, int C, class T>
__device__ void load(const Rows<T>& rows, int64_t from, int64_t d, T (&to)[R][C], bool wanted = true) {
  const T* at = rows.at + from;
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int c = 0; c < C; ++c) to[r][c] = wanted && (kWhole || from + c * kWarp < d) ? at[c * kWarp] : T(0);
    if (kWhole || r + 1 < rows.count) at += rows.stride;
  }
}

// The sum over all lanes of sums[lane], each of the 32 in the order of lane_sum: of equal rows the sums are equal.
template <int Offset = kWarp / 2, class T>
__device__ T own_sum(T (&sums)[kWarp]) {
  const bool upper = threadIdx.x & Offset;
#pragma unroll
  for (int i = 0; i < Offset; ++i) {
    const T other = __shfl_xor_sync(kAllLanes, upper ? sums[i] : sums[i + Offset], Offset);
    sums[i] = (upper ? sums[i + Offset] : sums[i]) + other;
  }
  if constexpr (Offset > 1)
    return own_sum<Offset / 2>(sums);
  else
    return sums[0];
}

// Of token lane / 16 and prototype lane % 16: the sum over d of pair(x, y), where x are the tokens or their gradients.
template <bool kWhole, class T, class Pair>
__device__ T meet(const Rows<T>& x, const Rows<T>& prototypes, int64_t d, Pair pair) {
  constexpr int columns = kColumns<T>;
  T sums[kWarp] = {};
  for (int64_t from = threadIdx.x % kWarp; from < d; from += columns * kWarp) {
    T of_x[kTokens][columns], prototype[kPrototypes][columns];
    load<kWhole>(x, from, d, of_x), load<kWhole>(prototypes, from, d, prototype);
#pragma unroll
    for (int i = 0; i < kWarp; ++i)
#pragma unroll
      for (int c = 0; c < columns; ++c)
        sums[i] = pair(sums[i], of_x[i / kPrototypes][c], prototype[i % kPrototypes][c]);
  }
  return own_sum(sums);
}

// What the lanes of each token have.
template <class T>
struct OfTokens {
  T at[kTokens];
  __device__ explicit OfTokens(T mine) {
#pragma unroll
    for (int r = 0; r < kTokens; ++r) at[r] = __shfl_sync(kAllLanes, mine, r * kPrototypes);
  }
};

// What all lanes have, as weights of the prototypes for either token.
template <class T>
struct Weights {
  T at[kTokens][kPrototypes];
  __device__ explicit Weights(T mine) {
#pragma unroll
    for (int i = 0; i < kWarp; ++i) at[i / kPrototypes][i % kPrototypes] = __shfl_sync(kAllLanes, mine, i);
  }

  // sums[r][c] += the weighted prototypes' elements `from` + 32 c.
  template <bool kWhole, int C>
  __device__ void add(const Rows<T>& prototypes, int64_t from, int64_t d, T (&sums)[kTokens][C]) const {
    T prototype[kPrototypes][C];
    load<kWhole>(prototypes, from, d, prototype);
#pragma unroll
    for (int j = 0; j < kPrototypes; ++j)
#pragma unroll
      for (int r = 0; r < kTokens; ++r)
#pragma unroll
        for (int c = 0; c < C; ++c) sums[r][c] += at[r][j] * prototype[j][c];
  }
};

template <bool kWhole, int C, class T>
__device__ void store(T* at, int64_t stride, int count, int64_t from, int64_t d, const T (&sums)[kTokens][C]) {
#pragma unroll
  for (int r = 0; r < kTokens; ++r)
#pragma unroll
    for (int c = 0; c < C; ++c)
      if (kWhole || (r < count && from + c * kWarp < d)) at[r * stride + from + c * kWarp] = sums[r][c];
}

__device__ inline int64_t first_token() { return (int64_t(blockIdx.x) * kSoftWarps + threadIdx.x / kWarp) * kTokens; }

template <class T>
Grid token_grid(const Banks<T>& a, int64_t banks) {
  return {ceil_div(a.b, kSoftWarps * kTokens), banks};
}

}  // namespace ppl_fast
