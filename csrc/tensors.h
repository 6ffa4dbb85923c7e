// Short names and the few helpers that every operator's host code needs, on the LibTorch stable ABI.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <initializer_list>

namespace ppl_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Sums are taken in float32, or in float64 for float64 inputs.
inline ScalarType compute_type(const Tensor& t) {
  return t.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Tensor cast(const Tensor& t, ScalarType type) {
  return t.scalar_type() == type ? t : torch::stable::to(t, type);
}

inline Tensor contiguous_as(const Tensor& t, ScalarType type) { return torch::stable::contiguous(cast(t, type)); }

inline Tensor empty(const Tensor& like, std::initializer_list<int64_t> sizes, ScalarType type) {
  return torch::stable::new_empty(like, sizes, type);
}

inline bool has_sizes(const Tensor& t, std::initializer_list<int64_t> sizes) {
  if (t.dim() != int64_t(sizes.size())) return false;
  int64_t i = 0;
  for (const int64_t size : sizes)
    if (t.size(i++) != size) return false;
  return true;
}

inline bool is_floating(const Tensor& t) {
  const ScalarType type = t.scalar_type();
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
         type == ScalarType::BFloat16;
}

// A kernel reads all of its arguments where it runs: one that lies elsewhere would end the process or the CUDA context.
inline bool on_one_device(std::initializer_list<const Tensor*> tensors) {
  const auto type = [](const Tensor* t) {
    int32_t found = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(t->get(), &found));
    return found;
  };
  const Tensor* const first = *tensors.begin();
  for (const Tensor* t : tensors)
    if (type(t) != type(first) || t->get_device_index() != first->get_device_index()) return false;
  return true;
}

// Calls f with a zero of the C++ type: `dispatch(type, "op", [&](auto zero) { using T = decltype(zero); ... })`.
template <class F>
void dispatch(ScalarType type, const char* op, F f) {
  switch (type) {
    case ScalarType::Float:
      return f(float());
    case ScalarType::Double:
      return f(double());
    default:
      STD_TORCH_CHECK(false, op, ": no kernel for this dtype");
  }
}

template <class T>
const T* read(const Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

template <class T>
T* write(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

}  // namespace ppl_fast
