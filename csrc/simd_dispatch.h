// Which instruction set this process uses: the best that the processor has and the build contains.
#pragma once

#include <string>
#include <vector>

#include "ppl_fast.h"

namespace ppl_fast {

enum class Isa { baseline, avx2, avx512 };

PPL_FAST_API Isa current_isa();

// Take part in tests and diagnostics only (ppl_fast._C_cpu): what can run here, and choosing it by name.
PPL_FAST_API const char* name_of(Isa isa);
PPL_FAST_API std::vector<std::string> available_isas();
PPL_FAST_API void use_isa(const std::string& name);

}  // namespace ppl_fast

// The value of one function of the three namespaces that hold a *_simd.cpp file's instantiations.
#if defined(PPL_FAST_X86)
#define PPL_SIMD_CALL(...)                            \
  (current_isa() == Isa::avx512 ? avx512::__VA_ARGS__ \
   : current_isa() == Isa::avx2 ? avx2::__VA_ARGS__   \
                                : baseline::__VA_ARGS__)
#else
#define PPL_SIMD_CALL(...) baseline::__VA_ARGS__
#endif
