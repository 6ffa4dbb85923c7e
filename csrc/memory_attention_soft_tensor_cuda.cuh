// memory_attention on CUDA: what the forward and the backward of soft mode on tensor cores share: which distances are
// taken as differences, and weighted sums of rows.
#pragma once

#include "memory_attention_tensor_cuda.cuh"

namespace ppl_fast {

// A squared distance from products, and the least that it can be: exact to float32 but where it cancels.
struct ProductDistance {
  // A distance below this part of |t'|^2 + |p'|^2 has lost more than two bits to cancellation; where |t'|^2 + |p'|^2 is
  // below kHides temperatures (to the base 2), a weight is right all the same.
  static constexpr float kCancels = 0.25f, kHides = 2;

  float norms, value, error;

  __device__ ProductDistance(const ScreenShared& shared, int row, int j, float d)
      : norms(shared.token_norm[row] + shared.norm[j]),
        value(norms - 2 * shared.product[row][j]),
        error(slack<true>(shared.token_norm[row], shared.norm[j], d)) {}

  // Whether differences must be summed instead, where the least distance is known to be `least` or less: where this may
  // be the least, and where it cancels, unless its weight vanishes (is 2^-vanishes of the largest) or the temperature
  // hides the error. What is not a number must.
  __device__ bool is_vague(float least, float sharpness, float vanishes) const {
    const float lower = value - error;
    return !(lower > least &&
             (value > norms * kCancels || norms * sharpness < kHides || (lower - least) * sharpness > vanishes));
  }
};

using Four = Pack<float, kAcross>;  // neighbouring columns of a row
// a + b times `times`.
__device__ inline Four add(const Four& a, const Four& b, float times = 1) {
  Four sum;
#pragma unroll
  for (int e = 0; e < kAcross; ++e) sum.at[e] = a.at[e] + b.at[e] * times;
  return sum;
}
// Those from `at` on, the first of which is `column`; 0 past d; in one load where rows are aligned (`vectors`).
__device__ inline Four load_four(const float* at, int column, int d, bool vectors) {
  Four four = {};
  if (vectors) {
    if (column < d) four = *reinterpret_cast<const Four*>(at);
  } else {
#pragma unroll
    for (int e = 0; e < kAcross; ++e)
      if (column + e < d) four.at[e] = at[e];
  }
  return four;
}
__device__ inline void store_four(float* at, int column, int d, bool vectors, const Four& four) {
  if (vectors) {
    if (column < d) *reinterpret_cast<Four*>(at) = four;
  } else {
#pragma unroll
    for (int e = 0; e < kAcross; ++e)
      if (column + e < d) at[e] = four.at[e];
  }
}
template <class... Pointers>
__device__ bool come_in_fours(int64_t d, const Pointers*... rows) {
  return d % kAcross == 0 && (uintptr_t(rows) | ...) % sizeof(Four) == 0;
}

// What a warp adds up at a time: of 64 rows of sums 32, from `top` on, and 32 columns, from `from` on. Of each 8 rows a
// lane has two, and of each 32 columns four, side by side: the products take them in any order.
constexpr int kSumColumns = kProductY * kAcross;
struct WeightedSums {
  const int top, from, d;
  const bool vectors;
  float sums[kAlong][kAcross][4] = {};

  __device__ WeightedSums(int from, int d, bool vectors)
      : top(threadIdx.x / kWarp % kWarpsAlong * kAlong * kProductX), from(from), d(d), vectors(vectors) {}

  // sums_r += sum_k w_rk (x_k - centre), without `centre` x_k; weights(r, k) are w_rk and w_r(k+1), 0 past the last x.
  template <bool kCentred, class Weights>
  __device__ void add(const Rows<float>& x, const float* centre, Weights weights) {
    const int lane = threadIdx.x % kWarp, group = lane / 4, member = lane % 4, stride = int(x.stride);
    const int column = from + group * kAcross;
    const Four origin = kCentred ? load_four(centre + column, column, d, vectors) : Four{};
    const auto load = [&](int k) {
      return load_four(x.at + (min(k, x.count - 1) * stride + column), column, d, vectors);
    };
    Four next[2] = {load(2 * member), load(2 * member + 1)};
    for (int k = 0; k < x.count; k += kProductY) {
      const Four y[2] = {next[0], next[1]};
      if (k + kProductY < x.count)
        next[0] = load(k + kProductY + 2 * member), next[1] = load(k + kProductY + 2 * member + 1);
      Split left[kAlong][1][4];
#pragma unroll
      for (int i = 0; i < kAlong * 2; ++i) {
        const Pack<float, 2> w = weights(top + i / 2 * kProductX + i % 2 * kProductY + group, k + 2 * member);
        left[i / 2][0][i % 2] = Split(w.at[0]), left[i / 2][0][i % 2 + 2] = Split(w.at[1]);
      }
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        const auto relative = [&](float value) { return kCentred ? value - origin.at[j] : value; };
        const Split right[1][2] = {{Split(relative(y[0].at[j])), Split(relative(y[1].at[j]))}};
#pragma unroll
        for (int i = 0; i < kAlong; ++i) add_split_products(sums[i][j], left[i], right);
      }
    }
  }

  // Rows of `out` become change(r, column, sums, before) of four columns, `before` 0 where it has not begun.
  template <class Change>
  __device__ void store(float* out, int stride, int count, bool begun, Change change) const {
    const int lane = threadIdx.x % kWarp, group = lane / 4, member = lane % 4;
#pragma unroll
    for (int i = 0; i < kAlong * 2; ++i) {
      const int r = top + i / 2 * kProductX + i % 2 * kProductY + group;
      if (r >= count) continue;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int column = from + (2 * member + half) * kAcross;
        float* const at = out + (int64_t(r) * stride + column);
        Four four;
#pragma unroll
        for (int j = 0; j < kAcross; ++j) four.at[j] = sums[i / 2][j][i % 2 * 2 + half];
        four = change(r, column, four, begun ? load_four(at, column, d, vectors) : Four{});
        store_four(at, column, d, vectors, four);
      }
    }
  }
};

// add(sums) for each 32 columns that are this warp's.
template <class Add>
__device__ void for_columns(int64_t d, bool vectors, Add add) {
  for (int from = int(threadIdx.x) / kWarp / kWarpsAlong * kSumColumns; from < d;
       from += kWarps / kWarpsAlong * kSumColumns) {
    WeightedSums sums(from, int(d), vectors);
    add(sums);
  }
}

}  // namespace ppl_fast
