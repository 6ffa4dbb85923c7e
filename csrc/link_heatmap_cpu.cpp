// link_heatmap on the CPU: tables, threads and reductions around the kernels of link_heatmap_simd.cpp.
#include "link_heatmap_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>
#include <vector>

#include "link_heatmap.h"
#include "link_heatmap_arguments.h"
#include "simd_dispatch.h"
#include "operators.h"
#include "pages.h"
#include "tensors.h"

namespace ppl_fast {
namespace {

constexpr int64_t kGrain = 8;      // samples whose tables a thread makes; fewer are not worth waking one
constexpr int64_t kBandRows = 64;  // a backward job; fixed, so that the order of sums does not depend on the threads

enum class Sample : char { drawn, dark, poisoned };  // dark: no weight is positive, so S = 0 and link 0 wins the tie

template <class T>
struct Buffer {  // not initialised; no vector of T in it lies across cache lines
  std::unique_ptr<T[]> memory;
  T* data;

  explicit Buffer(int64_t count) : memory(new T[count + kLine]) {
    constexpr uintptr_t bytes = kLine * sizeof(T);
    data = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory.get()) + bytes - 1) / bytes * bytes);
  }

 private:
  static constexpr int64_t kLine = 64 / sizeof(T);
};

template <class T>
struct LinkTables {  // the links of all samples in scaled coordinates
  int64_t samples, num_links, lanes, groups, height, width;
  T scale, largest_coordinate;
  Buffer<T> table;
  std::vector<T> xs, ys;
  std::vector<Sample> state;

  LinkTables(const Tensor& keypoints, const Tensor& weights, const Tensor& links, int64_t h, int64_t w,
             double thickness, int64_t lanes)
      : samples(keypoints.size(0)),
        num_links(links.size(0)),
        lanes(lanes),
        groups((num_links + lanes - 1) / lanes),
        height(h),
        width(w),
        scale(T(std::sqrt(1.4426950408889634 / thickness))),
        table(samples * groups * kFields * lanes) {
    xs = centres(width), ys = centres(height);
    state.resize(samples);
    std::vector<T> largest(samples), logs(weights.numel());
    const int64_t weight_stride = weights.dim() == 2 ? num_links : 0;
    if (!weight_stride) log2_weights(read<T>(weights), weights.numel(), logs.data());
    torch::stable::parallel_for(0, samples, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const T* const w = read<T>(weights) + b * weight_stride;
        T* const log = logs.data() + b * weight_stride;
        if (weight_stride) log2_weights(w, num_links, log);
        largest[b] =
            fill(b, read<T>(keypoints) + b * keypoints.size(1) * 2, keypoints.size(1), w, log, read<int64_t>(links));
      }
    });
    largest_coordinate = scale;
    for (T value : largest) largest_coordinate = std::max(largest_coordinate, value);
  }

  static void log2_weights(const T* weights, int64_t count, T* logs) {
    for (int64_t i = 0; i < count; ++i)
      logs[i] = weights[i] > 0 ? std::log2(weights[i]) : -std::numeric_limits<T>::infinity();
  }

  std::vector<T> centres(int64_t size) const {
    std::vector<T> at(size + kPad);  // the padding is evaluated with the last block and then dropped
    for (int64_t i = 0; i < size; ++i) at[i] = T(scale * (size > 1 ? 2.0 * i / (size - 1) - 1 : -1.0));
    return at;
  }

  T fill(int64_t b, const T* keypoints, int64_t num_keypoints, const T* weights, const T* logs, const int64_t* links) {
    T* const fields = table.data + b * groups * kFields * lanes;
    for (int64_t i = 0; num_links % lanes && i < kFields * lanes; ++i)  // the last group is not full
      fields[(groups - 1) * kFields * lanes + i] = i / lanes == 6 ? -std::numeric_limits<T>::infinity() : T(0);
    bool finite = true, positive = false;
    T largest = 0;
    for (int64_t i = 0; i < 2 * num_keypoints; ++i) {
      const T coordinate = std::abs(keypoints[i] * scale);
      finite = finite && coordinate <= largest_allowed(scale);
      largest = std::max(largest, coordinate);
    }
    T* at = fields;
    for (int64_t e = 0, lane = 0; e < num_links; ++e) {
      const T *p = keypoints + 2 * links[2 * e], *q = keypoints + 2 * links[2 * e + 1];
      const auto link = make_link(p[0], p[1], q[0], q[1], scale, logs[e]);
      const T value[kFields] = {link.ax, link.ay, link.dx, link.dy, link.ux, link.uy, link.lw, index_bits(e)};
      for (int c = 0; c < kFields; ++c) at[c * lanes + lane] = value[c];
      if (++lane == lanes) lane = 0, at += kFields * lanes;
      finite = finite && std::isfinite(weights[e]);
      positive = positive || weights[e] > 0;
    }
    state[b] = !finite ? Sample::poisoned : positive || num_links == 0 ? Sample::drawn : Sample::dark;
    return finite ? largest : T(0);
  }

  static T index_bits(int64_t e) {  // the index as an integer as wide as T, in the bits of a T
    const std::conditional_t<sizeof(T) == 4, int32_t, int64_t> index = e;
    T bits;
    std::memcpy(&bits, &index, sizeof(T));
    return bits;
  }

  LinkRows<T> rows(int64_t b, int64_t y0, int64_t y1) const {
    return {table.data + b * groups * kFields * lanes, groups, xs.data(), ys.data(), largest_coordinate, width, y0, y1};
  }
};

