// Memory that is about to be written, mapped many pages at a time.
#pragma once

#include <algorithm>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "tensors.h"

namespace ppl_fast {

constexpr uintptr_t kPage = 4096;  // at least; a call that a larger one does not suit is refused

// A fault for each page would take longer than all else, where a kernel mostly copies. Memory is new each time where
// the allocator gives blocks of this size back to the system. (Huge pages were slower.)
inline void map_pages([[maybe_unused]] void* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  constexpr int populate_write = 23;  // MADV_POPULATE_WRITE, of Linux 5.14; an older one refuses, and all is as before
  const uintptr_t begin = uintptr_t(data) / kPage * kPage, end = (uintptr_t(data) + bytes + kPage - 1) / kPage * kPage;
  if (bytes >= 16 * kPage) madvise(reinterpret_cast<void*>(begin), end - begin, populate_write);
#endif
}

// Whether memory is mapped already, by three of its pages: a wrong guess costs time alone.
inline bool seems_mapped([[maybe_unused]] const char* data, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__)
  for (const int64_t at : {int64_t(0), bytes / 2, bytes - 1}) {
    unsigned char mapped = 0;
    const uintptr_t page = uintptr_t(data + at) / kPage * kPage;
    if (mincore(reinterpret_cast<void*>(page), 1, &mapped) != 0 || !(mapped & 1)) return false;
  }
#endif
  return true;
}

inline void map_pages(const Tensor& t) {
  char* const data = static_cast<char*>(t.mutable_data_ptr());
  const int64_t bytes = t.numel() * int64_t(t.element_size()), piece = 1 << 19;
  if (bytes < int64_t(16 * kPage) || seems_mapped(data, bytes)) return;
  torch::stable::parallel_for(0, (bytes + piece - 1) / piece, 1, [&](int64_t begin, int64_t end) {
    map_pages(data + begin * piece, std::min(end * piece, bytes) - begin * piece);
  });
}

}  // namespace ppl_fast
