// memory_attention on CUDA: the backward of soft mode by differences. The tokens' kernel meets tokens, and gradients,
// with the prototypes as the forward does (memory_attention_soft_cuda.cu), adds weighted prototypes likewise, and
// leaves weight and slope of each pair, (banks, B, k), of as many banks and tokens at a time as 64 MB hold. In the
// prototypes' kernel a block has 16 prototypes and 32 columns, whose four warps share the tokens. All sums are in
// order, without atomics. B = 64, m = 34, k = 16, d = 512: 19 + 11 MB, 4.1 + 2.4 us on an H200; 4.5 + 3.2 by what is
// issued (benchmarks/cycle_model.py). It takes 12.0 + 6.9 (an H100 47.4 + 70.0 when a block of 34 had all tokens of 16
// prototypes). Not taken: pairs anew for the prototypes, which would be as much again as the tokens' kernel.
#include "memory_attention_soft_cuda.cuh"

namespace ppl_fast {
namespace {

constexpr int kTurn = 8, kStep = kSoftWarps * kTurn;  // tokens that a warp and a block of the prototypes' kernel take
static_assert(kTurn == kSoftWarps * kTokens);         // so that turns are whole where blocks are
// Blocks on a multiprocessor: B = 64, m = 34, k = 16 are 544 for 132. From sm_100 on there are more multiprocessors,
// and three leave the registers that its compiler takes.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kMostSumBlocks = 3;
#else
constexpr int kMostSumBlocks = 5;
#endif
template <class T>
constexpr int kSumBlocks = std::is_same_v<T, float> ? kMostSumBlocks : 2;

template <class T, bool kWhole>
constexpr int kBackwardColumns = (kWhole ? 16 : 8) / int(sizeof(T));  // as kColumns

template <class T>
struct Pair {
  T distance, product;  // |t - p|^2, g . p
};

// Both at once, where there are registers for 64 sums.
template <bool kWhole, class T>
__device__ Pair<T> meet_twice(const Rows<T>& tokens, const Rows<T>& grads, const Rows<T>& prototypes, int64_t d) {
  if constexpr (!std::is_same_v<T, float>) {
    return {meet<kWhole>(tokens, prototypes, d, SquaredDifference()), meet<kWhole>(grads, prototypes, d, Product())};
  } else {
    constexpr int columns = kBackwardColumns<T, kWhole>;
    T distances[kWarp] = {}, products[kWarp] = {};
    for (int64_t from = threadIdx.x % kWarp; from < d; from += columns * kWarp) {
      T token[kTokens][columns], grad[kTokens][columns], prototype[kPrototypes][columns];
      load<kWhole>(tokens, from, d, token), load<kWhole>(grads, from, d, grad);
      load<kWhole>(prototypes, from, d, prototype);
#pragma unroll
      for (int i = 0; i < kWarp; ++i)
#pragma unroll
        for (int c = 0; c < columns; ++c) {
          const T y = prototype[i % kPrototypes][c];
          distances[i] = add_squared_difference(distances[i], token[i / kPrototypes][c], y);
          products[i] = add_product(products[i], grad[i / kPrototypes][c], y);
        }
    }
    return {own_sum(distances), own_sum(products)};
  }
}

// The product of the lane's row of x and that of y, from the same sum as a product of `meet`.
template <bool kWhole, class T>
__device__ T product_of_rows(const Rows<T>& x, const Rows<T>& y, int64_t d) {
  constexpr int columns = kColumns<T>;
  T sums[kTokens] = {};
  for (int64_t from = threadIdx.x % kWarp; from < d; from += columns * kWarp) {
    T of_x[kTokens][columns], of_y[kTokens][columns];
    load<kWhole>(x, from, d, of_x), load<kWhole>(y, from, d, of_y);
#pragma unroll
    for (int r = 0; r < kTokens; ++r)
#pragma unroll
      for (int c = 0; c < columns; ++c) sums[r] = add_product(sums[r], of_x[r][c], of_y[r][c]);
  }
  const T first = lane_sum<kWarp>(sums[0]), second = lane_sum<kWarp>(sums[1]);
  return threadIdx.x % kWarp < kPrototypes ? first : second;
}

// `pairs` (banks, b, k), if any: the weights and slopes that the prototypes' kernel takes, products until q is known.
template <class T, bool kWhole>
__global__ void __launch_bounds__(kSoftThreads, kSoftBlocks<T>)
    memory_attention_soft_bwd_tokens_kernel(Banks<T> a, Softmax<T> softmax, SoftGrad<T> g, Pack<T, 2>* pairs) {
  constexpr int columns = kBackwardColumns<T, kWhole>;
  const int lane = threadIdx.x % kWarp, r = lane / kPrototypes, j = lane % kPrototypes;
  const int64_t b0 = first_token(), bank = blockIdx.y;
  if (b0 >= a.b) return;  // a whole warp
  const Rows<T> tokens = a.token_rows(a.tokens, bank, b0, kTokens),
                grads = a.token_rows(g.grad_values, bank, b0, kTokens);
  const Rows<T> values = a.token_rows(g.values, bank, b0, kTokens);
  T* const out = g.grad_tokens + (b0 * a.m + bank) * a.d;
  const Rows<T> before = {out, tokens.stride, tokens.count};
  const int64_t own = (b0 + min(r, tokens.count - 1)) * a.m + bank;
  const int index = int(min(max(g.indices[own], int64_t(0)), a.k - 1));
  const T least = g.least[own], total = g.total[own], grad_distance = g.grad_distances[own];
  const bool leaves = pairs && r < tokens.count;
  const auto left = [&](int64_t i) -> Pack<T, 2>& { return pairs[(bank * a.b + b0 + r) * a.k + i]; };
  T g_dot_nearest = 0, q = 0;
  for (int first = 0; first < int(a.k); first += kPrototypes) {
    const Rows<T> prototypes = a.prototype_rows(bank, first, a.k, kPrototypes);
    const Pair<T> pair = meet_twice<kWhole>(tokens, grads, prototypes, a.d);
    const OfTokens<int> nearest(index);
    const Rows<T> chosen = {a.prototypes + (bank * a.k + nearest.at[0]) * a.d, (nearest.at[1] - nearest.at[0]) * a.d,
                            tokens.count};
    if (first == 0)  // The nearest prototypes are often among these: then their products are known.
      g_dot_nearest = __all_sync(kAllLanes, index < kPrototypes)
                          ? __shfl_sync(kAllLanes, pair.product, lane - j + index)
                          : product_of_rows<kWhole>(grads, chosen, a.d);
    const bool real = j < prototypes.count, last = first + kPrototypes >= int(a.k);
    const T weight = softmax_weight(softmax.sharpness, least, total, pair.distance);
    const T share = real ? weight * (pair.product - g_dot_nearest) : T(0);
    q += share;
    if (leaves && real) left(first + j) = {weight, pair.product};
    if (last) q = lane_sum<kPrototypes>(q);
    const OfTokens<T> qs(q), pull(2 * grad_distance);  // of a token to its nearest prototype
    const Weights<T> weights(share);
    for (int64_t from = lane; from < a.d; from += columns * kWarp) {
      T sums[kTokens][columns], value[kTokens][columns], token[kTokens][columns], prototype[kTokens][columns];
      load<kWhole>(values, from, a.d, value, last);
      load<kWhole>(before, from, a.d, sums, first > 0);
      weights.template add<kWhole>(prototypes, from, a.d, sums);
      load<kWhole>(tokens, from, a.d, token, last), load<kWhole>(chosen, from, a.d, prototype, last);
#pragma unroll
      for (int i = 0; i < kTokens * columns; ++i) {
        const int t = i / columns, c = i % columns;
        if (last)
          sums[t][c] = 2 * softmax.inverse_temperature * (sums[t][c] - qs.at[t] * value[t][c]) +
                       pull.at[t] * (token[t][c] - prototype[t][c]);
      }
      store<kWhole>(out, tokens.stride, tokens.count, from, a.d, sums);
    }
  }
  if (!leaves) return;
#pragma unroll 1
  for (int i = j; i < int(a.k); i += kPrototypes) {
    auto& [weight, product] = left(i).at;
    const T slope = softmax_slope(weight, product, g_dot_nearest, q, softmax.inverse_temperature);
    product = 2 * (slope - (i == index ? grad_distance : T(0)));
  }
}

template <class T>
struct alignas(16) SumsShared {
  Pack<T, 2> pair[kStep][kPrototypes];  // weight and slope
  T part[kSoftWarps][kPrototypes][kWarp];
};

template <class T, bool kWhole>
__global__ void __launch_bounds__(kSoftThreads, kSumBlocks<T>)
    memory_attention_soft_bwd_prototypes_kernel(Banks<T> a, const T* grad_values, const Pack<T, 2>* pairs,
                                                T* grad_prototypes, bool begun) {
  auto& shared = shared_memory<SumsShared<T>>();
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
  const int64_t j0 = int64_t(blockIdx.x) * kPrototypes, bank = blockIdx.y, column = int64_t(blockIdx.z) * kWarp + lane;
  const Rows<T> prototypes = a.prototype_rows(bank, j0, a.k, kPrototypes);
  T* const out = grad_prototypes + (bank * a.k + j0) * a.d;
  T own[kPrototypes][1], sums[kPrototypes][1];
  load<kWhole>(prototypes, column, a.d, own);
  load<kWhole>(Rows<T>{out, a.d, prototypes.count}, column, a.d, sums, begun && warp == 0);
  for (int64_t first = 0; first < a.b; first += kStep) {
    const int64_t turn = first + warp * kTurn;
    const Rows<T> tokens = a.token_rows(a.tokens, bank, turn, kTurn),
                  grads = a.token_rows(grad_values, bank, turn, kTurn);
    T token[kTurn][1], grad[kTurn][1];
    load<kWhole>(tokens, column, a.d, token, tokens.count > 0);
    load<kWhole>(grads, column, a.d, grad, tokens.count > 0);
    __syncthreads();  // the pairs before were in use
    const int j = thread % kPrototypes;
    constexpr int rows = kSoftThreads / kPrototypes;
#pragma unroll
    for (int i = 0; i < kStep / rows; ++i) {
      const int c = thread / kPrototypes + i * rows;
      Pack<T, 2> pair = {};
      if (first + c < a.b && (kWhole || j < prototypes.count)) pair = pairs[(bank * a.b + first + c) * a.k + j0 + j];
      shared.pair[c][j] = pair;
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kTurn; ++c) {
      if (kWhole ? tokens.count <= 0 : c >= tokens.count) break;
#pragma unroll
      for (int j = 0; j < kPrototypes; ++j) {
        const Pack<T, 2> pair = shared.pair[warp * kTurn + c][j];
        const T sum = add_product(sums[j][0], pair.at[1], token[c][0] - own[j][0]);
        sums[j][0] = add_product(sum, pair.at[0], grad[c][0]);
      }
    }
  }
#pragma unroll
  for (int j = 0; j < kPrototypes; ++j) shared.part[warp][j][lane] = sums[j][0];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPrototypes / kSoftWarps; ++i) {
    const int j = warp + i * kSoftWarps;
    T sum = 0;
    for (int w = 0; w < kSoftWarps; ++w) sum += shared.part[w][j][lane];
    if (kWhole || (j < prototypes.count && column < a.d)) out[j * a.d + column] = sum;
  }
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kSoftThreads, 0, memory_attention_soft_bwd_tokens_kernel<float, true>),
    PPL_FAST_KERNEL(kSoftThreads, 0, memory_attention_soft_bwd_tokens_kernel<float, false>),
    PPL_FAST_KERNEL(kSoftThreads, sizeof(SumsShared<float>), memory_attention_soft_bwd_prototypes_kernel<float, true>),
    PPL_FAST_KERNEL(kSoftThreads, sizeof(SumsShared<float>), memory_attention_soft_bwd_prototypes_kernel<float, false>),
};

