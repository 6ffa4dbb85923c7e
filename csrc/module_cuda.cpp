// The Python module _C_cuda. Importing it registers the CUDA kernels; it loads beside a torch that was built with CUDA.
#include <cuda_runtime.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "kernel_shapes.h"

namespace ppl_fast {
namespace {

void require(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("kernel_info: ") + what + ": " + cudaGetErrorString(error));
}

// What the kernels in float32 take of the current device.
pybind11::list kernel_info() {
  KernelShapes shapes;
  describe_affine_warp(shapes);
  describe_link_heatmap(shapes);
  describe_link_heatmap_backward(shapes);
  describe_memory_attention(shapes);
  describe_memory_attention_soft(shapes);
  pybind11::list rows;
  for (const KernelShape& shape : shapes) {
    cudaFuncAttributes attributes;
    int blocks = 0;
    require(cudaFuncGetAttributes(&attributes, shape.kernel), shape.name);
    require(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, shape.kernel, shape.threads, shape.shared_bytes),
            shape.name);
    pybind11::dict row;
    row["kernel"] = shape.name;
    row["registers"] = attributes.numRegs;
    row["shared_bytes"] = attributes.sharedSizeBytes + shape.shared_bytes;
    row["local_bytes"] = attributes.localSizeBytes;
    row["threads"] = shape.threads;
    row["blocks_per_multiprocessor"] = blocks;
    row["compiled_for"] = attributes.binaryVersion;
    rows.append(row);
  }
  return rows;
}

}  // namespace
}  // namespace ppl_fast

PYBIND11_MODULE(_C_cuda, m) {
  m.doc() = "CUDA kernels of ppl_fast; importing registers them with torch.";
  m.def("build_info", [] {
    pybind11::dict info;
    info["compiler"] = PPL_FAST_COMPILER;
    info["flags"] = PPL_FAST_FLAGS;
    info["architectures"] = PPL_FAST_ARCHITECTURES;
    info["torch_target"] = PPL_FAST_TORCH_TARGET;
    info["torch_built_with"] = PPL_FAST_TORCH_VERSION;
    return info;
  });
  m.def("kernel_info", &ppl_fast::kernel_info,
        "Registers, shared and local memory of each kernel, and how many of its blocks a multiprocessor holds.");
}
