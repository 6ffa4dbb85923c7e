// bilinear_upsample2x: the maths, once, for the CPU and the CUDA kernels, along one axis. Cell i of n has the outputs
// 2 i and 2 i + 1, with half-pixel centres.
#pragma once

#include "common.h"

namespace PPL_NAMESPACE {

// What surrounds cell i. Where none is before it, the one after it has no weight; like torch's, a product with one that
// is not finite is not a number.
template <class T>
struct Around {
  int64_t before, after;
  T far, near;  // weights of the cell before and of the cell in its even output
};

template <class T>
PPL_HD Around<T> around(int64_t i, int64_t n) {
  const int64_t after = i + 1 < n ? i + 1 : i;
  return i > 0 ? Around<T>{i - 1, after, T(0.25), T(0.75)} : Around<T>{after, after, T(0), T(1)};
}

template <class T, class V>
PPL_HD V even_output(const Around<T>& a, V before, V here) {
  return a.far * before + a.near * here;
}

template <class T, class V>
PPL_HD V odd_output(const Around<T>&, V here, V after) {
  return T(0.75) * here + T(0.25) * after;
}

// The outputs first, 2 i, 2 i + 1 and last, of which cell i gathers its gradient; one without weight is an output that
// has a weight as well.
template <class T>
struct Taps {
  int64_t first, last;
  T weight[4];
};

template <class T>
PPL_HD Taps<T> taps(int64_t i, int64_t n) {
  const T quarter(0.25), rest(0.75), one(1), none(0);
  const bool before = i > 0, after = i + 1 < n;
  return {before ? 2 * i - 1 : 0,
          after ? 2 * i + 2 : 2 * i + 1,
          {before ? quarter : none, before ? rest : one, after ? rest : one, after ? quarter : none}};
}

template <class T, class V>
PPL_HD V gathered(const Taps<T>& t, V first, V even, V odd, V last) {
  return t.weight[0] * first + t.weight[1] * even + t.weight[2] * odd + t.weight[3] * last;
}

}  // namespace PPL_NAMESPACE
