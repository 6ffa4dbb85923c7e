// Shared memory: made by the linker as thread_local, found here, and made worthless when a block starts.
#include <link.h>

#include <cstring>
#include <stdexcept>

#include "cuda_runtime.h"
#include "watch.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

extern "C" {
alignas(64) __shared__ unsigned char ppl_fast_shared[48 * 1024];
}

namespace cuda_emulator {
namespace {

struct SharedMemory {    // of this library, static and dynamic: all that it has of thread_local
  ptrdiff_t before = 0;  // bytes ahead of ppl_fast_shared
  size_t size = 0;

  SharedMemory() {
    dl_iterate_phdr(
        [](dl_phdr_info* library, size_t, void* found) {
          const auto* const begin = static_cast<unsigned char*>(library->dlpi_tls_data);
          for (int i = 0; i < library->dlpi_phnum; ++i) {
            const auto& part = library->dlpi_phdr[i];
            const bool here = begin && begin <= ppl_fast_shared && ppl_fast_shared < begin + part.p_memsz;
            if (part.p_type != PT_TLS || !here) continue;
            auto* const memory = static_cast<SharedMemory*>(found);
            memory->before = ppl_fast_shared - begin, memory->size = part.p_memsz;
            return 1;
          }
          return 0;
        },
        this);
    if (!size) throw std::runtime_error("CUDA emulator: shared memory was not found");
  }
};

}  // namespace

void prepare_shared_memory([[maybe_unused]] size_t bytes, size_t threads) {
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(ppl_fast_shared, sizeof(ppl_fast_shared));
#endif
  ppl_fast_shared[0] = 0;  // the first touch in a thread is what makes the memory
  static const SharedMemory memory;
  std::memset(ppl_fast_shared - memory.before, 0xff, memory.size);  // not a number as any floating-point type
  watch_block(ppl_fast_shared - memory.before, memory.size, threads);
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(ppl_fast_shared + bytes, sizeof(ppl_fast_shared) - bytes);
#endif
}

}  // namespace cuda_emulator
