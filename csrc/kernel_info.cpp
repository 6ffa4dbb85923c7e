// What the CUDA kernels in float32 take of the current device.
#include "kernel_info.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace ppl_fast {
namespace {

void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("kernel_info: ") + what + ": " + cudaGetErrorString(error));
}

std::vector<KernelShape>& reported() {  // made when first needed: files come in no order
  static std::vector<KernelShape> shapes;
  return shapes;
}

}  // namespace

ReportedKernels::ReportedKernels(std::initializer_list<KernelShape> shapes) {
  reported().insert(reported().end(), shapes);
}

std::vector<KernelInfo> kernel_info() {
  std::vector<KernelShape> shapes = reported();
  std::sort(shapes.begin(), shapes.end(),
            [](const KernelShape& a, const KernelShape& b) { return std::strcmp(a.name, b.name) < 0; });
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
