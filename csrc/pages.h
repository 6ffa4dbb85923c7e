// Memory that is about to be written, mapped many pages at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "tensors.h"

namespace ppl_fast {

// A fault for each page would take longer than all else, where a kernel mostly copies. Memory is new each time where
// the allocator gives blocks of this size back to the system. (Huge pages were slower.)
inline void map_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t page = 4096;
  constexpr int populate_write = 23;  // MADV_POPULATE_WRITE, of Linux 5.14; an older one refuses, and all is as before
  const uintptr_t begin = uintptr_t(data) / page * page, end = (uintptr_t(data) + bytes + page - 1) / page * page;
  if (bytes >= 16 * page) madvise(reinterpret_cast<void*>(begin), end - begin, populate_write);
#endif
}

inline void map_pages(const Tensor& t) {
  char* const data = static_cast<char*>(t.mutable_data_ptr());
  const int64_t bytes = t.numel() * int64_t(t.element_size()), piece = 1 << 19;
  torch::stable::parallel_for(0, (bytes + piece - 1) / piece, 1, [&](int64_t begin, int64_t end) {
    map_pages(data + begin * piece, std::min(end * piece, bytes) - begin * piece);
  });
}

}  // namespace ppl_fast