// Links are read without further checks: a wrong index would reach into memory.
void check_links(const Tensor& links, int64_t num_keypoints) {
  for (const int64_t *i = read<int64_t>(links), *end = i + links.numel(); i < end; ++i)
    STD_TORCH_CHECK(*i >= 0 && *i < num_keypoints, "link_heatmap: links must hold indices below N");
}

template <class T, class I>
LinkHeatmapKernels<T, I> pick_kernels() {
  return PPL_SIMD_CALL(link_heatmap_kernels<T, I>());
}

template <class T, class I>
void forward(const LinkTables<T>& tables, T* heatmap, I* winner) {
  const auto kernels = pick_kernels<T, I>();
  const int64_t pixels = tables.height * tables.width, tiles = (tables.height + kTile - 1) / kTile;
  torch::stable::parallel_for(0, tables.samples * tiles, 1, [&](int64_t begin, int64_t end) {
    const Buffer<T> scratch(kScratch * tables.groups * tables.lanes + kScratchBesides);
    for (int64_t job = begin; job < end; ++job) {
      const int64_t b = job / tiles, y0 = job % tiles * kTile, y1 = std::min(y0 + kTile, tables.height);
      T* const heat = heatmap + b * pixels;
      I* const who = winner + b * pixels;
      if (tables.state[b] == Sample::drawn) {
        kernels.forward(tables.rows(b, y0, y1), scratch.data, heat, who);
      } else {
        const bool poisoned = tables.state[b] == Sample::poisoned;
        std::fill(heat + y0 * tables.width, heat + y1 * tables.width,
                  poisoned ? std::numeric_limits<T>::quiet_NaN() : T(0));
        std::fill(who + y0 * tables.width, who + y1 * tables.width, poisoned ? I(-1) : I(0));
      }
    }
  });
}

// Sums of each (sample, band, link): (samples, bands, groups * lanes, kGradFields).
template <class T, class I>
Buffer<T> band_sums(const LinkTables<T>& tables, const T* grad_heatmap, const I* winner) {
  const auto kernels = pick_kernels<T, I>();
  const int64_t pixels = tables.height * tables.width, bands = (tables.height + kBandRows - 1) / kBandRows;
  const int64_t fields = tables.groups * tables.lanes * kGradFields;
  Buffer<T> sums(tables.samples * bands * fields);
  torch::stable::parallel_for(0, tables.samples * bands, 1, [&](int64_t begin, int64_t end) {
    const Buffer<T> scratch(fields * tables.lanes);
    for (int64_t job = begin; job < end; ++job) {
      const int64_t b = job / bands, y0 = job % bands * kBandRows, y1 = std::min(y0 + kBandRows, tables.height);
      if (tables.state[b] != Sample::poisoned)
        kernels.backward(tables.rows(b, y0, y1), grad_heatmap + b * pixels, winner + b * pixels, scratch.data,
                         sums.data + job * fields);
    }
  });
  return sums;
}

