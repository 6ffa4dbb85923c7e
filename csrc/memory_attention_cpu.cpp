// memory_attention on the CPU: checks and threads around the kernels of memory_attention_simd.cpp.
#include "memory_attention_cpu.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <optional>

#include "memory_attention.h"
#include "memory_attention_arguments.h"
#include "simd_dispatch.h"
#include "operators.h"
#include "pages.h"
#include "tensors.h"

namespace ppl_fast {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
AttentionKernels<T> pick_kernels() {
  return PPL_SIMD_CALL(memory_attention_kernels<T>());
}

// Indices are read without further checks: a wrong one would reach into memory.
void check_range(const Tensor& indices, int64_t k, const char* name) {
  for (const int64_t *i = read<int64_t>(indices), *end = i + indices.numel(); i < end; ++i)
    STD_TORCH_CHECK(*i >= 0 && *i < k, name, ": indices must lie in [0, k)");
}

template <class T>
Attention<T> make_attention(const Tensor& tokens, const Tensor& prototypes, std::optional<double> temperature) {
  const Softmax<T> softmax = temperature ? make_softmax<T>(*temperature) : Softmax<T>{};
  return {read<T>(tokens),         read<T>(prototypes), tokens.size(0),
          tokens.size(1),          prototypes.size(1),  tokens.size(2),
          temperature.has_value(), softmax.sharpness,   softmax.inverse_temperature};
}

// Runs job(bank, begin, end) for all banks and all pieces of [0, count).
template <class Job>
void for_each_piece(int64_t banks, int64_t count, int64_t piece, Job job) {
  const int64_t pieces = ceil_div(count, piece);
  torch::stable::parallel_for(0, banks * pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % pieces * piece;
      job(i / pieces, first, std::min(first + piece, count));
    }
  });
}

