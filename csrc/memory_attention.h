// memory_attention: the maths, once, for the CPU and the CUDA kernels. V is a scalar or a vector.
//
// Distances are sums of squared differences. |t|^2 - 2 t.p + |p|^2 would be one matrix product, but it cancels: with
// tokens near their prototypes, float32 would choose among rounding errors.
#pragma once

#include "common.h"

namespace PPL_NAMESPACE {

constexpr double kLog2e = 1.4426950408889634;

template <class V>
PPL_HD V add_squared_difference(V sum, V t, V p) {
  const V difference = t - p;
  return sum + difference * difference;
}

template <class V>
PPL_HD V add_product(V sum, V g, V p) {
  return sum + g * p;
}

// Soft mode: P = softmax(-D / temperature). For an upstream gradient g, s = P (g . p - g . values) / temperature
// gives grad_t = 2 sum s p (since sum s = 0) and grad_p = P g + 2 s (t - p).
template <class V, class S>
PPL_HD V softmax_gradient(V weight, V g_dot_p, S g_dot_values, S inverse_temperature) {
  return weight * (g_dot_p - g_dot_values) * inverse_temperature;
}

}  // namespace PPL_NAMESPACE
