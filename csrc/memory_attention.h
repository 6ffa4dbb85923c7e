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

// Soft mode: P_j = 2^((D_n - D_j) sharpness) / total with n the nearest, sharpness = log2(e) / temperature. For an
// upstream gradient g let h_j = g . p_j - g . p_n and q = sum P_j h_j; then
//   grad_t = 2 (sum P_j h_j p_j - q values) / temperature,   grad_p_j = P_j g + 2 s_j (t - p_j),
//   s_j = P_j (h_j - q) / temperature.
// A low temperature magnifies what rounding leaves. So everything is taken relative to the nearest prototype, from sums
// in one order: the differences of what is equal are 0, and in the limit the nearest is chosen, with the gradient g.
template <class V, class S>
PPL_HD V softmax_slope(V weight, V g_dot_p, S g_dot_nearest, S q, S inverse_temperature) {
  return weight * (g_dot_p - g_dot_nearest - q) * inverse_temperature;
}

template <class T>
struct Softmax {
  T sharpness, inverse_temperature;
};

// From the smallest normal number to its inverse: a temperature that T cannot hold, or whose inverse it cannot, is as
// good as one of these, which take the nearest wherever distances differ, and the mean.
template <class T>
Softmax<T> make_softmax(double temperature) {
  const double tiny = std::exp2(double(Limits<T>::log2_tiny)), t = std::fmin(std::fmax(temperature, tiny), 1 / tiny);
  return {T(kLog2e / t), T(1 / t)};
}

}  // namespace PPL_NAMESPACE