// As many banks and tokens at a time as have 2^23 pairs, which wait for the prototypes' kernel; but 64 tokens at least.
// The emulator takes fewer.
template <class T, bool kWhole>
void launch_differences(const Banks<T>& a, const Softmax<T>& softmax, const SoftGrad<T>& grad, bool needs_prototypes,
                        const Tensor& like, cudaStream_t stream) {
  if (a.b == 0) return;
  const int64_t most = needs_prototypes ? (enough_blocks() << 14) / a.k : a.b * a.m;
  const int64_t most_tokens = std::min(a.b, std::max<int64_t>(most / kStep, 1) * kStep);
  const int64_t most_banks = std::min(a.m, std::max<int64_t>(1, most / most_tokens));
  const auto waiting = empty(like, {needs_prototypes ? most_banks * most_tokens * a.k : 0, 2}, like.scalar_type());
  auto* const pairs = needs_prototypes ? reinterpret_cast<Pack<T, 2>*>(write<T>(waiting)) : nullptr;
  for (int64_t bank = 0; bank < a.m; bank += most_banks)
    for (int64_t token = 0; token < a.b; token += most_tokens) {
      const int64_t banks = std::min(most_banks, a.m - bank);
      const Banks<T> some = a.part(bank, token, most_tokens);
      const SoftGrad<T> g = grad.part(a, bank, token);
      launch(memory_attention_soft_bwd_tokens_kernel<T, kWhole>, token_grid(some, banks), kSoftThreads, 0, stream, some,
             softmax, g, pairs);
      if (needs_prototypes)
        launch(memory_attention_soft_bwd_prototypes_kernel<T, kWhole>,
               Grid{ceil_div(a.k, kPrototypes), banks, ceil_div(a.d, kWarp)}, kSoftThreads, sizeof(SumsShared<T>),
               stream, some, g.grad_values, pairs, g.grad_prototypes, token > 0);
    }
}

}  // namespace

