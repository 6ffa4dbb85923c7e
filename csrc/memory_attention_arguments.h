// memory_attention: what the CPU and the CUDA host code require of their arguments (see affine_warp_arguments.h).
#pragma once

#include "tensors.h"

namespace ppl_fast {

inline void check_memory_attention(const Tensor& tokens, const Tensor& prototypes) {
  STD_TORCH_CHECK(tokens.dim() == 3, "memory_attention: tokens must have shape (B, m, d)");
  STD_TORCH_CHECK(prototypes.dim() == 3 && prototypes.size(0) == tokens.size(1) &&
                      prototypes.size(2) == tokens.size(2) && prototypes.size(1) >= 1,
                  "memory_attention: prototypes must have shape (m, k, d), k >= 1");
  STD_TORCH_CHECK(prototypes.size(1) <= INT32_MAX / 2, "memory_attention: more than 2^30 prototypes a bank");
  STD_TORCH_CHECK(is_floating(tokens), "memory_attention: tokens must be float16, bfloat16, float32 or float64");
  STD_TORCH_CHECK(prototypes.scalar_type() == tokens.scalar_type(),
                  "memory_attention: prototypes must share tokens' dtype");
  STD_TORCH_CHECK(on_one_device({&tokens, &prototypes}),
                  "memory_attention: tokens and prototypes must be on one device");
}

inline void check_memory_attention_backward(const Tensor& grad_values, const Tensor& grad_distances,
                                            const Tensor& tokens, const Tensor& prototypes, const Tensor& values,
                                            const Tensor& indices, const Tensor& softmax, bool soft) {
  check_memory_attention(tokens, prototypes);
  const int64_t b = tokens.size(0), m = tokens.size(1), d = tokens.size(2);
  STD_TORCH_CHECK(has_sizes(grad_values, {b, m, d}) && has_sizes(values, {b, m, d}),
                  "memory_attention_backward: grad_values and values must have shape (B, m, d)");
  STD_TORCH_CHECK(
      has_sizes(grad_distances, {b, m}) && (!soft || has_sizes(softmax, {2, b, m})),
      "memory_attention_backward: grad_distances must have shape (B, m) and, in soft mode, softmax (2, B, m)");
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Long && has_sizes(indices, {b, m}),
                  "memory_attention_backward: indices must be int64 of shape (B, m)");
  STD_TORCH_CHECK(on_one_device({&tokens, &grad_values, &grad_distances, &values, &indices, &softmax}),
                  "memory_attention_backward: all tensors must be on the device of tokens");
}

inline void check_prototype_sums(const Tensor& tokens, const Tensor& indices) {
  STD_TORCH_CHECK(tokens.dim() == 3, "prototype_sums: tokens must have shape (B, m, d)");
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Long && has_sizes(indices, {tokens.size(0), tokens.size(1)}),
                  "prototype_sums: indices must be int64 of shape (B, m)");
  STD_TORCH_CHECK(is_floating(tokens), "prototype_sums: tokens must be float16, bfloat16, float32 or float64");
  STD_TORCH_CHECK(on_one_device({&tokens, &indices}), "prototype_sums: tokens and indices must be on one device");
}

}  // namespace ppl_fast
