// link_heatmap on the CPU: what link_heatmap_cpu.cpp hands to link_heatmap_simd.cpp.
#pragma once

#include <cstdint>

namespace ppl_fast {

constexpr int kTile = 16;       // links are culled for tiles of 16 x 16 pixels, then for
constexpr int kBlock = 4;       // blocks of 4 x 4 within them
constexpr int kPad = 16;        // tables are padded to whole vectors of any width
constexpr int kLinkFields = 7;  // as in Link
constexpr int kGradFields = 5;  // per link, sums over the pixels it won: G, (1 - t) G r (x, y), t G r (x, y)

template <class T>
struct LinkRows {            // rows [y0, y1) of one sample
  const T* table;            // (kLinkFields, stride): the fields of Link, padded by links that never win
  int64_t num_links, stride;
  const T *xs, *ys;          // (width + kPad), (height + kPad): pixel centres in scaled coordinates
  T largest_coordinate;      // of pixels and keypoints, for the rounding slack
  int64_t width, y0, y1;
};

template <class T, class I>
struct LinkHeatmapKernels {
  int64_t lanes;
  // scratch: kLinkFields * stride + 5 * stride values. heatmap and winner are the whole sample's, (height, width).
  void (*forward)(const LinkRows<T>& rows, T* scratch, T* heatmap, I* winner);
  // lane_sums: (num_links, kGradFields, lanes), zero on entry. G is the gradient times 2^-|r|^2.
  void (*backward)(const LinkRows<T>& rows, const T* grad_heatmap, const I* winner, T* lane_sums);
};

namespace baseline {
template <class T, class I>
LinkHeatmapKernels<T, I> link_heatmap_kernels();
}
namespace avx2 {
template <class T, class I>
LinkHeatmapKernels<T, I> link_heatmap_kernels();
}
namespace avx512 {
template <class T, class I>
LinkHeatmapKernels<T, I> link_heatmap_kernels();
}

}  // namespace ppl_fast
