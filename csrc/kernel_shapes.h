// What _C_cuda's kernel_info() reports on: each kernel and the shape of a typical launch.
#pragma once

#include <cstddef>
#include <vector>

namespace ppl_fast {

struct KernelShape {
  const char* name;
  const void* kernel;
  int threads;
  size_t shared_bytes;
};
using KernelShapes = std::vector<KernelShape>;

void describe_affine_warp(KernelShapes& shapes);
void describe_link_heatmap(KernelShapes& shapes);
void describe_link_heatmap_backward(KernelShapes& shapes);
void describe_memory_attention(KernelShapes& shapes);
void describe_memory_attention_soft(KernelShapes& shapes);

}  // namespace ppl_fast
