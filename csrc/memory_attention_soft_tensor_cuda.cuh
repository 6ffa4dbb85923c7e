// memory_attention on CUDA: what the forward and the backward of soft mode on tensor cores share: which distances are
// taken as differences, and weighted sums of rows.
#pragma once

#include "memory_attention_tensor_cuda.cuh"

namespace ppl_fast {

constexpr int kCombineThreads = 128;

// The next prototypes of a share; numbers of 32 bits, since there are no registers for others.
__device__ inline Rows<float> step_of(const Banks<float>& a, int64_t bank, int first, int end) {
  return {a.prototypes + (bank * a.k + first) * a.d, a.d, min(end - first, kScreenStep)};
}

// x . (y - z), in every lane.
__device__ inline float product_with_difference(const float* x, const float* y, const float* z, int64_t d) {
  return row_sum(d, [](float sum, float a, float b, float c) { return add_product(sum, a, b - c); }, x, y, z);
}

// A squared distance from products, and the least that it can be: exact to float32 but where it cancels.
struct ProductDistance {
  // A distance below this part of |t'|^2 + |p'|^2 has lost more than two bits to cancellation; where |t'|^2 + |p'|^2 is
  // below kHides temperatures (to the base 2), a weight is right all the same.
  static constexpr float kCancels = 0.25f, kHides = 2;

  float norms, value, error;

  __device__ ProductDistance(const ScreenShared& shared, int row, int j, float d)
      : norms(shared.token_norm[row] + shared.norm[j]),
        value(norms - 2 * shared.product[row][j]),
        error(slack<true>(norms, d)) {}

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
// What a warp adds up at a time: of 64 rows of sums 32, from `top` on, and 32 columns, from `from` on. Of each 8 rows a
// lane has two, and of each 32 columns four, side by side: the products take them in any order.
constexpr int kSumColumns = kProductY * kAcross, kNextColumns = kWarps / kWarpsAlong * kSumColumns;
constexpr int kAhead = 32;  // rows from those in use to those called into L2: as many cycles as memory takes
struct WeightedSums {
  const int top, from, d;
  const bool vectors;
  float sums[kAlong][kAcross][4] = {};

  __device__ WeightedSums(int from, int d, bool vectors)
      : top(anew(threadIdx.x) / kWarp % kWarpsAlong * kAlong * kProductX), from(from), d(d), vectors(vectors) {}

  // sums_r += sum_k w_rk (x_k - centre), without `centre` x_k; weights(r, k) are w_rk and w_r(k+1), 0 past the last x.
  // Rows that are in L2 anyhow need not be called there.
  template <bool kCentred, bool kCalled, class Weights>
  __device__ void add(const Rows<float>& x, const float* centre, Weights weights) {
    const int lane = anew(threadIdx.x) % kWarp, group = lane / 4, member = lane % 4, stride = int(x.stride);
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
      if (kCalled) call(x, k + kAhead);
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

  // Rows of `out` become change(r, sums, fetch(r, column)) of four columns. Of 16 rows all is fetched before anything
  // is stored, of which the compiler cannot know that it lies elsewhere.
  template <class Fetch, class Change>
  __device__ void store(float* out, int stride, int count, Fetch fetch, Change change) const {
    const int lane = anew(threadIdx.x) % kWarp, column = from + lane % 4 * 2 * kAcross;
#pragma unroll
    for (int i = 0; i < kAlong; ++i) {
      const int row = top + i * kProductX + lane / 4;
      Four given[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) given[e] = fetch(min(row + e / 2 * kProductY, count - 1), column + e % 2 * kAcross);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int r = row + e / 2 * kProductY, at = column + e % 2 * kAcross;
        Four four;
#pragma unroll
        for (int j = 0; j < kAcross; ++j) four.at[j] = sums[i][j][e];
        if (r < count) store_four(out + unsigned(r * stride + at), at, d, vectors, change(r, four, given[e]));
      }
    }
  }

  // Four columns of a row, 0 where rows have not begun.
  __device__ Four before(const float* rows, int stride, int r, int column, bool begun) const {
    return begun ? load_four(rows + unsigned(r * stride + column), column, d, vectors) : Four{};
  }

 private:
  // Rows k to k + 7 of x, of these columns, are soon needed; past the last, the first ones of the next columns. A lane
  // calls a sector of a row.
  __device__ void call(const Rows<float>& x, int k) const {
    const int lane = anew(threadIdx.x) % kWarp, row = k + lane / 4, sector = from + lane % 4 * 8;
    const bool past = row >= x.count;
    const int at = past ? sector - kNextColumns : sector;
    if (unsigned(at) < unsigned(d)) call_into_l2(x.at + (past ? row % kAhead : row) * int(x.stride) + at);
  }
};

// add(sums) for each 32 columns that are this warp's, the last first: they were read last, and may still be in L2.
template <class Add>
__device__ void for_columns(int64_t d, bool vectors, Add add) {
  const int first = anew(threadIdx.x) / kWarp / kWarpsAlong * kSumColumns;
  if (first >= d) return;
  for (int from = first + (int(d) - 1 - first) / kNextColumns * kNextColumns; from >= 0; from -= kNextColumns) {
    WeightedSums sums(from, int(d), vectors);
    add(sums);
  }
}

}  // namespace ppl_fast
