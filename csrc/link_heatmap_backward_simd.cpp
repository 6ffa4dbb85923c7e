// link_heatmap on the CPU, backward, compiled once per instruction set.
//
// For each 4 x 4 block and each different winner in it, one masked evaluation; sums stay apart by lane until the band
// ends, so their order never changes. At N = 16, thickness 1e-3, a vector of eight pixels has 1.5 winners. Not taken:
// scattering per pixel (scalar, and the order of sums varies), and rows of pixels as vectors (a quarter more winners).
#include "link_heatmap_simd.h"

namespace PPL_NAMESPACE {

// Adds to a link's sums what the pixels of one vector that it won contribute.
template <class T>
PPL_HD void accumulate(const Link<T>& link, Vec<T> x, Vec<T> y, Vec<T> grad, Vec<Index<T>> won, T* sums) {
  const auto at = residual(link, x, y);
  // Selected, not multiplied by 0: a gradient that is not a number must stay with the link that won its pixel.
  const Vec<T> g = won ? grad * exp2<T>(-at.d2) : Vec<T>{};
  const Vec<T> to_b = at.t * g, to_a = g - to_b;
  const Vec<T> field[kGradFields] = {g, to_a * at.rx, to_a * at.ry, to_b * at.rx, to_b * at.ry};
  for (int c = 0; c < kGradFields; ++c) store(sums + c * kLanes<T>, load(sums + c * kLanes<T>) + field[c]);
}

// The gradients and winners of a block.
template <class T>
struct Upstream {
  Vec<T> grad[kVectors<T>];
  Vec<Index<T>> who[kVectors<T>];

  template <class I>
  Upstream(const T* from, const I* winner, int64_t width, int64_t columns, int64_t rows) {
    if (columns == kBlock && rows == kBlock) {
      read(from, winner, width);
      return;
    }
    T values[kPixels] = {};
    I ids[kPixels];
    for (I& id : ids) id = -1;
    copy_block(values, kBlock, from, width, columns, rows);
    copy_block(ids, kBlock, winner, width, columns, rows);
    read(values, ids, kBlock);
  }

  template <class I>
  PPL_HD void read(const T* from, const I* winner, int64_t width) {
    constexpr int bytes = sizeof(I) * kLanes<T>;
    for (int k = 0; k < kVectors<T>; ++k) {
      const int first = k * kLanes<T>;
      grad[k] = load_block(from, width, k);
      who[k] = __builtin_convertvector((load_rows<I, bytes>(winner + first / kBlock * width + first % kBlock, width)),
                                       Vec<Index<T>>);
    }
  }
};

template <class T, class I>
void backward(const LinkRows<T>& rows, const T* grad_heatmap, const I* winner, T* scratch, T* sums) {
  constexpr int n = kLanes<T>;
  const int64_t fields = rows.groups * n * kGradFields;
  T* const lane_sums = scratch;
  for (int64_t i = 0; i < fields * n; i += n) store(lane_sums + i, Vec<T>{});
  for (int64_t y = rows.y0; y < rows.y1; y += kBlock) {
    const Down<T> down(rows.ys + y);
    for (int64_t x = 0, at = y * rows.width; x < rows.width; x += kBlock) {
      const Upstream<T> up(grad_heatmap + at + x, winner + at + x, rows.width, lesser(rows.width - x, kBlock),
                           lesser(rows.y1 - y, kBlock));
      Index<T> ids[kPixels];
      uint32_t left[kVectors<T>];  // pixels that no link has accounted for yet
      for (int k = 0; k < kVectors<T>; ++k) {
        *reinterpret_cast<Vec<Index<T>>*>(ids + k * n) = up.who[k];
        left[k] = lane_bits(up.who[k] >= Vec<Index<T>>{});
      }
      for (int first = 0; first < kVectors<T>; ++first)
        while (left[first]) {
          const Index<T> id = ids[first * n + __builtin_ctz(left[first])];
          const T* const link = rows.table + id / n * kGroup<T> + id % n;
          for (int k = first; k < kVectors<T>; ++k) {
            const auto won = up.who[k] == id + Vec<Index<T>>{};
            const uint32_t bits = lane_bits(won);
            left[k] &= ~bits;
            if (bits)
              accumulate(get_link(link), load_block(rows.xs + x, 0, k), down.y[k], up.grad[k], won,
                         lane_sums + id * kGradFields * n);
          }
        }
    }
  }
  for (int64_t i = 0; i < fields; i += n) {
    Vec<T> v[n];
    for (int j = 0; j < n; ++j) v[j] = load(lane_sums + (i + j) * n);
    store(sums + i, add_lanes_of<T>(v));
  }
}

template void backward(const LinkRows<float>&, const float*, const int16_t*, float*, float*);
template void backward(const LinkRows<float>&, const float*, const int32_t*, float*, float*);
template void backward(const LinkRows<double>&, const double*, const int16_t*, double*, double*);
template void backward(const LinkRows<double>&, const double*, const int32_t*, double*, double*);

}  // namespace PPL_NAMESPACE
