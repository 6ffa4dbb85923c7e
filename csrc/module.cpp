// The Python module _C_cpu. Importing it loads the CPU kernels; its functions say what was built and what runs.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "simd_dispatch.h"

PYBIND11_MODULE(_C_cpu, m) {
  ppl_fast::current_isa();  // throws where the processor can run none of the build: then the import fails, not a call
  m.doc() = "CPU kernels of ppl_fast; importing registers them with torch.";
  m.def("build_info", [] {
    pybind11::dict info;
    info["compiler"] = PPL_FAST_COMPILER;
    info["flags"] = PPL_FAST_FLAGS;
    info["torch_target"] = PPL_FAST_TORCH_TARGET;
    info["torch_built_with"] = PPL_FAST_TORCH_VERSION;
    return info;
  });
  m.def(
      "current_isa", [] { return std::string(ppl_fast::name_of(ppl_fast::current_isa())); },
      "The instruction set that the kernels use.");
  m.def("available_isas", &ppl_fast::available_isas, "Instruction sets of this build and processor, best first.");
  m.def("shortcuts", &ppl_fast::shortcuts, "How many calls took a shortcut that leaves no trace (for tests).");
  m.def("use_isa", &ppl_fast::use_isa, pybind11::arg("name"), "Choose an instruction set by name (for tests).");
}
