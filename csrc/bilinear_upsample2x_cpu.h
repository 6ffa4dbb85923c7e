// bilinear_upsample2x on the CPU: what bilinear_upsample2x_cpu.cpp hands to bilinear_upsample2x_simd.cpp.
#pragma once

#include <cstdint>

namespace ppl_fast {

constexpr int64_t kRowPad = 16;  // numbers of scratch before and after a row: a cache line, of which one is read

template <class T>
struct Upsample2xKernels {
  // Of one picture, (height, width, channels), row `row` of its outputs, (2 height, 2 width, channels).
  // scratch: width * channels + 2 kRowPad numbers, aligned to a cache line.
  void (*forward)(const T* maps, int64_t row, int64_t height, int64_t width, int64_t channels, T* scratch, T* out);
  // Row `row` of its gradient. scratch: 2 width * channels + 2 kRowPad numbers.
  void (*backward)(const T* grad, int64_t row, int64_t height, int64_t width, int64_t channels, T* scratch, T* out);
};

namespace baseline {
template <class T>
Upsample2xKernels<T> upsample2x_kernels();
}
namespace avx2 {
template <class T>
Upsample2xKernels<T> upsample2x_kernels();
}
namespace avx512 {
template <class T>
Upsample2xKernels<T> upsample2x_kernels();
}

}  // namespace ppl_fast
