// bilinear_upsample2x on the CPU: rows of outputs, or of the gradient, shared out over threads; no two write the same.
#include "bilinear_upsample2x_cpu.h"

#include <vector>

#include "bilinear_upsample2x_arguments.h"
#include "operators.h"
#include "simd_dispatch.h"
#include "tensors.h"

namespace ppl_fast {
namespace {

constexpr int64_t kGrain = 16384;  // numbers a thread; below, starting one costs more than it saves
constexpr size_t kLine = 64;       // bytes

// Calls row(picture, row, scratch) for all rows of all pictures.
template <class T, class F>
void for_rows(int64_t pictures, int64_t rows, int64_t numbers, int64_t scratch, F row) {
  torch::stable::parallel_for(0, pictures * rows, kGrain / numbers + 1, [&](int64_t begin, int64_t end) {
    std::vector<T> space(scratch + 2 * kRowPad + kLine / sizeof(T));
    T* const aligned = space.data() + (kLine - reinterpret_cast<uintptr_t>(space.data()) % kLine) / sizeof(T);
    for (int64_t i = begin; i < end; ++i) row(i / rows, i % rows, aligned);
  });
}

Tensor bilinear_upsample2x_cpu(const Tensor& maps) {
  check_bilinear_upsample2x(maps);
  const auto type = compute_type(maps);
  const auto x = cast(maps, type);
  const Pictures p(x);
  const auto doubled = empty_maps(x, 2 * p.height, 2 * p.width);
  dispatch(type, "bilinear_upsample2x", [&](auto zero) {
    using T = decltype(zero);
    const auto kernels = PPL_SIMD_CALL(upsample2x_kernels<T>());
    const auto* const from = read<T>(p.data);
    auto* const to = write<T>(doubled);
    const int64_t n = p.width * p.channels;
    for_rows<T>(p.pictures, 2 * p.height, 2 * n, n, [&](int64_t picture, int64_t row, T* scratch) {
      kernels.forward(from + picture * p.height * n, row, p.height, p.width, p.channels, scratch,
                      to + (picture * 2 * p.height + row) * 2 * n);
    });
  });
  return cast(doubled, maps.scalar_type());
}

Tensor bilinear_upsample2x_backward_cpu(const Tensor& grad_doubled) {
  check_bilinear_upsample2x_backward(grad_doubled);
  const auto type = compute_type(grad_doubled);
  const auto g = cast(grad_doubled, type);
  const Pictures p(g);
  const int64_t height = p.height / 2, width = p.width / 2;
  const auto grad_maps = empty_maps(g, height, width);
  dispatch(type, "bilinear_upsample2x_backward", [&](auto zero) {
    using T = decltype(zero);
    const auto kernels = PPL_SIMD_CALL(upsample2x_kernels<T>());
    const auto* const from = read<T>(p.data);
    auto* const to = write<T>(grad_maps);
    const int64_t n = width * p.channels;
    for_rows<T>(p.pictures, height, 2 * n, 2 * n, [&](int64_t picture, int64_t row, T* scratch) {
      kernels.backward(from + picture * height * 4 * n, row, height, width, p.channels, scratch,
                       to + (picture * height + row) * n);
    });
  });
  return cast(grad_maps, grad_doubled.scalar_type());
}

const Schemas kSchemas = {
    "bilinear_upsample2x(Tensor maps) -> Tensor",
    "bilinear_upsample2x_backward(Tensor grad_doubled) -> Tensor",
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, CPU, m) {
  m.impl("bilinear_upsample2x", TORCH_BOX(&bilinear_upsample2x_cpu));
  m.impl("bilinear_upsample2x_backward", TORCH_BOX(&bilinear_upsample2x_backward_cpu));
}

}  // namespace ppl_fast