void launch_soft_bwd(const Tensor& grad_values, const Tensor& grad_distances, const Tensor& tokens,
                     const Tensor& prototypes, const Tensor& values, const Tensor& indices, const Tensor& softmax,
                     double temperature, const Tensor& grad_tokens, const Tensor& grad_prototypes,
                     cudaStream_t stream) {
  dispatch(tokens.scalar_type(), "memory_attention_backward", [&](auto zero) {
    using T = decltype(zero);
    const auto a = make_banks<T>(tokens, prototypes);
    const T* const least = read<T>(softmax);
    SoftGrad<T> g = {read<T>(grad_values),
                     read<T>(grad_distances),
                     read<T>(values),
                     read<int64_t>(indices),
                     least,
                     least + a.b * a.m,
                     nullptr,
                     write<T>(grad_tokens),
                     write<T>(grad_prototypes)};
    const bool needs_prototypes = grad_prototypes.numel() > 0 && a.b > 0;
    if constexpr (std::is_same_v<T, float>)
      if (pays_on_tensor_cores(a, tokens.get_device_index())) {
        const auto q = empty(tokens, {a.b * a.m}, tokens.scalar_type());
        g.q = write<T>(q);
        return launch_soft_tensor_bwd(a, make_softmax<float>(temperature), g, needs_prototypes, tokens, stream);
      }
    (are_whole(a) ? launch_differences<T, true> : launch_differences<T, false>)(a, make_softmax<T>(temperature), g,
                                                                                needs_prototypes, tokens, stream);
  });
}

}  // namespace ppl_fast
