// affine_warp: the maths, once, for the CPU and the CUDA kernels. points = A x + b, theta = [A | b] row by row.
#pragma once

#include "common.h"

namespace PPL_NAMESPACE {

template <class T>
PPL_HD void warp_point(const T* theta, T x, T y, T* point) {
  point[0] = theta[0] * x + theta[1] * y + theta[2];
  point[1] = theta[3] * x + theta[4] * y + theta[5];
}

// grad_theta = g [x y 1], written; grad_x = A^T g, added to grad_keypoint.
template <class T>
PPL_HD void warp_point_backward(const T* theta, T x, T y, T gx, T gy, T* grad_theta, T* grad_keypoint) {
  grad_theta[0] = gx * x, grad_theta[1] = gx * y, grad_theta[2] = gx;
  grad_theta[3] = gy * x, grad_theta[4] = gy * y, grad_theta[5] = gy;
  grad_keypoint[0] += theta[0] * gx + theta[3] * gy;
  grad_keypoint[1] += theta[1] * gx + theta[4] * gy;
}

// The same of number c of theta alone: its gradient, written, and its addend of grad_x (number c % 3), added. Those
// that b has, 2 and 5, have none there that counts.
template <class T>
PPL_HD void warp_number_backward(int c, T theta, T x, T y, T gx, T gy, T& grad_theta, T& grad_keypoint) {
  const T g = c < 3 ? gx : gy;
  grad_theta = c % 3 == 0 ? g * x : c % 3 == 1 ? g * y : g;
  grad_keypoint += theta * g;
}

}  // namespace PPL_NAMESPACE
