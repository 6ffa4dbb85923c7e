// A C++ program that draws a link heatmap and its gradient with ppl_fast's kernels, without Python. $TORCH is the
// folder of torch (LibTorch, or the one in site-packages), $PPL_FAST the folder of the installed ppl_fast package:
//
//   g++ -std=c++20 cpp_program.cpp -I$TORCH/include -L$TORCH/lib -L$PPL_FAST -lppl_fast_cpu -ltorch_cpu -lc10
//       -Wl,--no-as-needed,-rpath,$TORCH/lib:$PPL_FAST -o cpp_program
//
// For tensors on a GPU, link ppl_fast_cuda as well (and torch, torch_cuda): the calls stay the same.
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>

#include <iostream>
#include <tuple>

extern "C" void ppl_fast_define_operators();

using at::Tensor;
using Draw = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, int64_t, int64_t, double);
using DrawBackward = std::tuple<Tensor, Tensor>(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                                const Tensor&, double);

template <class Signature>
auto find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

int main() {
  ppl_fast_define_operators();
  // One sample with three keypoints, (x, y), and two links, on 5 x 5 pixels.
  const Tensor keypoints = at::tensor({-1.0f, -1.0f, 1.0f, -1.0f, 0.0f, 1.0f}).view({1, 3, 2});
  const Tensor weights = at::tensor({0.5f, 1.0f}), links = at::tensor({0l, 1l, 1l, 2l}).view({2, 2});
  const double thickness = 0.1;

  const auto [heatmap, winner] = find<Draw>("ppl_fast::link_heatmap").call(keypoints, weights, links, 5, 5, thickness);
  const auto [grad_keypoints, grad_weights] =
      find<DrawBackward>("ppl_fast::link_heatmap_backward")
          .call(at::ones_like(heatmap), keypoints, weights, links, winner, thickness);

  std::cout << "heatmap " << heatmap.view({5, 5}) << "\ngrad_weights " << grad_weights << '\n';
  return 0;
}
