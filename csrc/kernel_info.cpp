// What the CUDA kernels in float32 take of the current device.
#include "kernel_info.h"

#include <cuda_runtime.h>

#include <stdexcept>

namespace ppl_fast {
namespace {

void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("kernel_info: ") + what + ": " + cudaGetErrorString(error));
}

}  // namespace

std::vector<KernelInfo> kernel_info() {
  KernelShapes shapes;
  describe_affine_warp(shapes);
  describe_link_heatmap(shapes);
  describe_link_heatmap_backward(shapes);
  describe_memory_attention(shapes);
  describe_memory_attention_screen(shapes);
  describe_memory_attention_soft(shapes);
  std::vector<KernelInfo> rows;
  for (const KernelShape& shape : shapes) {
    cudaFuncAttributes attributes;
    int blocks = 0;
    require(cudaFuncGetAttributes(&attributes, shape.kernel), shape.name);
    require(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, shape.kernel, shape.threads, shape.shared_bytes),
            shape.name);
    rows.push_back({shape.name, attributes.numRegs, shape.threads, blocks, attributes.binaryVersion,
                    attributes.sharedSizeBytes + shape.shared_bytes, attributes.localSizeBytes});
  }
  return rows;
}

}  // namespace ppl_fast
