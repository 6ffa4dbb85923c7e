// The Python module _C_cuda. Importing it loads the CUDA kernels, which takes a torch that was built with CUDA.
#include <pybind11/pybind11.h>

#include "kernel_info.h"

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
  m.def(
      "kernel_info",
      [] {
        pybind11::list rows;
        for (const ppl_fast::KernelInfo& info : ppl_fast::kernel_info()) {
          pybind11::dict row;
          row["kernel"] = info.kernel;
          row["registers"] = info.registers;
          row["shared_bytes"] = info.shared_bytes;
          row["local_bytes"] = info.local_bytes;
          row["threads"] = info.threads;
          row["blocks_per_multiprocessor"] = info.blocks_per_multiprocessor;
          row["compiled_for"] = info.compiled_for;
          rows.append(row);
        }
        return rows;
      },
      "Registers, shared and local memory of each kernel in float32, and how many blocks a multiprocessor holds.");
}
