// memory_attention on the CPU: what its files that are compiled once per instruction set share.
#pragma once

#include "memory_attention.h"
#include "memory_attention_cpu.h"
#include "simd.h"

namespace PPL_NAMESPACE {

// out[r * kPrototypes + c] = sum over d of pair(x_r, y_c), for R x C rows.
template <int R, int C, class T, class Pair>
PPL_HD void pairs(const T* x, int64_t x_stride, const T* y, int64_t d, T* out, Pair pair) {
  constexpr int n = kLanes<T>;
  Vec<T> sum[R][C] = {};
  int64_t i = 0;
  for (; i + n <= d; i += n)
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) sum[r][c] = pair(sum[r][c], load(x + r * x_stride + i), load(y + c * d + i));
  for (int r = 0; r < R; ++r)
    for (int c = 0; c < C; ++c) {
      T total = add_lanes<T>(sum[r][c]);
      for (int64_t j = i; j < d; ++j) total = pair(total, x[r * x_stride + j], y[c * d + j]);
      out[r * kPrototypes + c] = total;
    }
}

struct SquaredDifference {
  template <class V>
  PPL_HD V operator()(V sum, V t, V p) const {
    return add_squared_difference(sum, t, p);
  }
};
struct Product {
  template <class V>
  PPL_HD V operator()(V sum, V g, V p) const {
    return add_product(sum, g, p);
  }
};

template <class T>
PPL_HD T exp2_one(T x) {
  return exp2<T>(Vec<T>{} + x)[0];
}

template <class T>
struct Best {  // the running choice of one token; in soft mode also its softmax
  T distance = INFINITY, sum = 0;
  int64_t index = 0;
  bool not_a_number = false;

  // Returns the factor by which earlier softmax sums shrink, now that the smallest distance may have changed.
  PPL_HD T meet(const T* row, int64_t columns, int64_t first, T sharpness) {
    const T before = distance;
    for (int64_t c = 0; c < columns; ++c) {
      not_a_number = not_a_number || row[c] != row[c];
      if (row[c] < distance) distance = row[c], index = first + c;  // strictly: the lowest index keeps a tie
    }
    return before == distance ? T(1) : exp2_one((distance - before) * sharpness);
  }
};

// How far |p|^2 - 2 t.p and |t - p|^2 - |t|^2, both as computed, may be apart is at most bound(|t|^2) + bound(|p|^2).
// Sums of d terms are off by (d + 1) epsilon / 2 of the terms' sizes at most, and 2 |t.p| <= |t|^2 + |p|^2: so by
// 2 (d + 4) epsilon in all, to which a quarter is added for higher orders, norms too small by rounding, and the
// comparison; what underflows adds less than the last term. Infinite where something might overflow, by the factor 4.
template <class T>
PPL_HD T bound(T norm, int64_t d) {
  const T terms = T(d + 8);
  return norm * 4 * (T(0.625) * terms * Limits<T>::epsilon) + 64 * terms * Limits<T>::tiny;
}

template <class T>
PPL_HD T squared_norm(const T* x, int64_t d) {
  constexpr int n = kLanes<T>, m = 4;
  Vec<T> sum[m] = {};
  int64_t i = 0;
  for (; i + m * n <= d; i += m * n)
    for (int j = 0; j < m; ++j) sum[j] = add_product(sum[j], load(x + i + j * n), load(x + i + j * n));
  T total = add_lanes<T>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; i < d; ++i) total = add_product(total, x[i], x[i]);
  return total;
}

// Hard mode with few prototypes (memory_attention_few_simd.cpp): choices, distances and values of tokens [b0, b1) of a
// bank. At least kFewest of them, and of prototypes, and fewer than kPrototypes. Returns of how many tokens: the first.
template <class T>
int64_t choose_few(const Attention<T>& a, const AttentionOut<T>& out, int64_t bank, int64_t b0, int64_t b1);

// Hard mode with many prototypes (memory_attention_screen_simd.cpp): the choices of tokens [b0, b1) of a bank.
// panel: (d, kTokens), scratch.
template <class T>
void screen(const Attention<T>& a, int64_t bank, int64_t b0, int64_t b1, T* panel, Best<T>* best);

}  // namespace PPL_NAMESPACE
