// What _C_cuda's kernel_info() reports on: each kernel at the shape of a typical launch, named beside its source.
#pragma once

#include <cstddef>
#include <initializer_list>
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

// A file's kernels are reported on once one of these has been made of them: a constant beside them does it.
struct ReportedKernels {
  ReportedKernels(std::initializer_list<KernelShape> shapes);
};

struct KernelInfo {
  std::string kernel;
  int registers, threads, blocks_per_multiprocessor, compiled_for;
  size_t shared_bytes, local_bytes;  // of a block, of a thread
};

PPL_FAST_API std::vector<KernelInfo> kernel_info();

}  // namespace ppl_fast
