// link_heatmap on the CPU: what link_heatmap_cpu.cpp hands to link_heatmap_simd.cpp.
#pragma once

#include <cstdint>

namespace ppl_fast {

constexpr int kTile = 16;     // links are culled for tiles of 16 x 16 pixels, then for
constexpr int kBlock = 4;     // blocks of 4 x 4 within them
constexpr int kPad = 4;       // what a block may read past the last pixel centre
constexpr int kFields = 8;    // of a link: those of Link, then its index (an integer as wide as T)
constexpr int kScratch = 50;  // values of scratch a link, and
constexpr int kScratchBesides = 64;
constexpr int kGradFields = 5;  // sums a link, over the pixels it won: G, (1 - t) G r (x, y), t G r (x, y)

template <class T>
struct LinkRows {        // rows [y0, y1) of one sample
  const T* table;        // (groups, kFields, lanes); lanes past the last link have lw = -inf and never win
  int64_t groups;        // ceil(links / lanes)
  const T *xs, *ys;      // (width + kPad), (height + kPad): pixel centres in scaled coordinates
  T largest_coordinate;  // of pixels and keypoints, for the rounding slack
  int64_t width, y0, y1;
};

template <class T, class I>
struct LinkHeatmapKernels {
  int64_t lanes;
  // scratch: kScratch * groups * lanes + kScratchBesides values. heatmap and winner are the whole sample's, (height,
  // width).
  void (*forward)(const LinkRows<T>& rows, T* scratch, T* heatmap, I* winner);
  // G is the gradient times 2^-|r|^2. scratch: kGradFields * groups * lanes * lanes values; sums: (links, kGradFields),
  // padded to groups * lanes links.
  void (*backward)(const LinkRows<T>& rows, const T* grad_heatmap, const I* winner, T* scratch, T* sums);
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
