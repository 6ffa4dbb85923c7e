// link_heatmap on the CPU: what its files that are compiled once per instruction set share.
#pragma once

#include "link_heatmap_cpu.h"
#include "simd.h"

#include "link_heatmap.h"

namespace PPL_NAMESPACE {

template <class T>
using Index = typename Bits<T>::type;

constexpr int kPixels = kBlock * kBlock;
template <class T>
constexpr int kVectors = kPixels / kLanes<T>;

// As many links as a vector has lanes. Lane i of group g lies at g * kGroup<T> + i, its fields kLanes<T> apart.
template <class T>
struct Group {
  Link<Vec<T>> link;
  Vec<Index<T>> id;  // index in the sample
};
template <class T>
constexpr int kGroup = int(sizeof(Group<T>) / sizeof(T));
static_assert(sizeof(Group<float>) == kFields * sizeof(Vec<float>), "Group must be plain columns");

template <class T>
PPL_HD Link<T> get_link(const T* at) {
  constexpr int n = kLanes<T>;
  return {at[0], at[n], at[2 * n], at[3 * n], at[4 * n], at[5 * n], at[6 * n]};
}

template <class T>
PPL_HD Index<T> get_id(const T* at) {
  Index<T> id;
  __builtin_memcpy(&id, at + (kFields - 1) * kLanes<T>, sizeof(id));
  return id;
}

// Copies between a 4 x 4 block and the part of it that lies in the image; whole blocks as constant-size copies.
template <class To, class From>
PPL_HD void copy_block(To* to, int64_t to_width, const From* from, int64_t from_width, int64_t columns, int64_t rows) {
  if (columns == kBlock && rows == kBlock) {
    for (int y = 0; y < kBlock; ++y)
      for (int x = 0; x < kBlock; ++x) to[y * to_width + x] = To(from[y * from_width + x]);
  } else {
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < columns; ++x) to[y * to_width + x] = To(from[y * from_width + x]);
  }
}

// Vector k of what a 4 x 4 block, whose rows lie `stride` apart, holds lane by lane.
template <class T>
PPL_HD Vec<T> load_block(const T* block, int64_t stride, int k) {
  const int first = k * kLanes<T>;
  return load_rows<T>(block + first / kBlock * stride + first % kBlock, stride);
}

template <class T>
struct Down {  // the pixel centres of the rows of a block
  Vec<T> y[kVectors<T>];

  explicit Down(const T* ys) {
    T py[kPixels];
    for (int i = 0; i < kPixels; ++i) py[i] = ys[i / kBlock];
    for (int k = 0; k < kVectors<T>; ++k) y[k] = load(py + k * kLanes<T>);
  }
};

// Rows [y0, y1) of a sample: G is the gradient times 2^-|r|^2 (see LinkHeatmapKernels).
template <class T, class I>
void backward(const LinkRows<T>& rows, const T* grad_heatmap, const I* winner, T* scratch, T* sums);

}  // namespace PPL_NAMESPACE
