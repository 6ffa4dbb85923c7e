// For C++ programs without Python (docs/cpp_program.cpp): libppl_fast_cpu.so holds the kernels of the CPU,
// libppl_fast_cuda.so those of CUDA. Loading one registers its kernels with torch; their operators are then called
// through torch's dispatcher, by name and schema. Formulas of differentiation are Python's: call
// ppl_fast::<op>_backward.
#pragma once

#define PPL_FAST_API __attribute__((visibility("default")))

// Defines the operators ppl_fast::*, once in a process. In Python ppl_fast/ops does that; not to be called there.
extern "C" PPL_FAST_API void ppl_fast_define_operators();
