// What the CPU and the CUDA kernels share: one macro, scalar helpers that have vector twins in simd.h, limits.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__) || defined(PPL_FAST_EMULATE_CUDA)
#define PPL_HD __host__ __device__ __forceinline__
#else
#define PPL_HD inline __attribute__((always_inline))
#endif

// A file that is compiled once per instruction set keeps everything it instantiates in a namespace of its own (simd.h).
#ifdef PPL_SIMD
#define PPL_NAMESPACE ppl_fast::PPL_SIMD
#else
#define PPL_NAMESPACE ppl_fast
#endif

namespace PPL_NAMESPACE {

// float and double only: half types are converted on loading, sums are never taken in them.
template <class T>
struct Limits;

template <>
struct Limits<float> {
  static constexpr float epsilon = 1.1920929e-7f;
  static constexpr float log2_tiny = -126.0f;     // log2 of the smallest normal number
  static constexpr float tiny = 1.17549435e-38f;  // the smallest normal number
  static constexpr float largest = 3.4028235e38f;
  static constexpr float root = 1.8446743e19f;  // of the largest number
};

template <>
struct Limits<double> {
  static constexpr double epsilon = 2.220446049250313e-16;
  static constexpr double log2_tiny = -1022.0;
  static constexpr double tiny = 2.2250738585072014e-308;
  static constexpr double largest = 1.7976931348623157e308;
  static constexpr double root = 1.3407807929942596e154;
};

#if defined(__CUDA_ARCH__)
PPL_HD float clamp01(float x) { return __saturatef(x); }  // free: a modifier of the instruction before
#else
PPL_HD float clamp01(float x) { return fmaxf(fminf(x, 1.0f), 0.0f); }
#endif
PPL_HD double clamp01(double x) { return fmax(fmin(x, 1.0), 0.0); }
PPL_HD constexpr float epsilon_of(float) { return Limits<float>::epsilon; }
PPL_HD constexpr double epsilon_of(double) { return Limits<double>::epsilon; }
PPL_HD float absolute(float x) { return fabsf(x); }
PPL_HD double absolute(double x) { return fabs(x); }

}  // namespace PPL_NAMESPACE
