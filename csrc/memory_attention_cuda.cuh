// memory_attention on CUDA: sums over d of pairs of rows, and the running choice of the nearest prototype.
#pragma once

#include "memory_attention.h"

#include "common.cuh"

namespace ppl_fast {

constexpr int kSide = 16;  // a block's threads, 16 x 16, meet two sets of rows
constexpr int kPairThreads = kSide * kSide;

// RowsX x RowsY pairs a thread: a block holds 16 RowsX rows of x and 16 RowsY of y, Depth of their elements at a time.
template <class T, int RowsX, int RowsY>
struct PairShape {
  static constexpr int rows_x = RowsX, rows_y = RowsY, x = kSide * RowsX, y = kSide * RowsY;
  static constexpr int depth = (RowsX * RowsY >= 16 ? 128 : RowsX * RowsY > 1 ? 256 : 512) / int(sizeof(T));
  static constexpr int vector = 16 / int(sizeof(T));
  // Sums that a thread keeps of one pair: enough independent ones to hide the latency of an addition.
  static constexpr int chains = RowsX * RowsY >= 16 ? 1 : vector;

  struct alignas(16) Shared {
    T row[x + y][depth + vector];  // the padding spreads neighbouring rows over the banks
  };
};

template <class S>
struct Rows {
  const S* at;
  int64_t stride;
  int count;
};

struct SquaredDifference {
  template <class T>
  __device__ T operator()(T sum, T x, T y) const {
    return add_squared_difference(sum, x, y);
  }
};
struct Product {
  template <class T>
  __device__ T operator()(T sum, T x, T y) const {
    return add_product(sum, x, y);
  }
};

// sums[i][j] = the sum over d of pair(x_r, y_c), r = threadIdx.x / 16 + 16 i, c = threadIdx.x % 16 + 16 j; of no
// meaning past the last row. Every sum has the same order, wherever its pair falls, so that equal prototypes are
// equally far. The next piece is on its way from memory while the last is used.
template <class Shape, class S, class T, class Pair>
__device__ void pair_sums(typename Shape::Shared& shared, const Rows<S>& x, const Rows<S>& y, int64_t d, Pair pair,
                          T (&sums)[Shape::rows_x][Shape::rows_y]) {
  constexpr int step = kPairThreads / Shape::depth;  // rows that the block loads at once
  constexpr int loads_x = Shape::x / step, loads = loads_x + Shape::y / step;
  const int thread = threadIdx.x, column = thread % Shape::depth, row = thread / Shape::depth;
  T next[loads];
  const auto fetch = [&](int64_t from) {
    const bool inside = from + column < d;
#pragma unroll
    for (int i = 0; i < loads; ++i) {
      const bool of_x = i < loads_x;  // known when compiled
      const int r = row + (of_x ? i : i - loads_x) * step;
      const S* const at = (of_x ? x.at : y.at) + r * (of_x ? x.stride : y.stride) + from + column;
      next[i] = inside && r < (of_x ? x.count : y.count) ? T(*at) : T(0);
    }
  };
  T part[Shape::rows_x][Shape::rows_y][Shape::chains] = {};
  fetch(0);
  for (int64_t from = 0; from < d; from += Shape::depth) {
    __syncthreads();  // the piece before was in use
#pragma unroll
    for (int i = 0; i < loads; ++i) shared.row[row + i * step][column] = next[i];
    __syncthreads();
    if (from + Shape::depth < d) fetch(from + Shape::depth);
    for (int c = 0; c < Shape::depth; c += Shape::vector) {
      using Vector = Pack<T, Shape::vector>;
      Vector vx[Shape::rows_x];
#pragma unroll
      for (int i = 0; i < Shape::rows_x; ++i)
        vx[i] = *reinterpret_cast<const Vector*>(&shared.row[thread / kSide + kSide * i][c]);
#pragma unroll
      for (int j = 0; j < Shape::rows_y; ++j) {
        if (kSide * j >= y.count) break;
        const Vector vy = *reinterpret_cast<const Vector*>(&shared.row[Shape::x + thread % kSide + kSide * j][c]);
#pragma unroll
        for (int i = 0; i < Shape::rows_x; ++i)
#pragma unroll
          for (int v = 0; v < Shape::vector; ++v) {
            T& sum = part[i][j][v % Shape::chains];
            sum = pair(sum, vx[i].at[v], vy.at[v]);
          }
      }
    }
  }
  for (int i = 0; i < Shape::rows_x; ++i)
    for (int j = 0; j < Shape::rows_y; ++j) {
      sums[i][j] = part[i][j][0];
      for (int v = 1; v < Shape::chains; ++v) sums[i][j] += part[i][j][v];
    }
}

// store(i, load(i)) for those of the d elements that are this lane's, one of `lanes`; loads travel four together.
template <class S, class Load, class Store>
__device__ void for_elements(int64_t d, int lane, int lanes, Load load, Store store) {
  constexpr int batch = 4;
  for (int64_t i = lane; i < d; i += batch * lanes) {
    S value[batch];
#pragma unroll
    for (int c = 0; c < batch; ++c)
      if (i + c * lanes < d) value[c] = load(i + c * lanes);
#pragma unroll
    for (int c = 0; c < batch; ++c)
      if (i + c * lanes < d) store(i + c * lanes, value[c]);
  }
}

// The nearest prototype so far. A distance that is not a number stays; its index is then 0, as the reference has it.
template <class T>
struct alignas(2 * sizeof(T)) Choice {  // so that it travels as one
  T distance;
  int index;

