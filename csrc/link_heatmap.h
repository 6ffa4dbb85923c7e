// link_heatmap: the maths, once, for the CPU and the CUDA kernels, forward and backward.
//
// Everything happens in scaled coordinates: positions times sqrt(log2(e) / thickness). There, with r the vector from
// the link's nearest point to the pixel, the link's value is 2^(lw - |r|^2), lw = log2(weight): links are compared by
// lw - |r|^2 and one power of two is taken per pixel. L and P are scalars or vectors: a pixel against many links when
// culling, a link against many pixels when drawing.
#pragma once

#include "common.h"

namespace PPL_NAMESPACE {

// How large a scaled coordinate may be: up to there no square of a difference overflows, scaled or not. A sample with a
// keypoint farther off (1e17 in float32 at thickness 1e-3) is poisoned, like one that is not finite.
template <class T>
PPL_HD T largest_allowed(T scale) {
  return Limits<T>::root / 4 * (scale < 1 ? scale : T(1));
}

template <class L>
struct Link {
  L ax, ay;  // end a
  L dx, dy;  // b - a
  L ux, uy;  // (b - a) / |b - a|^2, or 0 for a link of zero length, which is then the point a
  L lw;      // log2(weight), -inf for a weight of 0 or less
};

// The link between p and q, which are not scaled yet. Their difference is taken first: of scaled ends a compiler may
// fuse one product with the subtraction, which leaves of two equal ends not 0 but the other product's rounding. And it
// is divided by |b - a|^2, not multiplied by the inverse, which overflows where the square is nearly 0.
template <class T>
PPL_HD Link<T> make_link(T px, T py, T qx, T qy, T scale, T lw) {
  const T dx = (qx - px) * scale, dy = (qy - py) * scale;
  const T length2 = dx * dx + dy * dy;
  const bool point = !(length2 > 0);
  return {px * scale, py * scale, dx, dy, point ? T(0) : dx / length2, point ? T(0) : dy / length2, lw};
}

template <class V>
struct Residual {
  V t;       // position of the nearest point on the link, 0 at a, 1 at b
  V rx, ry;  // from that point to the pixel
  V d2;      // |r|^2
};

template <class L, class P>
PPL_HD auto residual(const Link<L>& link, P px, P py) -> Residual<decltype(link.ax + px)> {
  const auto x = px - link.ax, y = py - link.ay;
  const auto t = clamp01(x * link.ux + y * link.uy);
  const auto rx = x - t * link.dx, ry = y - t * link.dy;
  return {t, rx, ry, rx * rx + ry * ry};
}

// A tile of pixels around its centre c: half its sides, widened by what rounding can move a coordinate.
template <class T>
struct Tile {
  T cx, cy, hx, hy;
};

template <class T>
PPL_HD Tile<T> make_tile(T x0, T x1, T y0, T y1, T largest_coordinate) {
  const T slack = 4 * Limits<T>::epsilon * largest_coordinate;
  return {(x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2 + slack, (y1 - y0) / 2 + slack};
}

// An upper bound of a link's log2 value on a tile, from its value v and its r at the centre: |r|^2 is convex in the
// pixel, so it lies above its tangent there.
template <class T, class V>
PPL_HD V upper_bound(const Tile<T>& tile, V v, V rx, V ry) {
  return v + 2 * (tile.hx * absolute(rx) + tile.hy * absolute(ry));
}

// Whether link e may win a pixel of the tile from link f, the best at the centre, both seen from there. |r_e|^2 lies
// above its tangent, and |r_f|^2 below |p - (f's nearest point to c)|^2, so v_e - v_f grows by at most 2 |r_e - r_f|
// . h + |h|^2 on the tile. What rounding can take from v_e and v_f is allowed for, 16 units in the last place of
// |v_e| + |v_f| + 1 <= 2 |v_f| + (v_f - v_e) + 1: no winner, as float arithmetic finds it, is ever dropped.
template <class T>
struct Rival {
  T threshold, fx, fy, hx2, hy2;
};

template <class T>
PPL_HD Rival<T> make_rival(const Tile<T>& tile, T vf, T fx, T fy) {
  const auto slack = 16 * epsilon_of(vf);
  const T grows = tile.hx * tile.hx + tile.hy * tile.hy;
  return {vf - grows - slack * (2 * absolute(vf) + vf + 1), fx, fy, 2 * tile.hx, 2 * tile.hy};
}

template <class T, class V>
PPL_HD auto may_win(const Rival<T>& f, V v, V rx, V ry) -> decltype(v > v) {
  return f.hx2 * absolute(rx - f.fx) + (f.hy2 * absolute(ry - f.fy) + v * (1 - 16 * epsilon_of(f.threshold))) >=
         f.threshold + V{};
}

}  // namespace PPL_NAMESPACE
