// Which instruction set this process uses: the best that the processor has and the build contains.
#pragma once

#include <cstdint>
#include <stdexcept>
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

// How many calls took a shortcut that leaves no trace in what it returns; for tests, which otherwise could not tell.
PPL_FAST_API void count_shortcut();
PPL_FAST_API int64_t shortcuts();

}  // namespace ppl_fast

// The value of one function of the namespaces that hold a *_simd.cpp file's instantiations. CMakeLists.txt defines
// PPL_FAST_SIMD_<LEVEL> for each instruction set of the build.
#if defined(PPL_FAST_SIMD_AVX512)
#define PPL_IF_AVX512(...) current_isa() == Isa::avx512 ? avx512::__VA_ARGS__:
#else
#define PPL_IF_AVX512(...)
#endif
#if defined(PPL_FAST_SIMD_AVX2)
#define PPL_IF_AVX2(...) current_isa() == Isa::avx2 ? avx2::__VA_ARGS__:
#else
#define PPL_IF_AVX2(...)
#endif
#if defined(PPL_FAST_SIMD_BASELINE)
#define PPL_OR_BASELINE(...) baseline::__VA_ARGS__
#else
#define PPL_OR_BASELINE(...) throw std::logic_error("current_isa() is not in this build")
#endif
#define PPL_SIMD_CALL(...) (PPL_IF_AVX512(__VA_ARGS__) PPL_IF_AVX2(__VA_ARGS__) PPL_OR_BASELINE(__VA_ARGS__))