  __device__ void meet(T other, int at) {
    if (other < distance || other != other) distance = other, index = at;
  }
  __device__ void meet(const Choice& other) {
    if (distance != distance) return;
    if (other.distance < distance || other.distance != other.distance ||
        (other.distance == distance && other.index < index))
      *this = other;
  }
  __device__ int nearest() const { return distance != distance ? 0 : index; }
};

// The nearest of what Width neighbouring lanes have met.
template <int Width, class T>
__device__ Choice<T> lane_choice(Choice<T> choice) {
  for (int offset = Width / 2; offset > 0; offset /= 2)
    choice.meet(Choice<T>{__shfl_xor_sync(kAllLanes, choice.distance, offset),
                          __shfl_xor_sync(kAllLanes, choice.index, offset)});
  return choice;
}

template <class S>
struct Banks {
  const S *tokens, *prototypes;  // (b, m, d), (m, k, d)
  int64_t b, m, k, d;

  __device__ Rows<S> token_rows(const S* tensor, int64_t bank, int64_t first,
                                int most) const {  // of a (b, m, d) tensor
    return {tensor + (first * m + bank) * d, m * d, int(min(b - first, int64_t(most)))};
  }
  __device__ Rows<S> prototype_rows(int64_t bank, int64_t first, int64_t end, int most) const {
    return {prototypes + (bank * k + first) * d, d, int(min(end - first, int64_t(most)))};
  }
  // From a bank and a token on, that many tokens.
  Banks part(int64_t bank, int64_t token, int64_t most_tokens) const {
    return {tokens + (token * m + bank) * d, prototypes + bank * k * d, std::min(most_tokens, b - token), m, k, d};
  }
};

template <class S>
Banks<S> make_banks(const Tensor& tokens, const Tensor& prototypes) {
  return {read<S>(tokens), read<S>(prototypes), tokens.size(0), tokens.size(1), prototypes.size(1), tokens.size(2)};
}

// Hard mode on tensor cores (memory_attention_screen_cuda.cu): the choices of each share of the prototypes, (shares, b,
// m). For half types and float32, where has_tensor_cores: what counts is the code that the current device has loaded,
// which on a new GPU may be PTX for an old one, without these instructions.
constexpr int kScreenTokens = 64, kScreenStep = 128;
constexpr int64_t kMostScreenStride = INT32_MAX / kScreenStep;  // between rows of tokens, m d: a tile's offsets fit int
template <class S>
bool has_tensor_cores(int device);
template <class S>
void launch_screen(const Banks<S>& a, int64_t share, Choice<float>* partial, cudaStream_t stream);

// Hard mode's gradient of the prototypes (memory_attention_sums_cuda.cu): from the distances of those that chose them.
// It may run beside the kernel launched before.
template <class S>
void launch_sums_gradient(const Banks<S>& a, const int64_t* indices, const S* grad_distances, S* grad_prototypes,
                          int device, cudaStream_t stream);

// Soft mode on tensor cores (memory_attention_soft_tensor_cuda.cu, memory_attention_soft_tensor_backward_cuda.cu).
template <class T>
struct SoftOut {
  T* values;
  int64_t* indices;
  T *distances, *least, *total;  // the smallest distance twice: once for the backward, not rounded to a half type
};
// P, of the same sum as in the forward, so that of the nearest prototype it is 1 / total.
template <class T>
__device__ T softmax_weight(T sharpness, T least, T total, T distance) {
  return power_of_two((least - distance) * sharpness) / total;
}
template <class T>
struct SoftGrad {
  const T *grad_values, *grad_distances, *values;
  const int64_t* indices;
  const T *least, *total;
  T* q;  // (b, m), of the kernels on tensor cores: the tokens' leaves it for the prototypes'
  T *grad_tokens, *grad_prototypes;

