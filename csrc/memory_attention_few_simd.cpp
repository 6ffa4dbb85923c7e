// memory_attention on the CPU in hard mode with few prototypes: by products, with the choice that differences make.
//
// As memory_attention_screen_simd.cpp, whose bound it shares, but there are too few prototypes to pay for tokens that
// lie side by side in the lanes: 4 tokens meet kBeside prototypes at a time along d, and the sums of the lanes of as
// many pairs as there are lanes are taken in one tree. Of 16 prototypes in no order one is left; its difference from
// the token is summed while it is copied to the values. The rows of the next four tokens, which lie elsewhere, are on
// their way meanwhile, and those of the values. Where products leave most of the prototypes, as with near ties far from
// the origin, differences take the rest. Not taken: prototypes in the lanes, whose packing takes an eighth of the time.
#include "memory_attention_simd.h"

namespace PPL_NAMESPACE {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kBeside = 4;  // prototypes at a time: 4 x 4 accumulators in 32 registers
#else
constexpr int kBeside = 2;
#endif
constexpr int kTogether = 4;  // tokens

// out[r * kPrototypes + c] = x_r . y_c for kTogether tokens and kBeside prototypes; brings memory closer, a row each.
template <class T>
PPL_HD void dots(const T* x, int64_t stride, const T* y, int64_t d, const T* ahead, const T* values, T* out) {
  constexpr int n = kLanes<T>, all = kTogether * kBeside;
  Vec<T> sum[all] = {};
  int64_t i = 0;
  for (; i + n <= d; i += n) {
    __builtin_prefetch(ahead + i, 0, 2), __builtin_prefetch(values + i, 1, 2);
    Vec<T> p[kBeside];
    for (int c = 0; c < kBeside; ++c) p[c] = load(y + c * d + i);
    for (int r = 0; r < kTogether; ++r) {
      const Vec<T> t = load(x + r * stride + i);
      for (int c = 0; c < kBeside; ++c) sum[r * kBeside + c] = add_product(sum[r * kBeside + c], t, p[c]);
    }
  }
  T total[all];
  for (int j = 0; j < all; j += n) store(total + j, add_lanes_of<T>(sum + j));
  for (int r = 0; r < kTogether; ++r) {
    T* const row = total + r * kBeside;
    for (int64_t j = i; j < d; ++j)
      for (int c = 0; c < kBeside; ++c) row[c] = add_product(row[c], x[r * stride + j], y[c * d + j]);
    __builtin_memcpy(out + r * kPrototypes, row, sizeof(T) * kBeside);
  }
}

template <class T>
struct Prototypes {  // of a bank, at most kPrototypes
  const T* at;
  int64_t count, d;
  T norm[kPrototypes], norm_bound[kPrototypes];

  Prototypes(const T* p, int64_t k, int64_t d) : at(p), count(k), d(d), norm_bound{} {
    for (T& n : norm) n = INFINITY;  // past the last: never the nearest
    for (int64_t c = 0; c < k; ++c) norm[c] = squared_norm(p + c * d, d), norm_bound[c] = bound(norm[c], d);
  }

