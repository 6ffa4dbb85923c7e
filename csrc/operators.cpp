// The operators' schemas for programs without Python. Those of ppl_fast/ops are the same: tests/test_cpp_program.py.
#include <torch/csrc/stable/library.h>

#include "ppl_fast.h"

namespace {

constexpr const char* kSchemas[] = {
    "affine_warp(Tensor keypoints, Tensor affine) -> Tensor",
    "affine_warp_backward(Tensor grad_points, Tensor keypoints, Tensor affine) -> (Tensor, Tensor)",
    "link_heatmap(Tensor keypoints, Tensor weights, Tensor links, int height, int width, float thickness) "
    "-> (Tensor, Tensor)",
    "link_heatmap_backward(Tensor grad_heatmap, Tensor keypoints, Tensor weights, Tensor links, Tensor winner, "
    "float thickness) -> (Tensor, Tensor)",
    "memory_attention(Tensor tokens, Tensor prototypes, float? temperature) -> (Tensor, Tensor, Tensor, Tensor)",
    "memory_attention_backward(Tensor grad_values, Tensor grad_distances, Tensor tokens, Tensor prototypes, "
    "Tensor values, Tensor indices, Tensor logsumexp, float? temperature, bool needs_prototypes) -> (Tensor, Tensor)",
    "prototype_sums(Tensor tokens, Tensor indices, int k) -> (Tensor, Tensor)",
};

}  // namespace

void ppl_fast_define_operators() {
  TorchLibraryHandle library = nullptr;  // kept: an operator lasts as long as its library
  TORCH_ERROR_CODE_CHECK(aoti_torch_library_init_fragment("ppl_fast", __FILE__, __LINE__, &library));
  for (const char* schema : kSchemas) TORCH_ERROR_CODE_CHECK(aoti_torch_library_def(library, schema));
}
