// Defines the operators for programs without Python.
#include "operators.h"

#include <torch/csrc/stable/library.h>

#include <vector>

#include "ppl_fast.h"

namespace ppl_fast {
namespace {

std::vector<const char*>& all_schemas() {
  static std::vector<const char*> schemas;  // made when first entered, whichever file is initialised first
  return schemas;
}

}  // namespace

Schemas::Schemas(std::initializer_list<const char*> schemas) {
  all_schemas().insert(all_schemas().end(), schemas.begin(), schemas.end());
}

}  // namespace ppl_fast

void ppl_fast_define_operators() {
  TorchLibraryHandle library = nullptr;  // kept: an operator lasts as long as its library
  TORCH_ERROR_CODE_CHECK(aoti_torch_library_init_fragment("ppl_fast", __FILE__, __LINE__, &library));
  for (const char* schema : ppl_fast::all_schemas()) TORCH_ERROR_CODE_CHECK(aoti_torch_library_def(library, schema));
}
