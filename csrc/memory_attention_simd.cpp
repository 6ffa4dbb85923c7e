// memory_attention on the CPU, compiled once per instruction set.
//
// A job takes 64 tokens of a bank past all its prototypes, 64 at a time, so that both stay in the cache; 4 x 2 pairs at
// a time share their loads (8 accumulators in registers). Hard mode keeps a running minimum, of those alone that
// memory_attention_few_simd.cpp and, with many prototypes, memory_attention_screen_simd.cpp find worth a look; soft
// mode an online softmax whose sums are rescaled when a nearer prototype turns up: nothing of size B x m x k exists,
// whatever k. The backward recomputes distances the same way, once by tokens and once by prototypes, so that both
// gradients are summed in order. Not taken: the matrix-product form of the distance alone (see memory_attention.h).
#include "memory_attention_simd.h"

namespace PPL_NAMESPACE {

// All pairs of `rows` x and `columns` y. Each result is summed in the same order wherever its pair falls, so that
// equal prototypes are equally far.
template <class T, class Pair>
void all_pairs(const T* x, int64_t x_stride, int64_t rows, const T* y, int64_t columns, int64_t d, T* out, Pair pair) {
  for (int64_t r = 0; r < rows;) {
    const bool four = rows - r >= 4;
    for (int64_t c = 0; c < columns;) {
      const bool two = columns - c >= 2;
      const T *const xr = x + r * x_stride, *const yc = y + c * d;
      T* const to = out + r * kPrototypes + c;
      if (four && two)
        pairs<4, 2>(xr, x_stride, yc, d, to, pair);
      else if (four)
        pairs<4, 1>(xr, x_stride, yc, d, to, pair);
      else if (two)
        pairs<1, 2>(xr, x_stride, yc, d, to, pair);
      else
        pairs<1, 1>(xr, x_stride, yc, d, to, pair);
      c += two ? 2 : 1;
    }
    r += four ? 4 : 1;
  }
}

template <class T>
PPL_HD void scale(T* x, T factor, int64_t d) {
  for (int64_t i = 0; i < d; ++i) x[i] *= factor;
}

template <class T>
PPL_HD void add_scaled(T* to, T factor, const T* from, int64_t d) {
  for (int64_t i = 0; i < d; ++i) to[i] += factor * from[i];
}

template <class T>
PPL_HD T dot(const T* x, const T* y, int64_t d) {
  T result[kPrototypes];
  pairs<1, 1>(x, 0, y, d, result, Product());
  return result[0];
}

// weight[c] = 2^((least - distance[c]) sharpness), for all columns.
template <class T>
PPL_HD void softmax_weights(const T* distance, int64_t columns, T least, T sharpness, T* weight) {
  for (int64_t c = 0; c < columns; c += kLanes<T>) store(weight + c, exp2<T>((least - load(distance + c)) * sharpness));
}

template <class T>
bool forward(const Attention<T>& a, const AttentionOut<T>& out, int64_t bank, int64_t b0, int64_t b1, T* panel) {
  const bool few = !a.soft && a.k < kPrototypes && lesser(b1 - b0, a.k) >= kFewest && a.d <= kMostScreened;
  if (few) b0 += choose_few(a, out, bank, b0, b1);
  if (b0 == b1) return few;
  const int64_t stride = a.m * a.d, rows = b1 - b0;
  const T* const tokens = a.tokens + b0 * stride + bank * a.d;
  const T* const prototypes = a.prototypes + bank * a.k * a.d;
  T* const values = out.values + b0 * stride + bank * a.d;
  T row[kTokens * kPrototypes] = {}, weight[kPrototypes];
  Best<T> best[kTokens];
  if (a.soft)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < a.d; ++i) values[r * stride + i] = 0;

