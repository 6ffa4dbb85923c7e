// memory_attention on CUDA: products of a tile of tokens and one of prototypes on tensor cores, for the nearest
// (memory_attention_screen_cuda.cu) and for the soft mode (memory_attention_soft_tensor_cuda.cu). With c the bank's
// first prototype, t' = t - c and p' = p - c: t'.p' and |p'|^2.
#pragma once

#include "memory_attention_cuda.cuh"

#include <type_traits>

namespace ppl_fast {

constexpr int kWarps = kPairThreads / kWarp;
constexpr int kDepth = 16, kVector = 4;                  // elements at a time, and of one load
constexpr int kLoads = kPairThreads * kVector / kDepth;  // rows that the block loads at once: all tokens
static_assert(kLoads == kScreenTokens);
constexpr int kPieces = 3;                    // one in use, the others on their way
constexpr int kProductX = 16, kProductY = 8;  // sides of a product
// Products of a warp, 32 tokens and 32 prototypes: of all shapes the one that reads the least of shared memory.
constexpr int kAlong = 2, kAcross = 4, kWarpsAlong = kScreenTokens / (kProductX * kAlong);
static_assert(kWarpsAlong * kScreenStep / (kProductY * kAcross) == kWarps);

template <class S>
struct Piece {
  S token[kScreenTokens][kDepth], prototype[kScreenStep][kDepth], centre[kDepth];  // rows, one after the other
};

constexpr int kProductStride = kScreenStep + 8;
struct alignas(16) ScreenShared {
  union {
    Piece<float> piece[kPieces];                   // or of a half type
    float product[kScreenTokens][kProductStride];  // t'.p'
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

// How far |p'|^2 - 2 t'.p' may be off, by the sum of both norms. Each factor is too small by a share of up to 2^-10: by
// Cauchy-Schwarz 2^-9 |t'| |p'| for the product, and 2 |t'| |p'| is no more than the norms' sum; of split factors,
// 2^-23 each and 2^-22 for small times small: 2^-21. Sums of d terms in float32, those of the comparison included, and
// the subtraction of c add less than (2 d + 16) 2^-23 of the norms.
template <bool kSplit>
__device__ float slack(float norms, float d) {
  return ((kSplit ? 0x1.02p-21f : 0x1.02p-9f) + 0x1p-22f * (d + 8)) * norms + 1e-30f;
}

// Whether rows of d elements can be loaded four at a time.
template <class... S>
__device__ bool come_in_fours(int64_t d, const S*... rows) {
  return d % kVector == 0 && ((uintptr_t(rows) % sizeof(Pack<S, kVector>) == 0) && ...);
}

// A sum over the elements of rows, in every lane: of each, sum = add(sum, elements). The order is the same for all
// rows; where they are aligned, a lane has eight elements of each on their way: for more there are no registers.
template <class Add, class... S>
__device__ float row_sum(int64_t d, Add add, const S*... rows) {
  float sums[kVector] = {};
  const int first = threadIdx.x % kWarp * kVector, step = kWarp * kVector;
  if (come_in_fours(d, rows...)) {
    const auto meet = [&](Pack<S, kVector>... fours) {  // copies: of references each element is loaded alone
#pragma unroll
      for (int e = 0; e < kVector; ++e) sums[e] = add(sums[e], float(fours.at[e])...);
    };
#pragma unroll 2
    for (int i = first; i < int(d); i += step) meet(*reinterpret_cast<const Pack<S, kVector>*>(rows + i)...);
  } else {
#pragma unroll 1
    for (int i = first; i < int(d); i += step)
#pragma unroll
      for (int e = 0; e < kVector; ++e)
        if (i + e < d) sums[e] = add(sums[e], float(rows[i + e])...);
  }
  return lane_sum<kWarp>((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// |x - y|^2, in every lane.
template <class S>
__device__ float squared_distance(const S* x, const S* y, int64_t d) {
  return row_sum(d, [](float sum, float a, float b) { return add_squared_difference(sum, a, b); }, x, y);
}

// Which 64 tokens of which bank a block takes, and where in it a thread is. Found anew where it is asked for: what
// follows from it, kept over all steps, would cost registers that the products need.
struct BlockTile {
  const int64_t b0 = int64_t(anew(blockIdx.x)) * kScreenTokens, bank = anew(blockIdx.y);
  const int thread = anew(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;

  template <class S>
  __device__ Rows<S> rows(const Banks<S>& a, const S* tensor) const {  // of a (b, m, d) tensor
    return a.token_rows(tensor, bank, b0, kScreenTokens);
  }
  template <class S>
  __device__ int count(const Banks<S>& a) const {
    return rows(a, a.tokens).count;
  }
  template <class S>
  __device__ int64_t at(const Banks<S>& a, int r) const {
    return (b0 + r) * a.m + bank;
  }  // in a (b, m) tensor
  template <class S>
  __device__ const S* row(const Banks<S>& a, const S* tensor, int r) const {
    return tensor + at(a, r) * a.d;
  }
  template <class S>
  __device__ const S* bank_of(const Banks<S>& a) const {
    return a.prototypes + bank * a.k * a.d;
  }
};

// Pieces of rows on their way to shared memory, past the registers: a thread has four elements of a token, of two
// prototypes and, one in 64, of the centre.
template <class S>
class Loader {
 public:
  __device__ Loader(const Rows<S>& tokens, const Rows<S>& prototypes, const S* centre, int64_t d)
      : d(int(d)), centre_(centre + column()) {
    const int row = anew(threadIdx.x) * kVector / kDepth;
    for (int i = 0; i < kRows; ++i) {
      const Rows<S>& rows = i == 0 ? tokens : prototypes;  // past the last they repeat it
      row_[i] = rows.at + min(row + max(0, i - 1) * kLoads, rows.count - 1) * rows.stride + column();
    }
    vectors_ = d % kDepth == 0 && come_in_fours(d, tokens.at, prototypes.at, centre);
  }

  // The next kDepth elements, from `from` on, 0 past the last, if there are any: in vectors where pieces are whole and
  // rows aligned, else one by one. Each call is one group of copies.
  __device__ void load(int from, Piece<S>& piece) {
    if (from < d && vectors_) {
      for_all(piece, [](S* to, const S* at) {
        start_copy(reinterpret_cast<Pack<S, kVector>*>(to), reinterpret_cast<const Pack<S, kVector>*>(at));
      });
    } else if (from < d) {
#pragma unroll 1
      for (int e = 0; e < kVector; ++e)
        for_all(piece, [&](S* to, const S* at) { to[e] = from + column() + e < d ? at[e] : S(0); });
    }
    for (int i = 0; i < kRows; ++i) row_[i] += kDepth;
    centre_ += kDepth;
    end_copies();
  }

  const int d;

 private:
  static constexpr int kRows = (kScreenTokens + kScreenStep) / kLoads;

  __device__ static int column() { return anew(threadIdx.x) * kVector % kDepth; }
  template <class Copy>
  __device__ void for_all(Piece<S>& piece, Copy copy) const {
    const int at = anew(threadIdx.x) * kVector;
    S* const first = &piece.token[0][0] + at;
#pragma unroll
    for (int i = 0; i < kRows; ++i) copy(first + i * kLoads * kDepth, row_[i]);
    if (at < kDepth) copy(first + kRows * kLoads * kDepth, centre_);
  }

  const S *row_[kRows], *centre_;
  bool vectors_;
};

// Four neighbours of a row as factors: less the centre's, in tf32 or to be split.
template <bool kSplit>
struct Factors {
  std::conditional_t<kSplit, Split, float> at[kVector];

  __device__ Factors() {}
  // Adds the square of the four to `square`, if it is wanted.
  template <class S>
  __device__ Factors(const S* row, const Pack<S, kVector>& centre, bool centred, float& square, bool wanted) {
    const auto four = *reinterpret_cast<const Pack<S, kVector>*>(row);
#pragma unroll
    for (int e = 0; e < kVector; ++e) {
      const float value = centred ? float(four.at[e]) - float(centre.at[e]) : float(four.at[e]);
      if (wanted) square += value * value;
      if constexpr (kSplit)
        at[e] = Split(value);
      else
        at[e] = truncate_to_tf32(value);
    }
  }
};

// sums += the products of two tokens 8 apart and a prototype, in two steps of two elements a lane: whatever the order
// in which mma_tf32 takes a row's elements, it is that of both sides.
template <bool kSplit>
__device__ void add_products(float (&sums)[4], const Factors<kSplit> (&x)[2], const Factors<kSplit>& y) {
  if constexpr (kSplit) {
    Split a[2][4], b[2][2];
#pragma unroll
    for (int i = 0; i < 8; ++i) a[i / 4][i % 4] = x[i % 2].at[i / 2];
#pragma unroll
    for (int i = 0; i < 4; ++i) b[i / 2][i % 2] = y.at[i];
    add_split_products(sums, a, b);
  } else {
#pragma unroll
    for (int k = 0; k < kVector; k += 2)
      mma_tf32(sums, {x[0].at[k], x[1].at[k], x[0].at[k + 1], x[1].at[k + 1]}, {y.at[k], y.at[k + 1]});
  }
}

// Where a lane's first factors lie in a piece: rows of tokens and of prototypes, and the column.
struct Place {
  int group, member, left, right;
  int along;  // which of the warps with these prototypes: it adds up the squares of as large a part of them

  __device__ explicit Place(int thread) : group(thread % kWarp / 4), member(thread % 4) {
    const int warp = thread / kWarp;
    left = warp % kWarpsAlong * kAlong * kProductX + group, right = warp / kWarpsAlong * kAcross * kProductY + group;
    along = warp % kWarpsAlong;
  }
};

// product[r][j] = t'_r . p'_j and norm[j] = |p'_j|^2; of no meaning past the last row. From factors in tf32, or
// (kSplit) as float32 would have it; or (without kCentred) of the rows t themselves.
template <bool kSplit, bool kCentred = true, class S>
__device__ void screen(ScreenShared& shared, const Rows<S>& tokens, const Rows<S>& prototypes, const S* centre,
                       int64_t d) {
  Loader<S> loader(tokens, prototypes, centre, d);
  auto* const pieces = reinterpret_cast<Piece<S>*>(shared.piece);
  const Place place(anew(threadIdx.x));
  const int column = place.member * kVector;
  float products[kAlong][kAcross][4] = {}, squares[kAcross / kWarpsAlong] = {}, none = 0;
  __syncthreads();  // the products before were in use
#pragma unroll 1
  for (int i = 0; i + 1 < kPieces; ++i) loader.load(i * kDepth, pieces[i]);
  for (int from = 0, use = 0; from < loader.d; from += kDepth, use = use + 1 == kPieces ? 0 : use + 1) {
    await_copies<kPieces - 2>();
    __syncthreads();  // all have come, and nobody reads the piece before
    loader.load(from + (kPieces - 1) * kDepth, pieces[use == 0 ? kPieces - 1 : use - 1]);
    const auto& piece = pieces[use];
    const auto origin = *reinterpret_cast<const Pack<S, kVector>*>(&piece.centre[column]);
    Factors<kSplit> x[kAlong][2];
#pragma unroll
    for (int i = 0; i < kAlong * 2; ++i)
      x[i / 2][i % 2] =
          Factors<kSplit>(&piece.token[place.left + i * kProductY][column], origin, kCentred, none, false);
#pragma unroll
    for (int j = 0; j < kAcross; ++j) {
      const Factors<kSplit> y(&piece.prototype[place.right + j * kProductY][column], origin, true,
                              squares[j / kWarpsAlong], j % kWarpsAlong == place.along);
#pragma unroll
      for (int i = 0; i < kAlong; ++i) add_products(products[i][j], x[i], y);
    }
  }
  __syncthreads();
  const Place at(anew(threadIdx.x));  // the same
  float* const out = &shared.product[at.left][at.right - at.group + 2 * at.member];
#pragma unroll
  for (int i = 0; i < kAlong; ++i)
    for (int j = 0; j < kAcross; ++j)
      for (int e = 0; e < 4; ++e)
        out[(i * kProductX + e / 2 * kProductY) * kProductStride + j * kProductY + e % 2] = products[i][j][e];
#pragma unroll
  for (int j = 0; j < kAcross / kWarpsAlong; ++j) {
    const float square = lane_sum<kDepth / kVector>(squares[j]);
    if (at.member == 0) shared.norm[at.right + (j * kWarpsAlong + at.along) * kProductY] = square;
  }
  __syncthreads();
}

}  // namespace ppl_fast
