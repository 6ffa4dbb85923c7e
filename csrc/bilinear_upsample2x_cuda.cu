// bilinear_upsample2x on CUDA: a thread takes 16 bytes of the channels of a column of cells and walks down a strip of
// rows. Forward, it blends each row once for its two columns of outputs, keeps the blends of three rows and writes 2 x
// 2 outputs a cell; backward, it adds up two rows of outputs a cell, each over four columns, and keeps two more for the
// next. Neighbouring columns come from L1, the rows at a strip's ends a second time from L2. Channels that C does not
// divide so go one by one, and contiguous maps as pictures of one channel, whose outputs are written in pairs. 20 bytes
// a float32 cell in each direction: (64, 256, 64, 64) moves 1.34 GB, 310 us on an H200 (4.3 TB/s), several times what
// the instructions take (cycle_model.py); it takes 362 forward and 356 backward. Not taken: a thread a cell, which
// would read each three times from L2; tiles in shared memory, which would do what L1 does, with barriers.
#include "common.cuh"

#include "bilinear_upsample2x.h"
#include "bilinear_upsample2x_arguments.h"

namespace ppl_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kStrip = 8;  // rows of cells that a thread walks

// How maps, not doubled ones, are cut into threads' shares: N numbers of a cell each.
struct Cut {
  int64_t height, width;
  int64_t shares;  // of a cell
  int64_t strips;  // of a picture
};

// What a thread takes.
struct Place {
  __device__ Place(const Cut& cut) {
    const int64_t first = int64_t(blockIdx.x) * kThreads, across = cut.width * cut.shares;
    const unsigned at = unsigned(first % across) + threadIdx.x, row = unsigned(across);
    const int64_t strip = first / across + at / row;
    picture = strip / cut.strips;
    top = strip % cut.strips * kStrip;
    column = int(at % row / unsigned(cut.shares));
    share = int(at % row % unsigned(cut.shares));
  }
  int64_t picture, top;
  int column, share;
};

template <class T, int N, class S>
__device__ void load_numbers(const S* from, T (&to)[N]) {
  const Pack<S, N> pack = *reinterpret_cast<const Pack<S, N>*>(from);
  for (int k = 0; k < N; ++k) to[k] = T(pack.at[k]);
}

template <class S, int N, class T>
__device__ void store_numbers(const T (&from)[N], S* to) {
  Pack<S, N> pack;
  for (int k = 0; k < N; ++k) pack.at[k] = S(from[k]);
  *reinterpret_cast<Pack<S, N>*>(to) = pack;
}

// N numbers of each of the two outputs of a column of cells; Alone: that is all there is of a cell.
template <class T, int N>
struct Outputs {
  T even[N], odd[N];
};

template <bool Alone, class S, class T, int N>
__device__ void store_outputs(const Outputs<T, N>& from, S* to, int64_t channels) {
  if constexpr (Alone) {
    const T pair[2] = {from.even[0], from.odd[0]};
    store_numbers(pair, to);
  } else {
    store_numbers(from.even, to), store_numbers(from.odd, to + channels);
  }
}

template <class S, int N, bool Alone>
__global__ void __launch_bounds__(kThreads)
    bilinear_upsample2x_fwd_kernel(const S* __restrict__ maps, Cut cut, int64_t pictures, S* out) {
  using T = Compute<S>;
  const Place place(cut);
  if (place.picture >= pictures) return;
  const int64_t channels = Alone ? 1 : N * cut.shares, line = cut.width * channels, j = place.column;
  const Around<T> columns = around<T>(j, cut.width);
  maps += place.picture * cut.height * line + N * place.share;
  out += (4 * place.picture * cut.height * cut.width + 2 * j) * channels + N * place.share;

  const auto blended = [&](int64_t row) {
    const S* const from = maps + row * line;
    T before[N], here[N], after[N];
    load_numbers(from + columns.before * channels, before);
    load_numbers(from + j * channels, here);
    load_numbers(from + columns.after * channels, after);
    Outputs<T, N> to;
    for (int k = 0; k < N; ++k) {
      to.even[k] = even_output(columns, before[k], here[k]);
      to.odd[k] = odd_output(columns, here[k], after[k]);
    }
    return to;
  };
  const int64_t bottom = place.top + kStrip < cut.height ? place.top + kStrip : cut.height;
  Outputs<T, N> above = blended(around<T>(place.top, cut.height).before), here = blended(place.top);
#pragma unroll 1
  for (int64_t i = place.top; i < bottom; ++i) {
    const Around<T> rows = around<T>(i, cut.height);
    const Outputs<T, N> below = blended(rows.after);
    Outputs<T, N> even, odd;
    for (int k = 0; k < N; ++k) {
      even.even[k] = even_output(rows, above.even[k], here.even[k]);
      even.odd[k] = even_output(rows, above.odd[k], here.odd[k]);
      odd.even[k] = odd_output(rows, here.even[k], below.even[k]);
      odd.odd[k] = odd_output(rows, here.odd[k], below.odd[k]);
    }
    store_outputs<Alone>(even, out + 4 * i * line, channels);
    store_outputs<Alone>(odd, out + (4 * i + 2) * line, channels);
    above = here, here = below;
  }
}