// As many as stay in the cache, fewer where there would be too few jobs. Every result is the same either way.
int64_t tokens_of_a_job(int64_t banks, int64_t count) {
  return banks * ceil_div(count, kTokens) >= 16 ? kTokens : kTokens / 4;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> memory_attention_cpu(const Tensor& tokens, const Tensor& prototypes,
                                                                std::optional<double> temperature) {
  check_memory_attention(tokens, prototypes);
  const auto type = compute_type(tokens), given = tokens.scalar_type();
  const auto t = contiguous_as(tokens, type), p = contiguous_as(prototypes, type);
  const int64_t b = t.size(0), m = t.size(1), d = t.size(2);
  const auto values = empty(t, {b, m, d}, type), distances = empty(t, {b, m}, type);
  const auto indices = empty(t, {b, m}, ScalarType::Long);
  const auto softmax = temperature ? empty(t, {2, b, m}, type) : empty(t, {0}, type);
  dispatch(type, "memory_attention", [&](auto zero) {
    using T = decltype(zero);
    const auto a = make_attention<T>(t, p, temperature);
    T* const least = write<T>(softmax);
    const AttentionOut<T> out{write<T>(values), write<int64_t>(indices), write<T>(distances), least, least + b * m};
    const auto kernels = pick_kernels<T>();
    map_pages(values);
    const bool many = !a.soft && a.k >= kPrototypes && d <= kMostScreened;
    std::atomic<bool> screened{false};
    for_each_piece(m, b, tokens_of_a_job(m, b), [&](int64_t bank, int64_t b0, int64_t b1) {
      const std::unique_ptr<T[]> panel(many ? new T[kTokens * d] : nullptr);
      if (kernels.forward(a, out, bank, b0, b1, panel.get())) screened.store(true, std::memory_order_relaxed);
    });
    if (screened) count_shortcut();
  });
  return {cast(values, given), indices, cast(distances, given), softmax};
}

std::tuple<Tensor, Tensor> memory_attention_backward_cpu(const Tensor& grad_values, const Tensor& grad_distances,
                                                         const Tensor& tokens, const Tensor& prototypes,
                                                         const Tensor& values, const Tensor& indices,
                                                         const Tensor& softmax, std::optional<double> temperature,
                                                         bool needs_prototypes) {
  check_memory_attention_backward(grad_values, grad_distances, tokens, prototypes, values, indices, softmax,
                                  temperature.has_value());
  const auto chosen = torch::stable::contiguous(indices);
  check_range(chosen, prototypes.size(1), "memory_attention_backward");
  const auto type = compute_type(tokens);
  const auto t = contiguous_as(tokens, type), p = contiguous_as(prototypes, type), v = contiguous_as(values, type),
             gv = contiguous_as(grad_values, type), gd = contiguous_as(grad_distances, type),
             relative = contiguous_as(softmax, type);
  const auto grad_t = torch::stable::new_empty(t, t.sizes());
  const auto grad_p = needs_prototypes ? torch::stable::new_empty(p, p.sizes()) : empty(p, {0}, type);
  dispatch(type, "memory_attention_backward", [&](auto zero) {
    using T = decltype(zero);
    const auto a = make_attention<T>(t, p, temperature);
    const int64_t rows = a.b * a.m;
    const auto between = empty(t, {2, a.soft ? rows : 0}, type);
    const T* const least = read<T>(relative);
    T* const g_dot_nearest = write<T>(between);
    const AttentionGrad<T> g{
        read<T>(gv),  read<T>(gd),   read<T>(v),           read<int64_t>(chosen), least,
        least + rows, g_dot_nearest, g_dot_nearest + rows, write<T>(grad_t),      write<T>(grad_p)};
    const auto kernels = pick_kernels<T>();
    map_pages(grad_t);
    if (a.soft || !needs_prototypes || a.k > kPrototypes)  // else below, in one pass
      for_each_piece(a.m, a.b, tokens_of_a_job(a.m, a.b),
                     [&](int64_t bank, int64_t b0, int64_t b1) { kernels.backward_tokens(a, g, bank, b0, b1); });
    if (needs_prototypes)
      for_each_piece(a.m, a.k, kPrototypes, [&](int64_t bank, int64_t j0, int64_t j1) {
        map_pages(g.grad_prototypes + (bank * a.k + j0) * a.d, (j1 - j0) * a.d * sizeof(T));
        kernels.backward_prototypes(a, g, bank, j0, j1);
      });
  });
  return {cast(grad_t, tokens.scalar_type()), cast(grad_p, prototypes.scalar_type())};
}

std::tuple<Tensor, Tensor> prototype_sums_cpu(const Tensor& tokens, const Tensor& indices, int64_t k) {
  check_prototype_sums(tokens, indices);
  const auto chosen = torch::stable::contiguous(indices);
  check_range(chosen, k, "prototype_sums");
  const auto type = compute_type(tokens);
  const auto t = contiguous_as(tokens, type);
  const int64_t m = t.size(1), d = t.size(2);
  const auto counts = torch::stable::new_zeros(t, {m, k}), sums = torch::stable::new_zeros(t, {m, k, d});
  dispatch(type, "prototype_sums", [&](auto zero) {
    using T = decltype(zero);
    const Attention<T> a{read<T>(t), nullptr, t.size(0), m, k, d, false, 0, 0};
    const auto kernels = pick_kernels<T>();
    for_each_piece(m, 1, 1, [&](int64_t bank, int64_t, int64_t) {
      kernels.sums(a, read<int64_t>(chosen), bank, write<T>(counts), write<T>(sums));
    });
  });
  return {counts, sums};
}

const Schemas kSchemas = {
    "memory_attention(Tensor tokens, Tensor prototypes, float? temperature) -> (Tensor, Tensor, Tensor, Tensor)",
    "memory_attention_backward(Tensor grad_values, Tensor grad_distances, Tensor tokens, Tensor prototypes, "
    "Tensor values, Tensor indices, Tensor softmax, float? temperature, bool needs_prototypes) -> (Tensor, Tensor)",
    "prototype_sums(Tensor tokens, Tensor indices, int k) -> (Tensor, Tensor)",
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, CPU, m) {
  m.impl("memory_attention", TORCH_BOX(&memory_attention_cpu));
  m.impl("memory_attention_backward", TORCH_BOX(&memory_attention_backward_cpu));
  m.impl("prototype_sums", TORCH_BOX(&prototype_sums_cpu));
}

}  // namespace ppl_fast
