// What _C_cuda's kernel_info() reports on: each kernel at the shape of a typical launch.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "ppl_fast.h"

namespace ppl_fast {

struct KernelShape {
  const char* name;  // as in the source, with its template arguments
  const void* kernel;
  int threads;
  size_t shared_bytes;
};
using KernelShapes = std::vector<KernelShape>;

void describe_affine_warp(KernelShapes& shapes);
void describe_link_heatmap(KernelShapes& shapes);
void describe_link_heatmap_backward(KernelShapes& shapes);
void describe_memory_attention(KernelShapes& shapes);
void describe_memory_attention_screen(KernelShapes& shapes);
void describe_memory_attention_soft(KernelShapes& shapes);

struct KernelInfo {
  std::string kernel;
  int registers, threads, blocks_per_multiprocessor, compiled_for;
  size_t shared_bytes, local_bytes;  // of a block, of a thread
};

PPL_FAST_API std::vector<KernelInfo> kernel_info();

}  // namespace ppl_fast
