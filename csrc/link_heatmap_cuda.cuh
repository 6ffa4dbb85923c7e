// link_heatmap on CUDA: what forward and backward share.
#pragma once

#include "link_heatmap.h"
#include "link_heatmap_arguments.h"

#include "common.cuh"

namespace ppl_fast {

template <class S>
struct Scene {  // inputs and pixel grid; x = (2 i - last) step + origin, in scaled coordinates, for pixel column i
  using T = Compute<S>;
  const S *keypoints, *weights;
  const int64_t* links;
  int num_keypoints, num_links, width, height;
  int64_t weight_stride;
  T scale, step_x, step_y, origin_x, origin_y;

  __device__ T x(int i) const { return T(2 * i - (width - 1)) * step_x + origin_x; }
  __device__ T y(int i) const { return T(2 * i - (height - 1)) * step_y + origin_y; }

  // The part of the image in columns x0 ... x0 + columns - 1 and as many rows; some pixel at the border if there is
  // none.
  __device__ Tile<T> tile(int x0, int y0, int columns, int rows, T largest) const {
    return make_tile(x(min(x0, width - 1)), x(min(x0 + columns, width) - 1), y(min(y0, height - 1)),
                     y(min(y0 + rows, height) - 1), largest);
  }
};

// Links in shared memory, as two arrays of four numbers: neighbouring lanes read neighbouring 16 bytes. Rows of all
// eight would meet in the same banks, two by two.
template <class T>
struct Table {
  using Half = Pack<T, 4>;
  Half *ends, *rest;  // (ax, ay, dx, dy) and (ux, uy, lw, -)

  __device__ Link<T> operator[](int i) const {
    const Half e = ends[i], r = rest[i];
    return {e.at[0], e.at[1], e.at[2], e.at[3], r.at[0], r.at[1], r.at[2]};
  }
  __device__ void set(int i, const Link<T>& link) const {
    ends[i] = {link.ax, link.ay, link.dx, link.dy}, rest[i] = {link.ux, link.uy, link.lw, T(0)};
  }
};
template <class T>
constexpr size_t kTableBytes = 2 * sizeof(typename Table<T>::Half);  // a link

template <class T>
struct Built {
  Link<T> link;
  bool poisoned, positive;
};

template <class S, class T = Compute<S>>
__device__ Built<T> build(const Scene<S>& scene, int64_t sample, int e) {
  const int64_t i = scene.links[2 * e], j = scene.links[2 * e + 1];
  if (i < 0 || j < 0 || i >= scene.num_keypoints || j >= scene.num_keypoints) return {{}, true, false};
  const S *const p = scene.keypoints + 2 * (sample * scene.num_keypoints + i), *const q = p + 2 * (j - i);
  const T px = T(p[0]), py = T(p[1]), qx = T(q[0]), qy = T(q[1]),
          w = T(scene.weights[sample * scene.weight_stride + e]);
  const T lw = w > 0 ? log_of_two(w) : -T(INFINITY);
  return {make_link(px, py, qx, qy, scene.scale, lw), !isfinite(w), w > 0};
}

// Whether this thread, of a block that shares the work, finds a keypoint that is not finite or too far off; `largest`
// grows to the largest scaled coordinate that it finds.
template <class S, class T = Compute<S>>
__device__ bool survey_keypoints(const Scene<S>& scene, int64_t sample, T& largest) {
  bool poisoned = false;
  const S* const keypoints = scene.keypoints + 2 * sample * scene.num_keypoints;
  for (int i = threadIdx.x; i < 2 * scene.num_keypoints; i += blockDim.x) {
    const T value = absolute(T(keypoints[i]) * scene.scale);
    poisoned = poisoned || !(value <= largest_allowed(scene.scale));
    largest = fmax(largest, value);
  }
  return poisoned;
}

struct Winner {  // (B, H, W), int16 or int32
  void* at;
  bool wide;

  __device__ int load(int64_t i) const {
    return wide ? static_cast<const int32_t*>(at)[i] : static_cast<const int16_t*>(at)[i];
  }
};

// What the kernels count in 32 bits.
inline void check_counts(const Tensor& keypoints, const Tensor& links, int64_t height, int64_t width) {
  STD_TORCH_CHECK(keypoints.size(1) <= INT32_MAX / 2 && links.size(0) <= INT32_MAX / 2,
                  "link_heatmap: too many links or keypoints");
  STD_TORCH_CHECK(height >= 1 && width >= 1 && height <= INT32_MAX / 4 && width <= INT32_MAX / 4,
                  "link_heatmap: height and width must be from 1 to 2^29, got ", height, " and ", width);
}

inline double scale_of(double thickness) { return std::sqrt(1.4426950408889634 / thickness); }

// All tensors contiguous, keypoints and weights of type S.
template <class S>
Scene<S> make_scene(const Tensor& keypoints, const Tensor& weights, const Tensor& links, int64_t height, int64_t width,
                    double thickness) {
  using T = Compute<S>;
  const double scale = scale_of(thickness);
  const auto step = [&](int64_t size) { return T(size > 1 ? scale / double(size - 1) : 0); };
  const auto origin = [&](int64_t size) { return T(size > 1 ? 0 : -scale); };
  return {read<S>(keypoints), read<S>(weights), read<int64_t>(links), int(keypoints.size(1)),
          int(links.size(0)), int(width),       int(height),          weights.dim() == 2 ? links.size(0) : 0,
          T(scale),           step(width),      step(height),         origin(width),
          origin(height)};
}

}  // namespace ppl_fast
