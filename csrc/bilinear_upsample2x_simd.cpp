// bilinear_upsample2x on the CPU, row by row. Forward and channels last, an output is the sum of four cells' channels,
// as vectors; of a single channel, whose outputs alternate, two rows are added up into scratch, and vectors of columns
// are shuffled. Backward, the four rows of outputs that a row of cells went into are added up into scratch, whatever
// they hold, and then its columns. Scratch stays in the caches: what is read and written is the maps, 20 bytes a
// float32 cell, which bounds it. Not taken: scratch forward and channels last, for which more is stored (1.27 of
// torch's time, not 1.1); both outputs of a cell at once. Channels that fill no vector go one by one.
#include "bilinear_upsample2x_cpu.h"
#include "bilinear_upsample2x.h"
#include "simd.h"

namespace PPL_NAMESPACE {
namespace {

template <class T>
void blend(T wa, const T* a, T wb, const T* b, int64_t n, T* to) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) store(to + i, wa * load(a + i) + wb * load(b + i));
  for (; i < n; ++i) to[i] = wa * a[i] + wb * b[i];
}

template <class T>
void add_up(const T (&w)[4], const T* a, const T* b, const T* c, const T* d, int64_t n, T* to) {
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>)
    store(to + i, w[0] * load(a + i) + w[1] * load(b + i) + w[2] * load(c + i) + w[3] * load(d + i));
  for (; i < n; ++i) to[i] = w[0] * a[i] + w[1] * b[i] + w[2] * c[i] + w[3] * d[i];
}

// Of two vectors' lanes in turns, the first or the second half.
template <int Lanes, int Half, int... I>
constexpr auto in_turns(std::integer_sequence<int, I...>) {
  return std::integer_sequence<int, (Half * Lanes / 2 + I / 2 + I % 2 * Lanes)...>();
}

// Columns of a single channel. row has kRowPad numbers on both sides; what comes of them is written over at the border.
template <class T>
void double_columns(const T* row, int64_t width, T* out) {
  constexpr std::make_integer_sequence<int, kLanes<T>> lanes;
  const Around<T> inside = around<T>(1, 3);
  int64_t j = 0;
  for (; j + kLanes<T> <= width; j += kLanes<T>) {
    const Vec<T> before = load(row + j - 1), here = load(row + j), after = load(row + j + 1);
    const Vec<T> even = even_output(inside, before, here), odd = odd_output(inside, here, after);
    store(out + 2 * j, pick(even, odd, in_turns<kLanes<T>, 0>(lanes)));
    store(out + 2 * j + kLanes<T>, pick(even, odd, in_turns<kLanes<T>, 1>(lanes)));
  }
  const auto one = [&](int64_t at) {
    const auto a = around<T>(at, width);
    out[2 * at] = even_output(a, row[a.before], row[at]), out[2 * at + 1] = odd_output(a, row[at], row[a.after]);
  };
  for (; j < width; ++j) one(j);
  one(0), one(width - 1);
}

template <class T>
void gather_columns(const T* row, int64_t width, T* out) {
  constexpr std::make_integer_sequence<int, kLanes<T>> lanes;
  const Taps<T> inside = taps<T>(1, 3);
  int64_t j = 0;
  for (; j + kLanes<T> <= width; j += kLanes<T>) {
    const T* const from = row + 2 * j;
    const Vec<T> a = load(from - 1), b = load(from - 1 + kLanes<T>), c = load(from + 1), d = load(from + 1 + kLanes<T>);
    store(out + j, gathered(inside, pick(a, b, halves<1, 0>(lanes)), pick(a, b, halves<1, 1>(lanes)),
                            pick(c, d, halves<1, 0>(lanes)), pick(c, d, halves<1, 1>(lanes))));
  }
  const auto one = [&](int64_t at) {
    const auto t = taps<T>(at, width);
    out[at] = gathered(t, row[t.first], row[2 * at], row[2 * at + 1], row[t.last]);
  };
  for (; j < width; ++j) one(j);
  one(0), one(width - 1);
}

// An output's channels, of two cells each of rows a and b, one output after the other: what is written in turns to two
// places of a page takes longer.
template <class T>
void double_cells(T wa, const T* a, T wb, const T* b, int64_t width, int64_t channels, T* out) {
  for (int64_t j = 0; j < width; ++j) {
    const auto c = around<T>(j, width);
    const int64_t before = c.before * channels, here = j * channels, after = c.after * channels;
    T* const to = out + 2 * here;
    add_up({wa * c.far, wa * c.near, wb * c.far, wb * c.near}, a + before, a + here, b + before, b + here, channels,
           to);
    add_up({wa * T(0.75), wa * T(0.25), wb * T(0.75), wb * T(0.25)}, a + here, a + after, b + here, b + after, channels,
           to + channels);
  }
}

template <class T>
void forward(const T* maps, int64_t row, int64_t height, int64_t width, int64_t channels, T* scratch, T* out) {
  const int64_t n = width * channels;
  const auto rows = around<T>(row / 2, height);
  const bool odd = row % 2;
  const T wa = odd ? T(0.75) : rows.far, wb = odd ? T(0.25) : rows.near;
  const T *const a = maps + (odd ? row / 2 : rows.before) * n, *const b = maps + (odd ? rows.after : row / 2) * n;
  if (channels == 1) {
    T* const blended = scratch + kRowPad;
    blend(wa, a, wb, b, n, blended);
    blended[-1] = blended[n] = 0;
    return double_columns(blended, width, out);
  }
  double_cells(wa, a, wb, b, width, channels, out);
}

template <class T>
void backward(const T* grad, int64_t row, int64_t height, int64_t width, int64_t channels, T* scratch, T* out) {
  const int64_t n = 2 * width * channels;
  const auto t = taps<T>(row, height);
  const T* const even = grad + 2 * row * n;
  T* const sums = scratch + kRowPad;
  add_up(t.weight, grad + t.first * n, even, even + n, grad + t.last * n, n, sums);
  if (channels == 1) {
    sums[-1] = sums[n] = 0;
    return gather_columns(sums, width, out);
  }
  for (int64_t j = 0; j < width; ++j) {
    const auto c = taps<T>(j, width);
    const T* const cell = sums + 2 * j * channels;
    add_up(c.weight, sums + c.first * channels, cell, cell + channels, sums + c.last * channels, channels,
           out + j * channels);
  }
}

}  // namespace

template <class T>
Upsample2xKernels<T> upsample2x_kernels() {
  return {forward<T>, backward<T>};
}

template Upsample2xKernels<float> upsample2x_kernels<float>();
template Upsample2xKernels<double> upsample2x_kernels<double>();

}  // namespace PPL_NAMESPACE