  // The nearest prototype of a token.
  __device__ const T* nearest(const Banks<T>& a, int64_t bank, int64_t token) const {
    return a.prototypes + (bank * a.k + min(max(indices[token * a.m + bank], int64_t(0)), a.k - 1)) * a.d;
  }
  // P of the token at `at` and a prototype.
  __device__ T weight(T sharpness, int64_t at, T distance) const {
    return softmax_weight(sharpness, least[at], total[at], distance);
  }
  // From a bank and a token on, all but q.
  SoftGrad part(const Banks<T>& a, int64_t bank, int64_t token) const {
    SoftGrad g = *this;
    const int64_t at = token * a.m + bank;
    g.grad_values += at * a.d, g.values += at * a.d, g.grad_tokens += at * a.d;
    g.grad_distances += at, g.indices += at, g.least += at, g.total += at, g.grad_prototypes += bank * a.k * a.d;
    return g;
  }
};

void launch_soft_tensor_fwd(const Banks<float>& a, const Softmax<float>& softmax, const SoftOut<float>& out,
                            const Tensor& like, cudaStream_t stream);
void launch_soft_tensor_bwd(const Banks<float>& a, const Softmax<float>& softmax, const SoftGrad<float>& grad,
                            bool needs_prototypes, const Tensor& like, cudaStream_t stream);

// Blocks that fill a large GPU, two on each multiprocessor; the emulator is full sooner, so that small sizes make
// blocks take several steps, too.
#ifndef PPL_FAST_EMULATE_CUDA
inline int64_t enough_blocks() { return 512; }
#else
using cuda_emulator::enough_blocks;
#endif

// Prototypes that a block takes: all, or few enough that enough blocks share the work; it depends on shapes alone.
inline int64_t share_of(int64_t blocks, int64_t k, int64_t step) {
  const int64_t steps = ceil_div(k, step);
  const int64_t shares = std::min(steps, ceil_div(enough_blocks(), std::max<int64_t>(1, blocks)));
  return ceil_div(steps, shares) * step;
}

// Blocks that run at once on the current device, two on each multiprocessor.
#ifndef PPL_FAST_EMULATE_CUDA
inline int64_t running_blocks() {
  int device = 0, multiprocessors = 0;
  STD_CUDA_CHECK(cudaGetDevice(&device));
  STD_CUDA_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  return 2 * multiprocessors;
}
#else
inline int64_t running_blocks() { return enough_blocks(); }
#endif

// The same on tensor cores, where steps are long: blocks come in waves as long as a block's steps and half a step for
// beginning, and of those numbers of shares that end first the least is taken. It depends on the device, too.
inline int64_t screen_share_of(int64_t blocks, int64_t k) {
  const int64_t steps = ceil_div(k, kScreenStep), running = running_blocks();
  int64_t best = steps, least = INT64_MAX;
  for (int64_t shares = 1; shares <= steps; ++shares) {
    const int64_t own = ceil_div(steps, shares), waves = ceil_div(blocks * ceil_div(steps, own), running);
    const int64_t halves = waves * (2 * own + 1);
    if (halves < least) least = halves, best = own;
  }
  return best * kScreenStep;
}

// Soft mode (memory_attention_soft_cuda.cu, memory_attention_soft_backward_cuda.cu); all tensors contiguous and of the
// compute type. By differences, unless it pays on tensor cores.
bool pays_on_tensor_cores(const Banks<float>& a, int device);
void launch_soft_fwd(const Tensor& tokens, const Tensor& prototypes, double temperature, const Tensor& values,
                     const Tensor& indices, const Tensor& distances, const Tensor& softmax, cudaStream_t stream);
void launch_soft_bwd(const Tensor& grad_values, const Tensor& grad_distances, const Tensor& tokens,
                     const Tensor& prototypes, const Tensor& values, const Tensor& indices, const Tensor& softmax,
                     double temperature, const Tensor& grad_tokens, const Tensor& grad_prototypes, cudaStream_t stream);

}  // namespace ppl_fast
