// Between emulator.cpp, which lets threads run, shared_memory.cpp and watch.cpp, which looks at what threads touch.
#pragma once

#include <cstddef>
#include <string>

namespace cuda_emulator {

// Of emulator.cpp. The running thread's number in its block, -1 outside of a kernel.
int current_thread();
// In the order `interleaved` other threads may run now.
void give_way();
// Ends the launch, with the last place at which the running thread waited.
[[noreturn]] void fail_after(const std::string& what);

// Of shared_memory.cpp. A block starts: all of its memory, static and dynamic, is not a number; what is beyond the
// bytes of a launch is out of bounds for AddressSanitizer.
void prepare_shared_memory(size_t bytes, size_t threads);

// Of watch.cpp. A block starts, with its shared memory, static and dynamic; all of it, or lanes of a warp, have met.
void watch_block(const unsigned char* memory, size_t size, size_t threads);
void watch_block_barrier();
void watch_warp_barrier(int warp, unsigned mask);

}  // namespace cuda_emulator
