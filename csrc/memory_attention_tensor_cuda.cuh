// memory_attention on CUDA: products of a tile of tokens and one of prototypes on tensor cores, for the nearest
// (memory_attention_screen_cuda.cu) and for the soft mode (memory_attention_soft_tensor_cuda.cu). With c the bank's
// first prototype, t' = t - c and p' = p - c: t'.p' and |p'|^2.
#pragma once

#include "memory_attention_cuda.cuh"

#include <type_traits>

namespace ppl_fast {

constexpr int kWarps = kPairThreads / kWarp;
constexpr int kDepth = 16, kVector = 4;                  // elements at a time, and of one load
constexpr int kLoads = kPairThreads * kVector / kDepth;  // rows of prototypes that the block loads at once
constexpr int kRowsY = kScreenStep / kLoads;
constexpr int kProductX = 16, kProductY = 8;  // sides of a product
// Products of a warp, 32 tokens and 32 prototypes: of all shapes the one that reads the least of shared memory.
constexpr int kAlong = 2, kAcross = 4, kWarpsAlong = kScreenTokens / (kProductX * kAlong);
static_assert(kWarpsAlong * kScreenStep / (kProductY * kAcross) == kWarps);

struct alignas(16) ScreenShared {
  struct Piece {  // t' and p'
    // Of each product, 2 x 4 of them, what each lane has of the tokens, side by side: see mma_tf32.
    Pack<float, 4> tokens[kPairThreads];
    float prototypes[kScreenStep][kDepth];
  };
  union {
    Piece piece[2];                                 // in use, and on its way
    float product[kScreenTokens][kScreenStep + 8];  // t'.p'
  };
  float norm[kScreenStep];  // |p'|^2
  // Of each token: |t'|^2, the least that |p'|^2 - 2 t'.p' is known to reach, and the nearest prototype so far.
  float token_norm[kScreenTokens], upper[kScreenTokens];
  Choice<float> best[kScreenTokens];
};

// What tensor cores take: a significand of 11 bits, the rest cut off.
__device__ inline float truncate_to_tf32(float x) { return __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

// The same, rounded. Numbers within 2^-12 of infinity become infinite.
__device__ inline float round_to_tf32(float x) {
  return truncate_to_tf32(__uint_as_float(__float_as_uint(x) + 0x1000u));
}

// A number as the sum of two in tf32, the first rounded, so that the second is up to 2^-11 of it and loses its last bit
// alone, 2^-23 of the number. What rounds to infinity becomes NaN.
struct Split {
  float big, small;
  // No intrinsics here: nvcc's host compiler, which knows none, reads a constructor's initializers.
  __device__ explicit Split(float x = 0) : big(round_to_tf32(x)), small(truncate_to_tf32(x - big)) {}
};

// sums += A B as float32 would have it, from K pairs of factors: without small times small, and added in float32, since
// tensor cores cut off what a sum does not hold instead of rounding it.
template <int K>
__device__ void add_split_products(float (&sums)[4], const Split (&a)[K][4], const Split (&b)[K][2]) {
  float part[4] = {};
#pragma unroll
  for (int k = 0; k < K; ++k) {
    mma_tf32(part, {a[k][0].small, a[k][1].small, a[k][2].small, a[k][3].small}, {b[k][0].big, b[k][1].big});
    mma_tf32(part, {a[k][0].big, a[k][1].big, a[k][2].big, a[k][3].big}, {b[k][0].small, b[k][1].small});
  }
#pragma unroll
  for (int k = 0; k < K; ++k)
    mma_tf32(part, {a[k][0].big, a[k][1].big, a[k][2].big, a[k][3].big}, {b[k][0].big, b[k][1].big});
#pragma unroll
  for (int i = 0; i < 4; ++i) sums[i] += part[i];
}

// How far |p'|^2 - 2 t'.p' may be off. Each factor is too small by a share of up to 2^-10: by Cauchy-Schwarz 2^-9 |t'|
// |p'| for the product; of split factors, 2^-23 each and 2^-22 for small times small: 2^-21. Sums of d terms in
// float32, those of the comparison included, and the subtraction of c add less than (2 d + 16) 2^-23 of |t'|^2 +
// |p'|^2.
template <bool kSplit>
__device__ float slack(float token_norm, float norm, float d) {
  return (kSplit ? 0x1.02p-20f : 0x1.02p-8f) * sqrtf(token_norm) * sqrtf(norm) +
         0x1p-22f * (d + 8) * (token_norm + norm) + 1e-30f;
}

// |x - y|^2, in every lane; the order of the sum is that of the elements, the same for every pair.
template <class S>
__device__ float squared_distance(const S* x, const S* y, int64_t d) {
  float sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x % kWarp; i < d; i += kWarp) sum = add_squared_difference(sum, float(x[i]), float(y[i]));
  return lane_sum<kWarp>(sum);
}

// What a thread loads of a piece: two elements of two tokens 8 apart, and four of kRowsY prototypes 64 apart.
template <class S>
struct Part {
  Pack<S, 2> token[2], pair_centre;
  Pack<S, kVector> prototype[kRowsY], centre;
};

template <class S>
class Loader {
 public:
  __device__ Loader(const Rows<S>& tokens, const Rows<S>& prototypes, const S* centre, int64_t d)
      : d(int(d)), tokens_(tokens.at), prototypes_(prototypes.at), centre_(centre) {
    // As a lane has them in product `first`: its rows g and g + 8, and of its four elements the first or last two.
    const int thread = threadIdx.x, g = thread / 4 % kProductY, first = thread / kWarp % (kScreenTokens / kProductX);
    column_ = thread * kVector % kDepth, pair_ = thread % 4 * kVector + thread / (kPairThreads / 2) * 2;
    // kMostScreenStride: they fit. Rows past the last repeat it.
    for (int i = 0; i < 2; ++i)
      token_[i] = min(first * kProductX + g + i * kProductY, tokens.count - 1) * int(tokens.stride) + pair_;
    for (int i = 0; i < kRowsY; ++i)
      prototype_[i] = min(thread * kVector / kDepth + i * kLoads, prototypes.count - 1) * int(d) + column_;
    vectors_ = d % kDepth == 0 && (uintptr_t(tokens_) | uintptr_t(centre)) % sizeof(Pack<S, kVector>) == 0;
  }

