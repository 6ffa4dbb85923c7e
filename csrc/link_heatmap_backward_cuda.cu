// link_heatmap's backward on CUDA. A block of 128 threads puts the links into shared memory; a warp takes tiles of 16 x
// 8 pixels, four a lane, fetched one ahead, evaluates each pixel's winner and goes through the links that won (4.6 a
// tile), in order: a lane adds its pixels, the five sums are added across the lanes (8 shuffles) into the warp's row of
// shared memory. Blocks add their warps and write partial sums (samples, regions, 5, links), no larger than the
// heatmap; a second kernel adds the regions, a warp a keypoint, from the links that end there, 16 loads at once. No
// float atomics: every sum has one order, fixed by the shapes. B = 64, N = 16, 128 x 128: some 1,690 instructions a
// warp (benchmarks/cycle_model.py: 2,010, both sides of branches), 4,096 warps: 6.6 us at full rate; 6.3 MB in, 2.5 MB
// of partial sums. An H200 takes 12.4 us and, waiting for the first (launches overlap from sm_90 on), 7.9: 17.1 for
// both (an H100 19.5 when a block of 1,024 threads added a sample). Not taken: atomics in shared memory (the order
// varies), sorting the pixels by link.
#include "link_heatmap_backward_cuda.cuh"

namespace ppl_fast {
namespace {

constexpr int kTileX = 16, kTileY = 8, kSlots = 4;
constexpr int kSumWarps = 4;
constexpr int kSumThreads = kSumWarps * kWarp;

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

struct Tiles {  // of a sample, row by row, and how many each of its blocks takes
  int across, count, per_block;
};

// What a lane has of a tile: its pixels' winners, -1 where there is none, and gradients.
template <class T>
struct Pixels {
  int x, y, who[kSlots];
  T grad[kSlots];
};

__device__ inline int column_of(int x, int slot) { return x + slot % 2 * 8; }
__device__ inline int row_of(int y, int slot) { return y + slot / 2 * 4; }

// `before`: how many pixels the samples before this one have.
template <class S, class T = Compute<S>>
__device__ Pixels<T> fetch(const Scene<S>& scene, const S* grad_heatmap, const Winner& winner, int64_t before, int tile,
                           int across) {
  const int lane = threadIdx.x % kWarp, row = unsigned(tile) / unsigned(across), column = tile - row * across;
  Pixels<T> pixels = {column * kTileX + lane % 8, row * kTileY + lane / 8, {}, {}};
  for (int s = 0; s < kSlots; ++s) {
    const int x = column_of(pixels.x, s), y = row_of(pixels.y, s);
    const bool inside = x < scene.width && y < scene.height;
    const int64_t at = before + int64_t(y) * scene.width + x;
    pixels.who[s] = inside ? winner.load(at) : -1;
    pixels.grad[s] = inside ? T(grad_heatmap[at]) : T(0);
  }
  return pixels;
}

// The lowest of the winners that are left to the warp; -1 if there is none.
__device__ inline int lowest(const int (&who)[kSlots]) {
  unsigned least = unsigned(who[0]);
  for (int s = 1; s < kSlots; ++s) least = min(least, unsigned(who[s]));
  return int(warp_min(least));
}

template <class S>
__global__ void __launch_bounds__(kSumThreads, sizeof(Compute<S>) == 4 ? 8 : 4)
    link_heatmap_bwd_sums_kernel(Scene<S> scene, const S* grad_heatmap, Winner winner, Tiles tiles, int chunk_links,
                                 Compute<S>* partial, int* poisoned) {
  using T = Compute<S>;
  using Half = typename Table<T>::Half;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, field = field_of_lane(lane);
  const int region = blockIdx.y, regions = gridDim.y, chunk = blockIdx.z, chunks = gridDim.z;
  const int64_t sample = blockIdx.x;
  const int first = chunk * chunk_links, links = min(chunk_links, scene.num_links - first);
  const Table<T> table = {&shared_memory<Half>(), &shared_memory<Half>() + links};
  T *const all_sums = reinterpret_cast<T*>(table.rest + links), *const sums = all_sums + warp * kFields * links;
  // Tiles side by side go to different warps: where links crowd, all have their share.
  int tile = region * tiles.per_block + warp;
  const int end = min(region * tiles.per_block + tiles.per_block, tiles.count);
  const int64_t before = sample * scene.height * scene.width;
  Pixels<T> next = {};
  if (tile < end) next = fetch(scene, grad_heatmap, winner, before, tile, tiles.across);
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
  for (; tile < end; tile += kSumWarps) {
    auto [x0, y0, who, grad] = next;
    if (tile + kSumWarps < end) next = fetch(scene, grad_heatmap, winner, before, tile + kSumWarps, tiles.across);
    for (int s = 0; s < kSlots; ++s) who[s] = who[s] < first || who[s] >= first + links ? -1 : who[s] - first;
    int e = lowest(who);
    if (e < 0) continue;
    T v[kSlots][kFields];
    for (int s = 0; s < kSlots; ++s) {
      const auto at = residual(table[max(who[s], 0)], scene.x(column_of(x0, s)), scene.y(row_of(y0, s)));
      const T g = grad[s] * power_of_two(-at.d2), to_b = at.t * g, to_a = g - to_b;
      v[s][0] = g, v[s][1] = to_a * at.rx, v[s][2] = to_a * at.ry, v[s][3] = to_b * at.rx, v[s][4] = to_b * at.ry;
    }
    do {
      T sum[kFields] = {};
      for (int s = 0; s < kSlots; ++s) {
        if (who[s] != e) continue;  // not multiplied by 0: a gradient that is not a number stays with its link
        for (int f = 0; f < kFields; ++f) sum[f] += v[s][f];
        who[s] = -1;
      }
      const T total = lane_sums(sum);
      if (field >= 0) sums[field * links + e] += total;  // a field's lane is always the same: no barrier
      e = lowest(who);
    } while (e >= 0);
  }

  __syncthreads();
  T* const out = partial + (sample * regions + region) * kFields * scene.num_links + first;
#pragma unroll 1
  for (int i = threadIdx.x; i < links; i += kSumThreads)
    for (int f = 0; f < kFields; ++f) {
      T sum = 0;
      for (int w = 0; w < kSumWarps; ++w) sum += all_sums[(w * kFields + f) * links + i];
      out[f * int64_t(scene.num_links) + i] = sum;
    }
}

template <class S>
__global__ void __launch_bounds__(kReduceThreads) link_heatmap_bwd_reduce_kernel(Scene<S> scene, Reduction<S> r) {
  auto& shared = shared_memory<ReduceShared<Compute<S>>>();
  await_previous();
  const int64_t for_weights = int64_t(blockIdx.x) - r.samples * r.keypoint_blocks;
  if (for_weights >= 0) {
    const unsigned block = unsigned(for_weights);
    reduce_weights(scene, r, block / r.weight_blocks, block % r.weight_blocks, shared.weight);
  } else {
    const int warp = threadIdx.x / kWarp, key = blockIdx.x % r.keypoint_blocks * kReduceWarps + warp;
    if (key < scene.num_keypoints) reduce_keypoint(scene, r, blockIdx.x / r.keypoint_blocks, key, shared.ends[warp]);
  }
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
  return (kTableBytes<T> + sizeof(T) * kSumWarps * kFields) * links;
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
  const Tiles tiles = {int(across), int(count), int(ceil_div(count, regions * kSumWarps) * kSumWarps)};
  const auto partial = empty(x, {b, regions, kFields, e}, compute_type(x));
  dispatch_storage(type, "link_heatmap_backward", [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const auto scene = make_scene<S>(x, w, order, height, width, thickness);
    const int64_t chunks = std::max<int64_t>(1, ceil_div(e, kChunk<T>)), chunk_links = ceil_div(e, chunks);
    const auto poisoned = empty(x, {b, chunks}, ScalarType::Int);
    launch(link_heatmap_bwd_sums_kernel<S>, Grid{b, regions, chunks}, kSumThreads, sums_bytes<T>(chunk_links),
           device.stream(), scene, read<S>(g), Winner{who.mutable_data_ptr(), who.scalar_type() == ScalarType::Int},
           tiles, int(chunk_links), write<T>(partial), write<int>(poisoned));
    static CompiledFor compiled(link_heatmap_bwd_reduce_kernel<S>);
    const int64_t rows = w.dim() == 1 ? 1 : b, row_links = row_links_of(b / rows * regions);
    const Reduction<S> reduction = {read<T>(partial),
                                    read<int>(poisoned),
                                    int(regions),
                                    int(chunks),
                                    T(2 / (thickness * scale_of(thickness))),
                                    write<S>(grad_x),
                                    write<S>(grad_w),
                                    b,
                                    int(ceil_div(scene.num_keypoints, kReduceWarps)),
                                    int(ceil_div(e, row_links)),
                                    int(row_links),
                                    b / rows};
    launch_as(may_overlap(compiled, x.get_device_index()), link_heatmap_bwd_reduce_kernel<S>,
              Grid{b * reduction.keypoint_blocks + rows * reduction.weight_blocks}, kReduceThreads,
              sizeof(ReduceShared<T>), device.stream(), scene, reduction);
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