  const bool screened = panel && rows > kLanes<T>;
  if (screened) screen(a, bank, b0, b1, panel, best);
  for (int64_t j = 0; j < a.k && !screened; j += kPrototypes) {
    const int64_t columns = a.k - j < kPrototypes ? a.k - j : kPrototypes;
    all_pairs(tokens, stride, rows, prototypes + j * a.d, columns, a.d, row, SquaredDifference());
    for (int64_t r = 0; r < rows; ++r) {
      const T* const distance = row + r * kPrototypes;
      const T shrink = best[r].meet(distance, columns, j, a.sharpness);
      if (!a.soft) continue;
      if (shrink != 1) scale(values + r * stride, shrink, a.d), best[r].sum *= shrink;
      const T least = best[r].distance < Limits<T>::largest ? best[r].distance : Limits<T>::largest;  // not infinity
      softmax_weights(distance, columns, least, a.sharpness, weight);
      for (int64_t c = 0; c < columns; ++c) {
        best[r].sum += weight[c];
        add_scaled(values + r * stride, weight[c], prototypes + (j + c) * a.d, a.d);
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = (b0 + r) * a.m + bank;
    const T least = best[r].distance;
    if (best[r].not_a_number) best[r].index = 0, best[r].distance = NAN;  // as the reference has it
    out.indices[at] = best[r].index;
    out.distances[at] = best[r].distance;
    if (a.soft) {
      scale(values + r * stride, 1 / best[r].sum, a.d);
      out.least[at] = least, out.total[at] = best[r].sum;
    } else {
      __builtin_memcpy(values + r * stride, prototypes + best[r].index * a.d, a.d * sizeof(T));
    }
  }
  return screened || few;
}

// weight[c] = P of one token and the prototypes of a row of distances.
template <class T>
PPL_HD void probabilities(const Attention<T>& a, const AttentionGrad<T>& g, int64_t at, const T* distance,
                          int64_t columns, T* weight) {
  softmax_weights(distance, columns, g.least[at], a.sharpness, weight);
  scale(weight, 1 / g.total[at], columns);
}

// Both gradients of hard mode for a whole bank, in one pass; those of the prototypes are zero on entry.
template <class T>
void backward_hard(const Attention<T>& a, const AttentionGrad<T>& g, int64_t bank) {
  const int64_t stride = a.m * a.d;
  constexpr int n = kLanes<T>;
  const T* const prototypes = a.prototypes + bank * a.k * a.d;
  T* const grad_prototypes = g.grad_prototypes + bank * a.k * a.d;
  for (int64_t b = 0; b < a.b; ++b) {
    const int64_t at = b * a.m + bank, row = at * a.d, nearest = g.indices[at] * a.d;
    const T slope = 2 * g.grad_distances[at];
    const T *const token = a.tokens + row, *const up = g.grad_values + row, *const prototype = prototypes + nearest;
    T *const to = g.grad_tokens + row, *const grad = grad_prototypes + nearest;
    const int64_t ahead = b + 1 < a.b ? stride : 0;  // the next row of this bank, which lies elsewhere
    int64_t i = 0;
    for (; i + n <= a.d; i += n) {
      __builtin_prefetch(token + ahead + i), __builtin_prefetch(up + ahead + i), __builtin_prefetch(to + ahead + i, 1);
      const Vec<T> along = slope * (load(token + i) - load(prototype + i));
      store(to + i, along + load(up + i));
      store(grad + i, load(grad + i) - along);
    }
    for (; i < a.d; ++i) {
      const T along = slope * (token[i] - prototype[i]);
      to[i] = along + up[i];
      grad[i] -= along;
    }
  }
}

template <class T>
void backward_tokens(const Attention<T>& a, const AttentionGrad<T>& g, int64_t bank, int64_t b0, int64_t b1) {
  const int64_t stride = a.m * a.d, rows = b1 - b0, first = b0 * stride + bank * a.d;
  const T* const prototypes = a.prototypes + bank * a.k * a.d;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = (b0 + r) * a.m + bank, row = first + r * stride;
    const T slope = 2 * g.grad_distances[at];
    const T *const token = a.tokens + row, *const nearest = prototypes + g.indices[at] * a.d;
    for (int64_t i = 0; i < a.d; ++i)
      g.grad_tokens[row + i] = slope * (token[i] - nearest[i]) + (a.soft ? T(0) : g.grad_values[row + i]);
    if (a.soft) g.g_dot_nearest[at] = dot(g.grad_values + row, nearest, a.d), g.q[at] = 0;
  }
  if (!a.soft) return;
  T distance[kTokens * kPrototypes] = {}, g_dot_p[kTokens * kPrototypes], weight[kPrototypes];
  const T pull = 2 * a.inverse_temperature;
  for (int64_t j = 0; j < a.k; j += kPrototypes) {
    const int64_t columns = a.k - j < kPrototypes ? a.k - j : kPrototypes;
    const T* const chunk = prototypes + j * a.d;
    all_pairs(a.tokens + first, stride, rows, chunk, columns, a.d, distance, SquaredDifference());
    all_pairs(g.grad_values + first, stride, rows, chunk, columns, a.d, g_dot_p, Product());
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = (b0 + r) * a.m + bank;
      probabilities(a, g, at, distance + r * kPrototypes, columns, weight);
      for (int64_t c = 0; c < columns; ++c) {
        const T share = weight[c] * (g_dot_p[r * kPrototypes + c] - g.g_dot_nearest[at]);
        g.q[at] += share;
        add_scaled(g.grad_tokens + first + r * stride, pull * share, chunk + c * a.d, a.d);
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r)
    add_scaled(g.grad_tokens + first + r * stride, -pull * g.q[(b0 + r) * a.m + bank], g.values + first + r * stride,
               a.d);
}

template <class T>
void backward_prototypes(const Attention<T>& a, const AttentionGrad<T>& g, int64_t bank, int64_t j0, int64_t j1) {
  const int64_t stride = a.m * a.d, columns = j1 - j0;
  const T* const chunk = a.prototypes + (bank * a.k + j0) * a.d;
  T* const grad = g.grad_prototypes + (bank * a.k + j0) * a.d;
  __builtin_memset(grad, 0, columns * a.d * sizeof(T));
  if (!a.soft && columns == a.k) return backward_hard(a, g, bank);
  T distance[kTokens * kPrototypes] = {}, g_dot_p[kTokens * kPrototypes], weight[kPrototypes];
  for (int64_t b0 = 0; b0 < a.b; b0 += kTokens) {
    const int64_t rows = a.b - b0 < kTokens ? a.b - b0 : kTokens, first = b0 * stride + bank * a.d;
    if (a.soft) {
      all_pairs(a.tokens + first, stride, rows, chunk, columns, a.d, distance, SquaredDifference());
      all_pairs(g.grad_values + first, stride, rows, chunk, columns, a.d, g_dot_p, Product());
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = (b0 + r) * a.m + bank, nearest = g.indices[at] - j0;
      const T *const token = a.tokens + first + r * stride, *const up = g.grad_values + first + r * stride;
      if (nearest >= 0 && nearest < columns) {
        const T pull = 2 * g.grad_distances[at];
        for (int64_t i = 0; i < a.d; ++i) grad[nearest * a.d + i] -= pull * (token[i] - chunk[nearest * a.d + i]);
      }
      if (!a.soft) continue;
      probabilities(a, g, at, distance + r * kPrototypes, columns, weight);
      for (int64_t c = 0; c < columns; ++c) {
        const T slope = 2 * softmax_slope(weight[c], g_dot_p[r * kPrototypes + c], g.g_dot_nearest[at], g.q[at],
                                          a.inverse_temperature);
        for (int64_t i = 0; i < a.d; ++i)
          grad[c * a.d + i] += weight[c] * up[i] + slope * (token[i] - chunk[c * a.d + i]);
      }
    }
  }
}

template <class T>
void prototype_sums(const Attention<T>& a, const int64_t* indices, int64_t bank, T* counts, T* sums) {
  for (int64_t b = 0; b < a.b; ++b) {
    const int64_t chosen = bank * a.k + indices[b * a.m + bank];
    counts[chosen] += 1;
    add_scaled(sums + chosen * a.d, T(1), a.tokens + (b * a.m + bank) * a.d, a.d);
  }
}

template <class T>
AttentionKernels<T> memory_attention_kernels() {
  return {forward<T>, backward_tokens<T>, backward_prototypes<T>, prototype_sums<T>};
}

template AttentionKernels<float> memory_attention_kernels();
template AttentionKernels<double> memory_attention_kernels();

}  // namespace PPL_NAMESPACE
