// Chooses among the instruction sets that the *_simd.cpp files were compiled for.
#include "simd_dispatch.h"

#include <atomic>
#include <stdexcept>

namespace ppl_fast {
namespace {

// Whether the build has the instruction set, and the processor too.
bool supported([[maybe_unused]] Isa isa) {
#if defined(PPL_FAST_SIMD_AVX512)
  if (isa == Isa::avx512)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
#endif
#if defined(PPL_FAST_SIMD_AVX2)
  if (isa == Isa::avx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#if defined(PPL_FAST_SIMD_BASELINE)
  if (isa == Isa::baseline) return true;
#endif
  return false;
}

constexpr Isa kIsas[] = {Isa::avx512, Isa::avx2, Isa::baseline};  // best first

Isa best_isa() {
  for (Isa isa : kIsas)
    if (supported(isa)) return isa;
  throw std::runtime_error("this processor has none of the instruction sets that ppl_fast was built for");
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> isa{best_isa()};
  return isa;
}

}  // namespace

const char* name_of(Isa isa) { return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline"; }

Isa current_isa() { return chosen().load(std::memory_order_relaxed); }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (Isa isa : kIsas)
    if (supported(isa)) names.push_back(name_of(isa));
  return names;
}

void use_isa(const std::string& name) {
  for (Isa isa : kIsas)
    if (name == name_of(isa) && supported(isa)) return chosen().store(isa);
  throw std::invalid_argument("use_isa: '" + name + "' is not among the instruction sets of this build and processor");
}

namespace {
std::atomic<int64_t> taken{0};
}

void count_shortcut() { taken.fetch_add(1, std::memory_order_relaxed); }

int64_t shortcuts() { return taken.load(std::memory_order_relaxed); }

}  // namespace ppl_fast
