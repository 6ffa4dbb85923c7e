// memory_attention on the CPU in hard mode with many prototypes: by products, with the choice that differences make.
//
// |p|^2 - 2 t.p costs half of |t - p|^2, but cancels. So it only screens: it lies within a bound, which follows from
// the norms, of what the sum of squared differences gives, and the prototypes that may be nearest within it are
// compared by that sum: of 4,096 that come in no order some five, one for each new least. Where the bound tells nothing
// (near ties far from the origin, overflow, NaN) that is all: slow, not wrong. 64 tokens meet 64 prototypes at a time,
// the next of which are on their way meanwhile; tokens lie side by side in the lanes, so that nothing is summed across
// lanes. Not taken: a BLAS, whose products would go through memory.
#include "memory_attention_simd.h"

namespace PPL_NAMESPACE {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kAcross = 8;  // prototypes at a time: 2 x 8 accumulators in 32 registers
#else
constexpr int kAcross = 4;
#endif

template <class T>
constexpr int kWidth = 2 * kLanes<T>;  // tokens at a time
template <class T>
constexpr int kCalls = (kTokens / kWidth<T>)*(kPrototypes / kAcross);  // of `products`, for a chunk of prototypes

// out[c * kTokens + r] = t_r . p_c for kWidth tokens and kAcross prototypes; brings memory at `ahead` closer.
template <class T>
PPL_HD void products(const T* panel, const T* prototypes, int64_t d, const T* ahead, T* out) {
  constexpr int n = kLanes<T>, line = 64 / int(sizeof(T));
  constexpr int step = kCalls<T> * line / kPrototypes;  // of d, per line brought: in all calls together all lines once
  Vec<T> sum[kAcross][2] = {};
  for (int64_t i = 0; i < d; ++i) {
    if (i % step == 0) __builtin_prefetch(ahead + i / step * line, 0, 2);
    const Vec<T> t0 = load(panel + i * kWidth<T>), t1 = load(panel + i * kWidth<T> + n);
#pragma GCC unroll 8
    for (int c = 0; c < kAcross; ++c) {
      const T p = prototypes[c * d + i];  // spread over the lanes by its load
      sum[c][0] += t0 * p;
      sum[c][1] += t1 * p;
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < kAcross; ++c) {
    store(out + c * kTokens, sum[c][0]);
    store(out + c * kTokens + n, sum[c][1]);
  }
}

// Tokens as `products` takes them, kWidth side by side, 0 past the last; and their bounds.
template <class T>
void pack(const T* tokens, int64_t stride, int64_t rows, int64_t width, int64_t d, T* panel, T* token_bound) {
  for (int64_t r = 0; r < width; ++r) {
    const T* const token = tokens + r * stride;
    T* const to = panel + r / kWidth<T> * (kWidth<T> * d) + r % kWidth<T>;
    for (int64_t i = 0; i < d; ++i) to[i * kWidth<T>] = r < rows ? token[i] : T(0);
    token_bound[r] = r < rows ? bound(squared_norm(token, d), d) : T(0);
  }
}

template <class T>
void screen(const Attention<T>& a, int64_t bank, int64_t b0, int64_t b1, T* panel, Best<T>* best) {
  constexpr int n = kLanes<T>;
  const int64_t stride = a.m * a.d, rows = b1 - b0, width = (rows + kWidth<T> - 1) / kWidth<T> * kWidth<T>;
  const T* const tokens = a.tokens + b0 * stride + bank * a.d;
  T token_bound[kTokens], product[kPrototypes * kTokens], norm[kPrototypes], norm_bound[kPrototypes];
  T upper[kTokens];  // what |t - p|^2 - |t|^2 is known to reach for some prototype
  for (T& u : upper) u = INFINITY;
  pack(tokens, stride, rows, width, a.d, panel, token_bound);
  for (int64_t j = 0; j < a.k; j += kPrototypes) {
    const int64_t first = j + kPrototypes <= a.k ? j : a.k - kPrototypes;  // the last chunk may overlap
    const T* const chunk = a.prototypes + (bank * a.k + first) * a.d;
    const T* ahead = j + 2 * kPrototypes <= a.k ? chunk + kPrototypes * a.d : chunk;
    for (int c = 0; c < kPrototypes; c += kAcross)
      for (int64_t r = 0; r < width; r += kWidth<T>, ahead += kPrototypes * a.d / kCalls<T>)
        products(panel + r * a.d, chunk + c * a.d, a.d, ahead, product + c * kTokens + r);
    for (int c = 0; c < kPrototypes; ++c) {
      norm[c] = squared_norm(chunk + c * a.d, a.d), norm_bound[c] = bound(norm[c], a.d);
      for (int64_t r = 0; r < width; r += n) {
        const Vec<T> value = norm[c] - 2 * load(product + c * kTokens + r);
        store(product + c * kTokens + r, value);
        store(upper + r, lower(value + (load(token_bound + r) + norm_bound[c]), load(upper + r)));
      }
    }
    for (int c = 0; c < kPrototypes; ++c)
      for (int64_t r = 0; r < width; r += n) {
        const Vec<T> least = load(product + c * kTokens + r) - (load(token_bound + r) + norm_bound[c]);
        for (uint32_t bits = lane_bits(~(least > load(upper + r))); bits; bits &= bits - 1) {  // also if not a number
          const int64_t at = r + __builtin_ctz(bits);
          if (at >= rows || best[at].not_a_number) continue;
          T distance;
          pairs<1, 1>(tokens + at * stride, stride, chunk + c * a.d, a.d, &distance, SquaredDifference());
          best[at].meet(&distance, 1, first + c, T(0));
        }
      }
  }
}

template void screen(const Attention<float>&, int64_t, int64_t, int64_t, float*, Best<float>*);
template void screen(const Attention<double>&, int64_t, int64_t, int64_t, double*, Best<double>*);

}  // namespace PPL_NAMESPACE
