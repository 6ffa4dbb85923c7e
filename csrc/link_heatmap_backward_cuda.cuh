// The second kernel of link_heatmap's backward on CUDA: how it adds up what the first has left of each region.
#pragma once

#include "link_heatmap_cuda.cuh"

namespace ppl_fast {

constexpr int kFields = 5;  // of a link: G, (1 - t) G r (x, y), t G r (x, y), summed over the pixels it won
constexpr int kReduceThreads = 256;
constexpr int kReduceWarps = kReduceThreads / kWarp;
constexpr int kLooked = 4 * kWarp;  // links that a warp of the reduction looks at before it lists those it needs
constexpr int kListed = 512;        // ends of links that it lists at most

// The sum of rows[i * stride] for i = first, first + step ... below count; sixteen loads are under way at once.
template <class T>
__device__ T sum_of(const T* rows, int64_t stride, int first, int count, int step) {
  constexpr int kLoads = 16;
  T sum = 0;
  rows += first * stride, stride *= step;
#pragma unroll 1
  do {
    T value[kLoads];
    for (int i = 0; i < kLoads; ++i, rows += stride) value[i] = first + i * step < count ? *rows : T(0);
    for (int i = 0; i < kLoads; ++i) sum += value[i];
    first += kLoads * step;
  } while (first < count);
  return sum;
}

// Whether one of the flags is set that this thread looks at, of several that share them; the first is not waited for.
__device__ inline int flagged(const int* flags, int64_t count, int thread, int threads) {
  int any = thread < count ? flags[thread] : 0;
#pragma unroll 1
  for (int64_t i = thread + threads; i < count; i += threads) any |= flags[i];
  return any;
}

template <class S>
struct Reduction {
  using T = Compute<S>;
  const T* partial;     // (samples, regions, 5, links)
  const int* poisoned;  // (samples, chunks)
  int regions, chunks;
  T pull_scale;
  S *grad_keypoints, *grad_weights;
  int64_t samples;
  int keypoint_blocks;           // of a sample
  int weight_blocks, row_links;  // of a row of weights, and the links that one of them takes
  int64_t row_samples;           // that share a row of weights
};

template <class T>
union ReduceShared {
  int ends[kReduceWarps][kListed];
  T weight[kReduceWarps][kWarp];
};

// grad_keypoints of one keypoint, by a warp: it lists the links that end there, in order, as 2 link + end, and two
// lanes, x and y, add the regions of one.
template <class S, class T = Compute<S>>
__device__ void reduce_keypoint(const Scene<S>& scene, const Reduction<S>& r, int64_t sample, int key, int* ends) {
  const int lane = threadIdx.x % kWarp, axis = lane % 2;
  const int64_t row = scene.num_links;
  const int bad = flagged(r.poisoned + sample * r.chunks, r.chunks, lane, kWarp);
  T pull = 0;
  for (int next = 0; next < scene.num_links;) {
    int count = 0;
    for (; next < scene.num_links && count <= kListed - 2 * kLooked; next += kLooked) {
      unsigned here = 0;  // bit 2 i + end: of link next + 32 i + lane
      for (int bit = 0; bit < 2 * kLooked / kWarp; ++bit) {
        const int64_t e = next + bit / 2 * kWarp + lane;
        const bool found = e < scene.num_links && int(scene.links[2 * e + bit % 2]) == key;
        here |= unsigned(found) << bit;
      }
#pragma unroll 1
      for (int bit = 0; bit < 2 * kLooked / kWarp; ++bit) {
        const bool mine = here >> bit & 1;
        const unsigned found = __ballot_sync(kAllLanes, mine);
        if (mine) ends[count + __popc(found & ((1u << lane) - 1))] = 2 * (next + bit / 2 * kWarp + lane) + bit % 2;
        count += __popc(found);
      }
    }
    __syncwarp();
    for (int j = lane / 2; j < count; j += kWarp / 2) {
      const int e = ends[j] / 2, field = 1 + 2 * (ends[j] % 2) + axis;
      const T w = T(scene.weights[sample * scene.weight_stride + e]);
      const T* const from = r.partial + (sample * r.regions * kFields + field) * row + e;
      const T sum = sum_of(from, kFields * row, 0, r.regions, 1);
      pull += w > 0 ? r.pull_scale * w * sum : T(0);
    }
    __syncwarp();
  }
  for (int offset = kWarp / 2; offset >= 2; offset /= 2) pull += __shfl_xor_sync(kAllLanes, pull, offset);
  const bool poisoned = __any_sync(kAllLanes, bad);
  if (lane < 2) r.grad_keypoints[2 * (sample * scene.num_keypoints + key) + axis] = S(poisoned ? T(NAN) : pull);
}

// grad_weights of `row_links` links, by a block, whose groups of so many threads divide the regions among them: of all
// samples that share the weights, or of one.
template <class S, class T = Compute<S>>
__device__ void reduce_weights(const Scene<S>& scene, const Reduction<S>& r, int64_t row, int block,
                               T (*shared)[kWarp]) {
  const int lane = threadIdx.x % kWarp, column = threadIdx.x % r.row_links, group = threadIdx.x / r.row_links;
  const int e = block * r.row_links + column;
  const int64_t first = row * r.row_samples, apart = int64_t(kFields) * scene.num_links;
  int bad = flagged(r.poisoned + first * r.chunks, r.row_samples * r.chunks, threadIdx.x, kReduceThreads);
  T sum = 0;
  if (e < scene.num_links)
    sum = sum_of(r.partial + first * r.regions * apart + e, apart, group, int(r.row_samples * r.regions),
                 kReduceThreads / r.row_links);
#pragma unroll 1
  for (int offset = r.row_links; offset < kWarp; offset *= 2) sum += __shfl_xor_sync(kAllLanes, sum, offset);
  shared[threadIdx.x / kWarp][lane] = sum;
  bad = __syncthreads_or(bad);
  if (group > 0 || e >= scene.num_links) return;
  sum = 0;
  for (int w = 0; w < kReduceWarps; ++w) sum += shared[w][lane];
  const int64_t at = row * scene.weight_stride + e;
  r.grad_weights[at] = S(bad ? T(NAN) : T(scene.weights[at]) >= 0 ? sum : T(0));
}

// Links that a block of the reduction takes: few where there is much to add for each of them.
inline int row_links_of(int64_t regions) {
  int links = kWarp;
  while (links > 4 && regions * links > 16 * kReduceThreads) links /= 2;
  return links;
}

}  // namespace ppl_fast
