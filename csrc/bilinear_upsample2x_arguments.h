// bilinear_upsample2x: what the CPU and the CUDA host code require of their arguments, and how maps lie.
#pragma once

#include "tensors.h"

namespace ppl_fast {

inline void check_bilinear_upsample2x(const Tensor& maps) {
  STD_TORCH_CHECK(maps.dim() == 4 && maps.size(1) >= 1 && maps.size(2) >= 1 && maps.size(3) >= 1,
                  "bilinear_upsample2x: maps must have shape (B, C, H, W), with C, H and W >= 1");
  STD_TORCH_CHECK(is_floating(maps), "bilinear_upsample2x: maps must be float16, bfloat16, float32 or float64");
}

inline void check_bilinear_upsample2x_backward(const Tensor& grad_doubled) {
  STD_TORCH_CHECK(grad_doubled.dim() == 4 && grad_doubled.size(1) >= 1 && grad_doubled.size(2) >= 2 &&
                      grad_doubled.size(3) >= 2 && grad_doubled.size(2) % 2 == 0 && grad_doubled.size(3) % 2 == 0,
                  "bilinear_upsample2x_backward: grad_doubled must have shape (B, C, 2H, 2W), with C, H and W >= 1");
  STD_TORCH_CHECK(is_floating(grad_doubled),
                  "bilinear_upsample2x_backward: grad_doubled must be float16, bfloat16, float32 or float64");
}

// ppl_fast/ops/bilinear_upsample2x.py has the same rule.
inline bool channels_last(const Tensor& maps) { return maps.stride(1) == 1 && maps.stride(3) > 1; }

// Maps as pictures, (pictures, height, width, channels) in memory: contiguous ones are as many of a channel each.
struct Pictures {
  explicit Pictures(const Tensor& maps) : Pictures(maps, channels_last(maps)) {}
  Pictures(const Tensor& maps, bool last)
      : data(torch::stable::contiguous(last ? channels_to_the_end(maps) : maps)),
        pictures(last ? maps.size(0) : maps.size(0) * maps.size(1)),
        height(maps.size(2)),
        width(maps.size(3)),
        channels(last ? maps.size(1) : 1) {}

  static Tensor channels_to_the_end(const Tensor& maps) {
    return torch::stable::transpose(torch::stable::transpose(maps, 1, 2), 2, 3);
  }

  Tensor data;
  int64_t pictures, height, width, channels;
};

// Maps of another height and width, laid out as `like`; no view, which autograd would not let anybody change in place.
inline Tensor empty_maps(const Tensor& like, int64_t height, int64_t width) {
  const int64_t b = like.size(0), c = like.size(1);
  if (!channels_last(like)) return empty(like, {b, c, height, width}, like.scalar_type());
  return torch::stable::empty({b, c, height, width}, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::ChannelsLast);
}

}  // namespace ppl_fast