  // The index of what is nearest to a token, of which its products are known; -1 where a distance is not a number.
  // Adds to `compared` the prototypes that products left, if they are several.
  int64_t nearest(const T* token, const T* product, int64_t& compared) const {
    constexpr int n = kLanes<T>;
    const T token_bound = bound(squared_norm(token, d), d);
    T least[kPrototypes];
    Vec<T> upper = Vec<T>{} + INFINITY;
    for (int64_t c = 0; c < count; c += n) {
      const Vec<T> value = load(norm + c) - 2 * load(product + c), both = token_bound + load(norm_bound + c);
      store(least + c, value - both);
      upper = lower(value + both, upper);
    }
    const T most = minimum<T>(upper);
    uint64_t left = 0;  // in the end those which may be nearest, also where something is not a number
    for (int64_t c = 0; c < count; c += n) left |= uint64_t(lane_bits(~(load(least + c) > most + Vec<T>{}))) << c;
    left &= ~uint64_t(0) >> (kPrototypes - count);
    if ((left & (left - 1)) == 0) return __builtin_ctzll(left);
    compared += __builtin_popcountll(left);
    Best<T> best;
    for (; left && !best.not_a_number; left &= left - 1) {
      const int64_t j = __builtin_ctzll(left);
      T distance;
      pairs<1, 1>(token, 0, at + j * d, d, &distance, SquaredDifference());
      best.meet(&distance, 1, j, T(0));
    }
    return best.not_a_number ? -1 : best.index;
  }
};

// Values and distances of kTogether tokens whose choices are known; sums as `pairs` takes them.
template <class T>
PPL_HD void settle(const T* x, int64_t stride, const T* const* chosen, int64_t d, T* values, T* distance) {
  constexpr int n = kLanes<T>;
  Vec<T> sum[kTogether] = {};
  int64_t i = 0;
  for (; i + n <= d; i += n)
    for (int r = 0; r < kTogether; ++r) {
      const Vec<T> p = load(chosen[r] + i);
      store(values + r * stride + i, p);
      sum[r] = add_squared_difference(sum[r], load(x + r * stride + i), p);
    }
  for (int r = 0; r < kTogether; ++r) {
    distance[r] = add_lanes<T>(sum[r]);
    for (int64_t j = i; j < d; ++j) {
      values[r * stride + j] = chosen[r][j];
      distance[r] = add_squared_difference(distance[r], x[r * stride + j], chosen[r][j]);
    }
  }
}

template <class T>
int64_t choose_few(const Attention<T>& a, const AttentionOut<T>& out, int64_t bank, int64_t b0, int64_t b1) {
  const int64_t stride = a.m * a.d, rows = b1 - b0;
  const T* const tokens = a.tokens + b0 * stride + bank * a.d;
  T* const values = out.values + b0 * stride + bank * a.d;
  const Prototypes<T> prototypes(a.prototypes + bank * a.k * a.d, a.k, a.d);
  T product[kTogether * kPrototypes] = {};
  for (int64_t r = 0; r < rows; r += kTogether) {
    const int64_t first = lesser(r, rows - kTogether);  // the last may overlap
    const int64_t next = lesser(r + kTogether, rows - kTogether);
    const T* const x = tokens + first * stride;
    for (int64_t j = 0, row = 0; j < a.k; j += kBeside, row = (row + 1) % kTogether) {
      const int64_t c = lesser(j, a.k - kBeside);
      dots(x, stride, prototypes.at + c * a.d, a.d, tokens + (next + row) * stride, values + (first + row) * stride,
           product + c);
    }
    int64_t nearest[kTogether];  // -1: as the reference has it, the first, at a distance that is not a number
    const T* chosen[kTogether];
    T distance[kTogether];
    int64_t compared = 0;
    const int64_t at = (b0 + first) * a.m + bank;
    for (int i = 0; i < kTogether; ++i) {
      nearest[i] = prototypes.nearest(x + i * stride, product + i * kPrototypes, compared);
      chosen[i] = prototypes.at + (nearest[i] < 0 ? 0 : nearest[i]) * a.d;
    }
    settle(x, stride, chosen, a.d, values + first * stride, distance);
    for (int i = 0; i < kTogether; ++i) {
      out.indices[at + i * a.m] = nearest[i] < 0 ? 0 : nearest[i];
      out.distances[at + i * a.m] = nearest[i] < 0 ? T(NAN) : distance[i];
    }
    if (compared > kTogether * a.k / 2) return first + kTogether;
  }
  return rows;
}

template int64_t choose_few(const Attention<float>&, const AttentionOut<float>&, int64_t, int64_t, int64_t);
template int64_t choose_few(const Attention<double>&, const AttentionOut<double>&, int64_t, int64_t, int64_t);

}  // namespace PPL_NAMESPACE
