// Watches the accesses to shared memory of kernels that were compiled with -fsanitize=thread, which calls the functions
// at the end of this file, and the alignment of all accesses, by -fsanitize=alignment; the compiler's own libraries for
// these take no part.
//
// Threads of a block run on their own from one barrier to the next. So at each access another may come first (the order
// `interleaved`), and two threads that touch a byte, one of them writing, must have a barrier between them:
// __syncthreads, or __syncwarp by both where they are of one warp. Shuffles and votes order no memory.
#include <array>
#include <string>
#include <vector>

#include "cuda_runtime.h"
#include "watch.h"

namespace cuda_emulator {
namespace {

struct Access {
  uint32_t epoch = 0, clock = 0;  // block barriers so far, of all blocks; barriers of the thread's warp, as it counts
  int thread = 0;
};

struct Byte {
  Access written, read, read_before;
};

struct Watch {
  bool on = true;
  const unsigned char* begin = nullptr;
  std::vector<Byte> bytes;
  uint32_t epoch = 0;
  std::vector<std::array<uint32_t, 32>> known;  // by thread: how far it knows each lane of its warp, itself included
} watch;

bool ordered(const Access& before, int thread) {
  if (before.epoch != watch.epoch || before.thread == thread) return true;
  return before.thread / 32 == thread / 32 && watch.known[thread][before.thread % 32] >= before.clock;
}

void require_order(const Access& before, int thread, size_t at, const char* what) {
  if (ordered(before, thread)) return;
  const std::string text = "byte " + std::to_string(at) + " of shared memory: threads " +
                           std::to_string(before.thread) + " and " + std::to_string(thread) + " " + what +
                           " without a barrier between";
  fail_after(text);
}

void touch(const void* address, size_t size, bool writes) {
  const int thread = current_thread();
  if (thread < 0) return;
  const size_t first = static_cast<const unsigned char*>(address) - watch.begin;
  if (first >= watch.bytes.size()) return;
  give_way();
  if (!watch.on) return;
  const Access now = {watch.epoch, watch.known[thread][thread % 32], thread};
  for (size_t at = first; at < first + size && at < watch.bytes.size(); ++at) {
    Byte& byte = watch.bytes[at];
    require_order(byte.written, thread, at, writes ? "write" : "write and read");
    if (writes) {
      require_order(byte.read, thread, at, "read and write");
      require_order(byte.read_before, thread, at, "read and write");
      byte.written = now;
    } else if (byte.read.thread == thread || byte.read.epoch != now.epoch) {
      byte.read = now;
    } else {
      byte.read_before = byte.read, byte.read = now;
    }
  }
}

void aligned(const void* address, size_t size) {
  if (current_thread() >= 0 && reinterpret_cast<uintptr_t>(address) % size)
    fail_after("an access of " + std::to_string(size) + " bytes is not aligned");
}

}  // namespace

void watch_block(const unsigned char* memory, size_t size, size_t threads) {
  watch.begin = memory, watch.bytes.resize(size), ++watch.epoch;
  watch.known.assign(threads, {});
  for (size_t thread = 0; thread < threads; ++thread) watch.known[thread][thread % 32] = 1;
}

void watch_block_barrier() { ++watch.epoch; }

void watch_warp_barrier(int warp, unsigned mask) {
  std::array<uint32_t, 32> all{};
  const size_t first = size_t(warp) * 32;
  const auto each = [&](auto act) {
    for (size_t lane = 0; lane < 32 && first + lane < watch.known.size(); ++lane)
      if (mask >> lane & 1) act(watch.known[first + lane], lane);
  };
  each([&](auto& known, size_t) {
    for (int i = 0; i < 32; ++i) all[i] = std::max(all[i], known[i]);
  });
  each([&](auto& known, size_t lane) { known = all, ++known[lane]; });
}

}  // namespace cuda_emulator

extern "C" {
__attribute__((visibility("default"))) void cuda_emulator_find_races(bool on) { cuda_emulator::watch.on = on; }

void __tsan_init() {}
#define WATCHED(size)                                                                                        \
  void __tsan_read##size(void* p) { cuda_emulator::aligned(p, size), cuda_emulator::touch(p, size, false); } \
  void __tsan_write##size(void* p) { cuda_emulator::aligned(p, size), cuda_emulator::touch(p, size, true); } \
  void __tsan_unaligned_read##size(void* p) { cuda_emulator::touch(p, size, false); }                        \
  void __tsan_unaligned_write##size(void* p) { cuda_emulator::touch(p, size, true); }
WATCHED(1)
WATCHED(2)
WATCHED(4)
WATCHED(8)
WATCHED(16)
void __tsan_read_range(void* p, size_t size) { cuda_emulator::touch(p, size, false); }
void __tsan_write_range(void* p, size_t size) { cuda_emulator::touch(p, size, true); }
void __tsan_vptr_update(void**, void*) {}
// What host code has of std::atomic and std::shared_ptr.
int __tsan_atomic32_fetch_add(int* p, int value, int) { return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST); }
int __tsan_atomic32_load(const int* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
void __tsan_atomic32_store(int* p, int value, int) { __atomic_store_n(p, value, __ATOMIC_SEQ_CST); }
char __tsan_atomic8_load(const char* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
void __tsan_atomic8_store(char* p, char value, int) { __atomic_store_n(p, value, __ATOMIC_SEQ_CST); }

#if !defined(__SANITIZE_ADDRESS__)  // there libubsan has it
struct Mismatch {
  const char* file;
  uint32_t line, column;
};
void __ubsan_handle_type_mismatch_v1(Mismatch* found, void*) {
  cuda_emulator::fail("an access is not aligned to its type", {found->file, int(found->line)});
}
#endif
}
