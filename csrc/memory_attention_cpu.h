// memory_attention on the CPU: what memory_attention_cpu.cpp hands to memory_attention_simd.cpp.
#pragma once

#include <cstdint>

namespace ppl_fast {

constexpr int kTokens = 64;      // tokens of one bank that a job holds at once
constexpr int kPrototypes = 64;  // prototypes that it meets them with, while both stay in the cache
constexpr int kFewest = 8;       // tokens and prototypes that are worth it

constexpr int64_t kMostScreened = 1 << 20;  // d up to which the bound of memory_attention_screen_simd.cpp holds

template <class T>
struct Attention {
  const T *tokens, *prototypes;  // (b, m, d), (m, k, d)
  int64_t b, m, k, d;
  bool soft;
  T sharpness, inverse_temperature;  // see Softmax in memory_attention.h
};

template <class T>
struct AttentionOut {
  T* values;         // (b, m, d)
  int64_t* indices;  // (b, m)
  T* distances;      // (b, m)
  T *least, *total;  // (b, m), soft only: the smallest distance and the sum of weights relative to it
};

template <class T>
struct AttentionGrad {
  const T *grad_values, *grad_distances, *values;  // (b, m, d), (b, m), (b, m, d)
  const int64_t* indices;                          // (b, m)
  const T *least, *total;                          // (b, m), soft only, of the forward
  T *g_dot_nearest, *q;                            // (b, m), soft only: backward_tokens leaves them for the prototypes
  T *grad_tokens, *grad_prototypes;                // (b, m, d), (m, k, d)
};

template <class T>
struct AttentionKernels {
  // Tokens [b0, b1) of a bank, at most kTokens of them. panel: kTokens x d, scratch where screening may pay, or null.
  // Whether it screened.
  bool (*forward)(const Attention<T>&, const AttentionOut<T>&, int64_t bank, int64_t b0, int64_t b1, T* panel);
  void (*backward_tokens)(const Attention<T>&, const AttentionGrad<T>&, int64_t bank, int64_t b0, int64_t b1);
  // Prototypes [j0, j1) of a bank, at most kPrototypes of them; tokens are summed in order. Hard mode, with all
  // prototypes of the bank at once: the tokens' gradients too, while they are at hand.
  void (*backward_prototypes)(const Attention<T>&, const AttentionGrad<T>&, int64_t bank, int64_t j0, int64_t j1);
  // One bank: counts (m, k) and sums (m, k, d), zero on entry.
  void (*sums)(const Attention<T>&, const int64_t* indices, int64_t bank, T* counts, T* sums);
};

namespace baseline {
template <class T>
AttentionKernels<T> memory_attention_kernels();
}
namespace avx2 {
template <class T>
AttentionKernels<T> memory_attention_kernels();
}
namespace avx512 {
template <class T>
AttentionKernels<T> memory_attention_kernels();
}

}  // namespace ppl_fast
