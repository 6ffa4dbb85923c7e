// link_heatmap's backward on CUDA. A block of 128 threads puts the links into shared memory; a warp takes tiles of 16 x
// 8 pixels, four a lane, evaluates each pixel's winner and goes through the links that won (4.3 a tile), in order: a
// lane adds its pixels, then the five sums are added across the lanes (8 shuffles) into the warp's own row of shared
// memory. The block adds its warps and writes partial sums (samples, regions, 5, links), no larger than the heatmap; a
// second kernel adds the regions. No float atomics: every sum has one order, fixed by the shapes. B = 64, N = 16, 128 x
// 128: 1,930 instructions a warp (sm_90, benchmarks/cycle_model.py), 4,096 warps: 7.6 us at an H200's full issue rate,
// some 11 us at two thirds; 6.3 MB in and 2.5 MB of partial sums, 2 us; the second kernel is latency, about 3 us, of
// which a launch that overlaps (sm_90 on) hides a part. Predicted: this has not run on a GPU. Not taken: atomics in
// shared memory (the order varies), sorting the pixels by link.
#include "link_heatmap_cuda.cuh"

namespace ppl_fast {
namespace {

constexpr int kTileX = 16, kTileY = 8, kSlots = 4;
constexpr int kSumWarps = 4;
constexpr int kSumThreads = kSumWarps * kWarp;
constexpr int kFields = 5;  // of a link: G, (1 - t) G r (x, y), t G r (x, y), summed over the pixels it won
constexpr int kReduceThreads = 1024;
constexpr int kGroups = kReduceThreads / kWarp;

// Links that a block takes at once: as many as 48 KB of shared memory hold, for the table and each warp's sums.
template <class T>
constexpr int kChunk = 1664 / int(sizeof(T));
static_assert(kChunk<float> * (kTableBytes<float> + kSumWarps * kFields * sizeof(float)) <= 48 * 1024);
static_assert(kChunk<double> * (kTableBytes<double> + kSumWarps * kFields * sizeof(double)) <= 48 * 1024);

// Adds five values across the lanes with 8 shuffles: lanes that differ in bit 4, 3 or 2 share the work, one keeping the
// even and one the odd of two values. Field f ends up in lane field_lane(f).
template <class T>
__device__ T lane_sums(const T (&v)[kFields]) {
  const int lane = threadIdx.x % kWarp;
  const auto halve = [&](T even, T odd, int bit) {
    const bool upper = lane & bit;
    return (upper ? odd : even) + __shfl_xor_sync(kAllLanes, upper ? even : odd, bit);
  };
  const T a = halve(v[0], v[1], 16), b = halve(v[2], v[3], 16), c = v[4] + __shfl_xor_sync(kAllLanes, v[4], 16);
  const T d = halve(a, b, 8), e = c + __shfl_xor_sync(kAllLanes, c, 8);
  T sum = halve(d, e, 4);
  sum += __shfl_xor_sync(kAllLanes, sum, 2);
  return sum + __shfl_xor_sync(kAllLanes, sum, 1);
}

__device__ inline int field_of_lane(int lane) {  // -1: of no use
  return lane == 4 ? 4 : lane & 7 ? -1 : (lane >> 4 & 1) + (lane >> 2 & 2);
}

struct Tiles {  // of a sample, row by row, and how many each warp of its blocks takes
  int across, count, per_warp;
};

template <class S>
__global__ void __launch_bounds__(kSumThreads, sizeof(Compute<S>) == 4 ? 8 : 4)
    link_heatmap_bwd_sums_kernel(Scene<S> scene, const S* grad_heatmap, Winner winner, Tiles tiles, Compute<S>* partial,
                                 int* poisoned) {
  using T = Compute<S>;
  using Half = typename Table<T>::Half;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, field = field_of_lane(lane);
  const int region = blockIdx.y, regions = gridDim.y, chunk = blockIdx.z, chunks = gridDim.z;
  const int64_t sample = blockIdx.x;
  const int first = chunk * kChunk<T>, links = min(kChunk<T>, scene.num_links - first);
  const Table<T> table = {&shared_memory<Half>(), &shared_memory<Half>() + links};
  T *const all_sums = reinterpret_cast<T*>(table.rest + links), *const sums = all_sums + warp * kFields * links;
  for (int i = threadIdx.x; i < kSumWarps * kFields * links; i += kSumThreads) all_sums[i] = 0;
  T largest = 0;
  bool bad = region == 0 && chunk == 0 && survey_keypoints(scene, sample, largest);
  for (int i = threadIdx.x; i < links; i += kSumThreads) {
    const auto built = build(scene, sample, first + i);
    table.set(i, built.link), bad = bad || built.poisoned;
  }
  bad = __syncthreads_or(bad);
  if (region == 0 && threadIdx.x == 0) poisoned[sample * chunks + chunk] = bad;

  let_next_begin();
  const int begin = (region * kSumWarps + warp) * tiles.per_warp, end = min(begin + tiles.per_warp, tiles.count);
  for (int tile = begin; tile < end; ++tile) {
    const int x0 = tile % tiles.across * kTileX + lane % 8, y0 = tile / tiles.across * kTileY + lane / 8;
    int who[kSlots];
    T v[kSlots][kFields];
    for (int s = 0; s < kSlots; ++s) {
      const int x = x0 + s % 2 * 8, y = y0 + s / 2 * 4;
      const bool inside = x < scene.width && y < scene.height;
      const int64_t at = (sample * scene.height + y) * scene.width + x;
      who[s] = inside ? winner.load(at) : -1;
      v[s][0] = inside ? T(grad_heatmap[at]) : T(0);
    }
    for (int s = 0; s < kSlots; ++s) {
      if (who[s] < first || who[s] >= first + links) who[s] = -1;
      const auto at = residual(table[max(who[s] - first, 0)], scene.x(x0 + s % 2 * 8), scene.y(y0 + s / 2 * 4));
      const T g = v[s][0] * power_of_two(-at.d2), to_b = at.t * g, to_a = g - to_b;
      v[s][0] = g, v[s][1] = to_a * at.rx, v[s][2] = to_a * at.ry, v[s][3] = to_b * at.rx, v[s][4] = to_b * at.ry;
    }
    for (;;) {
      unsigned next = unsigned(who[0]);
      for (int s = 1; s < kSlots; ++s) next = min(next, unsigned(who[s]));
      const int e = int(warp_min(next));
      if (e < 0) break;
      T sum[kFields] = {};
      for (int s = 0; s < kSlots; ++s) {
        if (who[s] != e) continue;  // not multiplied by 0: a gradient that is not a number stays with its link
        for (int f = 0; f < kFields; ++f) sum[f] += v[s][f];
        who[s] = -1;
      }
      const T total = lane_sums(sum);
      if (field >= 0) sums[field * links + e - first] += total;  // a field's lane is always the same: no barrier
    }
  }

  __syncthreads();
  T* const out = partial + (sample * regions + region) * kFields * scene.num_links + first;
  for (int i = threadIdx.x; i < kFields * links; i += kSumThreads) {
    T sum = 0;
    for (int w = 0; w < kSumWarps; ++w) sum += all_sums[w * kFields * links + i];
    out[int64_t(i / links) * scene.num_links + i % links] = sum;
  }
}

template <class T>
struct ReduceShared {
  union {
    struct {
      T pull[4][kReduceThreads];
      int ends[2][kReduceThreads];
    };
    T weight[kGroups][kWarp];
  };
};

template <class S>
struct Gradients {
  S *keypoints, *weights;
  bool shared_weights;
  int64_t samples;
};

// grad_keypoints of one sample, and its grad_weights where they are its own; a warp a keypoint.
template <class S, class T = Compute<S>>
__device__ void reduce_sample(const Scene<S>& scene, const T* partial, const int* poisoned_chunks, int regions,
                              int chunks, T pull_scale, int64_t sample, const Gradients<S>& out) {
  auto& shared = shared_memory<ReduceShared<T>>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t row = scene.num_links, links = scene.num_links;
  bool poisoned = false;
  for (int c = 0; c < chunks; ++c) poisoned = poisoned || poisoned_chunks[sample * chunks + c];
  for (int key0 = 0; key0 < scene.num_keypoints; key0 += kGroups) {
    const int key = key0 + warp;
    T gx = 0, gy = 0;
    for (int first = 0; first < links; first += kReduceThreads) {
      const int e = first + threadIdx.x;
      if (e < links) {
        T total[kFields] = {};
        const T* from = partial + sample * regions * kFields * row + e;
        for (int r = 0; r < regions; ++r)
          for (int f = 0; f < kFields; ++f, from += row) total[f] += *from;
        const T w = T(scene.weights[sample * scene.weight_stride + e]);
        for (int f = 0; f < 4; ++f) shared.pull[f][threadIdx.x] = w > 0 ? pull_scale * w * total[1 + f] : T(0);
        for (int end = 0; end < 2; ++end) shared.ends[end][threadIdx.x] = int(scene.links[2 * e + end]);
        if (key0 == 0 && !out.shared_weights)
          out.weights[sample * links + e] = S(poisoned ? T(NAN) : w >= 0 ? total[0] : T(0));
      }
      __syncthreads();
      for (int j = lane; j < min(int(links) - first, kReduceThreads); j += kWarp)
        for (int end = 0; end < 2; ++end)
          if (shared.ends[end][j] == key) gx += shared.pull[2 * end][j], gy += shared.pull[2 * end + 1][j];
      __syncthreads();
    }
    gx = lane_sum<kWarp>(gx), gy = lane_sum<kWarp>(gy);
    if (lane != 0 || key >= scene.num_keypoints) continue;
    S* const to = out.keypoints + 2 * (sample * scene.num_keypoints + key);
    to[0] = S(poisoned ? T(NAN) : gx), to[1] = S(poisoned ? T(NAN) : gy);
  }
}

// grad_weights of 32 links that the samples share.
template <class S, class T = Compute<S>>
__device__ void reduce_weights(const Scene<S>& scene, const T* partial, const int* poisoned, int regions, int chunks,
                               int64_t group, const Gradients<S>& out) {
  auto& shared = shared_memory<ReduceShared<T>>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t e = group * kWarp + lane;
  bool bad = false;
  for (int64_t i = threadIdx.x; i < out.samples * chunks; i += kReduceThreads) bad = bad || poisoned[i];
  T sum = 0;
  if (e < scene.num_links)
#pragma unroll 8
    for (int64_t i = warp; i < out.samples * regions; i += kGroups) sum += partial[i * kFields * scene.num_links + e];
  shared.weight[warp][lane] = sum;
  bad = __syncthreads_or(bad);
  if (warp != 0 || e >= scene.num_links) return;
  sum = 0;
  for (int g = 0; g < kGroups; ++g) sum += shared.weight[g][lane];
  out.weights[e] = S(bad ? T(NAN) : T(scene.weights[e]) >= 0 ? sum : T(0));
}

template <class S>
__global__ void __launch_bounds__(kReduceThreads, 1)  // unasked, ptxas makes room for two blocks, and spills
    link_heatmap_bwd_reduce_kernel(Scene<S> scene, const Compute<S>* partial, const int* poisoned, int regions,
                                   int chunks, Compute<S> pull_scale, Gradients<S> out) {
  await_previous();
  if (blockIdx.x < out.samples)
    reduce_sample(scene, partial, poisoned, regions, chunks, pull_scale, blockIdx.x, out);
  else
    reduce_weights(scene, partial, poisoned, regions, chunks, blockIdx.x - out.samples, out);
}

// Blocks that a sample is divided among: 16, which fills a GPU from some 64 samples on, more where the image is large
// (then a warp takes 8 tiles), fewer where partial sums would become larger than the heatmap. It does not depend on the
// number of samples, so that a sample's gradient has the same bits in every batch.
int64_t regions_of(int64_t pixels, int64_t links, int64_t tiles) {
  const int64_t room = pixels / (kFields * links), wanted = std::max<int64_t>(16, ceil_div(tiles, 8 * kSumWarps));
  return std::max<int64_t>(1, std::min({wanted, ceil_div(tiles, kSumWarps), room}));
}

template <class T>
size_t sums_bytes(int64_t links) {
  return (kTableBytes<T> + sizeof(T) * kSumWarps * kFields) * std::min<int64_t>(kChunk<T>, links);
}

std::tuple<Tensor, Tensor> link_heatmap_backward_cuda(const Tensor& grad_heatmap, const Tensor& keypoints,
                                                      const Tensor& weights, const Tensor& links, const Tensor& winner,
                                                      double thickness) {
  check_link_heatmap_backward(grad_heatmap, keypoints, weights, links, winner, thickness);
  check_counts(keypoints, links, winner.size(1), winner.size(2));
  const OnDevice device(keypoints);
  const auto type = keypoints.scalar_type();
  const auto g = contiguous_as(grad_heatmap, type), x = torch::stable::contiguous(keypoints),
             w = torch::stable::contiguous(weights), order = torch::stable::contiguous(links),
             who = torch::stable::contiguous(winner);
  const int64_t b = x.size(0), e = order.size(0), height = who.size(1), width = who.size(2);
  if (b == 0) return {torch::stable::new_zeros(x, x.sizes()), torch::stable::new_zeros(w, w.sizes())};
  const auto grad_x = torch::stable::new_empty(x, x.sizes()), grad_w = torch::stable::new_empty(w, w.sizes());
  // Without links there is no tile to look at, but still a sample that may be poisoned.
  const int64_t across = ceil_div(width, kTileX), count = e == 0 ? 0 : across * ceil_div(height, kTileY);
  const int64_t regions = e == 0 ? 1 : regions_of(height * width, e, count);
  STD_TORCH_CHECK(count <= INT32_MAX / 2, "link_heatmap_backward: the heatmap is too large");
  const Tiles tiles = {int(across), int(count), int(ceil_div(count, regions * kSumWarps))};
  const bool shared_weights = w.dim() == 1;
  const auto partial = empty(x, {b, regions, kFields, e}, compute_type(x));
  dispatch_storage(type, "link_heatmap_backward", [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const auto scene = make_scene<S>(x, w, order, height, width, thickness);
    const int64_t chunks = std::max<int64_t>(1, ceil_div(e, kChunk<T>));
    const auto poisoned = empty(x, {b, chunks}, ScalarType::Int);
    launch(link_heatmap_bwd_sums_kernel<S>, Grid{b, regions, chunks}, kSumThreads, sums_bytes<T>(e), device.stream(),
           scene, read<S>(g), Winner{who.mutable_data_ptr(), who.scalar_type() == ScalarType::Int}, tiles,
           write<T>(partial), write<int>(poisoned));
    static CompiledFor compiled(link_heatmap_bwd_reduce_kernel<S>);
    launch_as(may_overlap(compiled, x.get_device_index()), link_heatmap_bwd_reduce_kernel<S>,
              Grid{b + (shared_weights ? ceil_div(e, kWarp) : 0)}, kReduceThreads, sizeof(ReduceShared<T>),
              device.stream(), scene, read<T>(partial), read<int>(poisoned), int(regions), int(chunks),
              T(2 / (thickness * scale_of(thickness))),
              Gradients<S>{write<S>(grad_x), write<S>(grad_w), shared_weights, b});
  });
  return {grad_x, grad_w};
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kSumThreads, sums_bytes<float>(120), link_heatmap_bwd_sums_kernel<float>),
    PPL_FAST_KERNEL(kReduceThreads, sizeof(ReduceShared<float>), link_heatmap_bwd_reduce_kernel<float>),
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("link_heatmap_backward"), TORCH_BOX(&link_heatmap_backward_cuda));
}

}  // namespace ppl_fast