// From a link's sums to the gradients of its ends and weight; r is unscaled here, and S = w 2^-|r|^2. Leaves the sum of
// all bands in the first.
template <class T>
void reduce(const LinkTables<T>& tables, T* sums, const T* weights, const int64_t* links, int64_t num_keypoints,
            double thickness, T* grad_keypoints, T* grad_weights, bool shared) {
  const int64_t bands = (tables.height + kBandRows - 1) / kBandRows, e = tables.num_links;
  const int64_t fields = tables.groups * tables.lanes * kGradFields;
  torch::stable::parallel_for(0, tables.samples, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      T *const grad_x = grad_keypoints + b * num_keypoints * 2, *const total = sums + b * bands * fields;
      if (tables.state[b] == Sample::poisoned) {
        std::fill(grad_x, grad_x + num_keypoints * 2, std::numeric_limits<T>::quiet_NaN());
        continue;
      }
      for (int64_t band = 1; band < bands; ++band)
        for (int64_t i = 0; i < e * kGradFields; ++i) total[i] += total[band * fields + i];
      for (int64_t i = 0; i < e; ++i) {
        const T w = weights[(shared ? 0 : b * e) + i];
        if (!(w > 0)) continue;
        const T pull = T(2 * w / (thickness * tables.scale));
        for (int end = 0; end < 2; ++end)
          for (int c = 0; c < 2; ++c)
            grad_x[2 * links[2 * i + end] + c] += pull * total[i * kGradFields + 1 + 2 * end + c];
      }
    }
  });
  for (int64_t b = 0; b < tables.samples; ++b) {
    T* const grad_w = grad_weights + (shared ? 0 : b * e);
    const T *const total = sums + b * bands * fields, *const w = weights + (shared ? 0 : b * e);
    if (tables.state[b] == Sample::poisoned)
      std::fill(grad_w, grad_w + e, std::numeric_limits<T>::quiet_NaN());
    else
      for (int64_t i = 0; i < e; ++i)
        if (w[i] >= 0) grad_w[i] += total[i * kGradFields];
  }
}

std::tuple<Tensor, Tensor> link_heatmap_cpu(const Tensor& keypoints, const Tensor& weights, const Tensor& links,
                                            int64_t height, int64_t width, double thickness) {
  check_link_heatmap(keypoints, weights, links, thickness);
  const auto order = torch::stable::contiguous(links);
  check_links(order, keypoints.size(1));
  const auto type = compute_type(keypoints);
  const auto x = contiguous_as(keypoints, type), w = contiguous_as(weights, type);
  const int64_t b = x.size(0);
  const auto heatmap = empty(x, {b, 1, height, width}, type);
  const auto winner = empty(x, {b, height, width}, winner_type(links.size(0)));
  map_pages(heatmap), map_pages(winner);
  dispatch(type, "link_heatmap", [&](auto zero) {
    using T = decltype(zero);
    const LinkTables<T> tables(x, w, order, height, width, thickness, pick_kernels<T, int32_t>().lanes);
    if (winner.scalar_type() == ScalarType::Short)
      forward(tables, write<T>(heatmap), write<int16_t>(winner));
    else
      forward(tables, write<T>(heatmap), write<int32_t>(winner));
  });
  return {cast(heatmap, keypoints.scalar_type()), winner};
}

std::tuple<Tensor, Tensor> link_heatmap_backward_cpu(const Tensor& grad_heatmap, const Tensor& keypoints,
                                                     const Tensor& weights, const Tensor& links, const Tensor& winner,
                                                     double thickness) {
  check_link_heatmap_backward(grad_heatmap, keypoints, weights, links, winner, thickness);
  const auto order = torch::stable::contiguous(links), who = torch::stable::contiguous(winner);
  check_links(order, keypoints.size(1));
  const auto type = compute_type(keypoints);
  const auto g = contiguous_as(grad_heatmap, type), x = contiguous_as(keypoints, type),
             w = contiguous_as(weights, type);
  const auto grad_x = torch::stable::new_zeros(x, x.sizes()), grad_w = torch::stable::new_zeros(w, w.sizes());
  dispatch(type, "link_heatmap_backward", [&](auto zero) {
    using T = decltype(zero);
    const LinkTables<T> tables(x, w, order, winner.size(1), winner.size(2), thickness,
                               pick_kernels<T, int32_t>().lanes);
    const auto sums = winner.scalar_type() == ScalarType::Short ? band_sums(tables, read<T>(g), read<int16_t>(who))
                                                                : band_sums(tables, read<T>(g), read<int32_t>(who));
    reduce(tables, sums.data, read<T>(w), read<int64_t>(order), x.size(1), thickness, write<T>(grad_x),
           write<T>(grad_w), weights.dim() == 1);
  });
  return {cast(grad_x, keypoints.scalar_type()), cast(grad_w, weights.scalar_type())};
}

const Schemas kSchemas = {
    "link_heatmap(Tensor keypoints, Tensor weights, Tensor links, int height, int width, float thickness) "
    "-> (Tensor, Tensor)",
    "link_heatmap_backward(Tensor grad_heatmap, Tensor keypoints, Tensor weights, Tensor links, Tensor winner, "
    "float thickness) -> (Tensor, Tensor)",
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, CPU, m) {
  m.impl("link_heatmap", TORCH_BOX(&link_heatmap_cpu));
  m.impl("link_heatmap_backward", TORCH_BOX(&link_heatmap_backward_cpu));
}

}  // namespace ppl_fast