  // The next kDepth elements of the rows, which begin at `from`, 0 past the last: in vectors where pieces are whole and
  // rows aligned, else one by one.
  __device__ void load(int from, Part<S>& part) {
    if (vectors_) {
      for_all(part, [&](auto& pack, const S* base, int at, int) {
        pack = *reinterpret_cast<const std::decay_t<decltype(pack)>*>(base + unsigned(at));
      });
    } else {
#pragma unroll 1
      for (int e = 0; e < kVector; ++e)
        for_all(part, [&](auto& pack, const S* base, int at, int column) {
          // Shifted, not indexed: an array that is indexed by a variable is not kept in registers. A pair takes its
          // elements in the last two of the four steps.
          constexpr int n = sizeof(pack) / sizeof(S);
          const int i = e - (kVector - n);
          for (int j = 0; j + 1 < n; ++j) pack.at[j] = pack.at[j + 1];
          pack.at[n - 1] = i >= 0 && from + column + i < d ? base[at + i] : S(0);
        });
    }
    tokens_ += kDepth, prototypes_ += kDepth, centre_ += kDepth;
  }

  const int d;

 private:
  // get(pack, base, offset of its first element from there, its column)
  template <class Get>
  __device__ void for_all(Part<S>& part, Get get) const {
    get(part.pair_centre, centre_, pair_, pair_), get(part.centre, centre_, column_, column_);
#pragma unroll
    for (int i = 0; i < 2; ++i) get(part.token[i], tokens_, token_[i], pair_);
#pragma unroll
    for (int i = 0; i < kRowsY; ++i) get(part.prototype[i], prototypes_, prototype_[i], column_);
  }

