// Where a fibre, or the scheduler, left off. At every switch glibc's swapcontext asks the kernel for the mask of
// signals, which took longer than what fibres do in between. So it is the way into a fibre alone, and the compiler's
// own jumps lead to and fro. AddressSanitizer would take a jump for the end of all frames: for it all are swaps.
#pragma once

#include <cstddef>

#include <ucontext.h>

namespace cuda_emulator {

struct Context {
  ucontext_t made;
  void* jump[5];
  bool entered = false;
};

// What enters the context next calls `entry`, which never returns.
inline void begin(Context& context, void* stack, size_t size, void (*entry)()) {
  getcontext(&context.made);
  context.made.uc_stack.ss_sp = stack;
  context.made.uc_stack.ss_size = size;
  context.made.uc_link = nullptr;
  makecontext(&context.made, entry, 0);
  context.entered = false;
}

__attribute__((noinline)) inline void change(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  swapcontext(&from.made, &to.made);
#else
  if (__builtin_setjmp(from.jump)) return;  // back again
  if (to.entered) __builtin_longjmp(to.jump, 1);
  to.entered = true;
  setcontext(&to.made);
#endif
}

}  // namespace cuda_emulator