template <class S, int N, bool Alone>
__global__ void __launch_bounds__(kThreads)
    bilinear_upsample2x_bwd_kernel(const S* __restrict__ grad, Cut cut, int64_t pictures, S* grad_maps) {
  using T = Compute<S>;
  const Place place(cut);
  if (place.picture >= pictures) return;
  const int64_t channels = Alone ? 1 : N * cut.shares, line = cut.width * channels, j = place.column;
  const Taps<T> columns = taps<T>(j, cut.width);
  grad += 4 * place.picture * cut.height * line + N * place.share;
  grad_maps += (place.picture * cut.height * cut.width + j) * channels + N * place.share;

  struct Sums {
    T at[N];
  };
  const auto summed = [&](int64_t row) {
    const S* const from = grad + 2 * row * line;
    Outputs<T, N> own;
    T first[N], last[N];
    load_numbers(from + columns.first * channels, first);
    if constexpr (Alone) {
      T pair[2];
      load_numbers(from + 2 * j, pair);
      own.even[0] = pair[0], own.odd[0] = pair[1];
    } else {
      load_numbers(from + 2 * j * channels, own.even), load_numbers(from + (2 * j + 1) * channels, own.odd);
    }
    load_numbers(from + columns.last * channels, last);
    Sums to;
    for (int k = 0; k < N; ++k) to.at[k] = gathered(columns, first[k], own.even[k], own.odd[k], last[k]);
    return to;
  };
  const int64_t bottom = place.top + kStrip < cut.height ? place.top + kStrip : cut.height;
  Sums first = summed(taps<T>(place.top, cut.height).first), even = summed(2 * place.top);
#pragma unroll 1
  for (int64_t i = place.top; i < bottom; ++i) {
    const Taps<T> rows = taps<T>(i, cut.height);
    const Sums odd = summed(2 * i + 1), last = summed(rows.last);
    T sum[N];
    for (int k = 0; k < N; ++k) sum[k] = gathered(rows, first.at[k], even.at[k], odd.at[k], last.at[k]);
    store_numbers(sum, grad_maps + i * line);
    first = odd, even = last;
  }
}

bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Launches the kernel for N numbers at a time, which `choose(N, Alone)` gives, both as constants.
template <class S, class F>
void launch_cut(const OnDevice& device, const Pictures& p, int64_t height, int64_t width, const S* from, S* to,
                F choose) {
  STD_TORCH_CHECK(width * p.channels <= INT32_MAX, "bilinear_upsample2x: a row of a picture must hold less than 2^31 ",
                  "numbers on CUDA");
  constexpr int wide = 16 / sizeof(S);
  const auto run = [&](auto numbers, auto alone) {
    const Cut cut{height, width, p.channels / numbers.value, ceil_div(height, kStrip)};
    const int64_t threads = p.pictures * cut.strips * width * cut.shares;
    launch(choose(numbers, alone), Grid{ceil_div(threads, kThreads)}, kThreads, 0, device.stream(), from, cut,
           p.pictures, to);
  };
  using One = std::integral_constant<int, 1>;
  if (p.channels == 1)
    run(One(), std::true_type());
  else if (p.channels % wide == 0 && is_aligned(from) && is_aligned(to))
    run(std::integral_constant<int, wide>(), std::false_type());
  else
    run(One(), std::false_type());
}

Tensor bilinear_upsample2x_cuda(const Tensor& maps) {
  check_bilinear_upsample2x(maps);
  const OnDevice device(maps);
  const Pictures p(maps);
  const auto doubled = empty_maps(maps, 2 * p.height, 2 * p.width);
  dispatch_storage(maps.scalar_type(), "bilinear_upsample2x", [&](auto zero) {
    using S = decltype(zero);
    launch_cut(device, p, p.height, p.width, read<S>(p.data), write<S>(doubled), [](auto numbers, auto alone) {
      return bilinear_upsample2x_fwd_kernel<S, decltype(numbers)::value, decltype(alone)::value>;
    });
  });
  return doubled;
}

Tensor bilinear_upsample2x_backward_cuda(const Tensor& grad_doubled) {
  check_bilinear_upsample2x_backward(grad_doubled);
  const OnDevice device(grad_doubled);
  const Pictures p(grad_doubled);
  const int64_t height = p.height / 2, width = p.width / 2;
  const auto grad_maps = empty_maps(grad_doubled, height, width);
  dispatch_storage(grad_doubled.scalar_type(), "bilinear_upsample2x_backward", [&](auto zero) {
    using S = decltype(zero);
    launch_cut(device, p, height, width, read<S>(p.data), write<S>(grad_maps), [](auto numbers, auto alone) {
      return bilinear_upsample2x_bwd_kernel<S, decltype(numbers)::value, decltype(alone)::value>;
    });
  });
  return grad_maps;
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kThreads, 0, bilinear_upsample2x_fwd_kernel<float, 4, false>),
    PPL_FAST_KERNEL(kThreads, 0, bilinear_upsample2x_fwd_kernel<float, 1, false>),
    PPL_FAST_KERNEL(kThreads, 0, bilinear_upsample2x_fwd_kernel<float, 1, true>),
    PPL_FAST_KERNEL(kThreads, 0, bilinear_upsample2x_bwd_kernel<float, 4, false>),
    PPL_FAST_KERNEL(kThreads, 0, bilinear_upsample2x_bwd_kernel<float, 1, false>),
    PPL_FAST_KERNEL(kThreads, 0, bilinear_upsample2x_bwd_kernel<float, 1, true>),
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("bilinear_upsample2x"), TORCH_BOX(&bilinear_upsample2x_cuda));
  m.impl(PPL_FAST_CUDA_OP("bilinear_upsample2x_backward"), TORCH_BOX(&bilinear_upsample2x_backward_cuda));
}

}  // namespace ppl_fast