  const S *tokens_, *prototypes_, *centre_;
  int column_, pair_, token_[2], prototype_[kRowsY];
  bool vectors_;
};

// product[r][j] = t'_r . p'_j and norm[j] = |p'_j|^2; of no meaning past the last row. From factors in tf32, or
// (kSplit) as float32 would have it; or (without kCentred) of the rows t themselves.
template <bool kSplit, bool kCentred = true, class S>
__device__ void screen(ScreenShared& shared, const Rows<S>& tokens, const Rows<S>& prototypes, const S* centre,
                       int64_t d) {
  Loader<S> loader(tokens, prototypes, centre, d);
  const int thread = threadIdx.x, row = thread * kVector / kDepth, column = thread * kVector % kDepth;
  const int lane = thread % kWarp, group = lane / 4, member = lane % 4, warp = thread / kWarp;
  const int left = warp % kWarpsAlong * kAlong, right = warp / kWarpsAlong * kAcross * kProductY;
  Part<S> next;
  float products[kAlong][kAcross][4] = {}, squares[kRowsY] = {};
  __syncthreads();  // the products before were in use
  for (int from = -kDepth, use = 1; from < loader.d; from += kDepth, use ^= 1) {
    const bool more = from + kDepth < loader.d;
    if (more) loader.load(from + kDepth, next);
    if (from >= 0) {
      // A lane has four neighbouring elements of a row, as two steps of two: the sum takes them in any order.
      const auto& piece = shared.piece[use];
      Pack<float, 4> x[2][kAlong];
#pragma unroll
      for (int k = 0; k < 2; ++k)
        for (int i = 0; i < kAlong; ++i) x[k][i] = piece.tokens[k * (kPairThreads / 2) + (left + i) * kWarp + lane];
#pragma unroll
      for (int j = 0; j < kAcross; ++j) {
        const auto y =
            *reinterpret_cast<const Pack<float, 4>*>(&piece.prototypes[right + j * kProductY + group][4 * member]);
        if constexpr (kSplit) {
          const Split right[2][2] = {{Split(y.at[0]), Split(y.at[1])}, {Split(y.at[2]), Split(y.at[3])}};
#pragma unroll
          for (int i = 0; i < kAlong; ++i) {
            Split left[2][4];
#pragma unroll
            for (int e = 0; e < 8; ++e) left[e / 4][e % 4] = Split(x[e / 4][i].at[e % 4]);
            add_split_products(products[i][j], left, right);
          }
        } else {
#pragma unroll
          for (int k = 0; k < 2; ++k)
            for (int i = 0; i < kAlong; ++i) mma_tf32(products[i][j], x[k][i].at, {y.at[2 * k], y.at[2 * k + 1]});
        }
      }
    }
    if (!more) break;
    auto& piece = shared.piece[use ^ 1];  // nobody has read it since the barrier before
    const auto relative = [](S x, S c) { return float(x) - float(c); };
    const auto factor = [](float x) { return kSplit ? x : truncate_to_tf32(x); };
    Pack<float, 4> four;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const S value = next.token[i % 2].at[i / 2];
      four.at[i] = factor(kCentred ? relative(value, next.pair_centre.at[i / 2]) : float(value));
    }
    piece.tokens[thread] = four;
#pragma unroll
    for (int i = 0; i < kRowsY; ++i) {
#pragma unroll
      for (int e = 0; e < kVector; ++e) {
        const float value = relative(next.prototype[i].at[e], next.centre.at[e]);
        four.at[e] = factor(value), squares[i] += value * value;
      }
      *reinterpret_cast<Pack<float, 4>*>(&piece.prototypes[row + i * kLoads][column]) = four;
    }
    __syncthreads();
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kAlong * kAcross * 4; ++i) {
    const int r = (left + i / 4 / kAcross) * kProductX + group + i / 2 % 2 * 8;
    shared.product[r][right + i / 4 % kAcross * kProductY + 2 * member + i % 2] =
        products[i / 4 / kAcross][i / 4 % kAcross][i % 4];
  }
#pragma unroll
  for (int i = 0; i < kRowsY; ++i) {
    const float square = lane_sum<kDepth / kVector>(squares[i]);
    if (column == 0) shared.norm[row + i * kLoads] = square;
  }
  __syncthreads();
}

}  // namespace ppl_fast
