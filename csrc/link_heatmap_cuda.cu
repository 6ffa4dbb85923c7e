// link_heatmap's forward on CUDA. A block of 256 threads draws 32 x 32 pixels. It puts all links into shared memory,
// 256 at a time (12 KB with the lists). Each warp then takes 16 x 8 pixels: it drops the links that cannot win one of
// them (exactly, link_heatmap.h), a link a lane, and lists the others in order; four lanes, a row of pixels each, cull
// that list for their 4 x 4 pixels and walk what is left: 12.5 instructions a pixel and link, 5 of them FFMA, one EX2 a
// pixel. B = 64, N = 16, 128 x 128, thickness 1e-3: 120 links become 24 for a warp; its lanes walk 7.8 together (4.5
// each, 3 are needed); 1,570 instructions a warp (sm_90, benchmarks/cycle_model.py) times 8,192 warps are 12.3 us at an
// H200's full rate, some 18 us at two thirds; the 6.3 MB written take 1.3 us. Predicted: this has not run on a GPU.
// Not taken: culling in a kernel of its own (a launch costs more than the tables), one launch with affine_warp; and by
// the model's counts, keeping what the first look saw in registers (4 %, more spills), two tiles a table (1 %), groups
// of lanes that go on to another 4 x 4 pixels without waiting (saves 0.8 of 8 steps, less than keeping track costs).
#include "link_heatmap_cuda.cuh"

namespace ppl_fast {
namespace {

constexpr int kRow = 4;                     // pixels of a thread, side by side; threads of a block of 4 x 4
constexpr int kRegionX = 16, kRegionY = 8;  // of a warp
constexpr int kTile = 32;                   // of a block of threads
constexpr int kThreads = kTile * kTile / kRow;
constexpr int kWarps = kThreads / kWarp;
template <class T>
constexpr int kMinBlocks = sizeof(T) == 4 ? 4 : 2;  // a multiprocessor: 64 or 128 registers a thread

enum { kPoisoned = 1, kPositive = 2 };  // what a thread has found among its links

template <class T>
struct Seen {  // a link, as the centre of a tile sees it
  T v, rx, ry;
};

// link.lw - r.d2, as two fused multiply-adds.
template <class T>
__device__ T value_of(const Link<T>& link, const Residual<T>& r) {
  return (link.lw - r.ry * r.ry) - r.rx * r.rx;
}

template <class T>
__device__ Seen<T> look(const Link<T>& link, const Tile<T>& tile) {
  const auto r = residual(link, tile.cx, tile.cy);
  return {value_of(link, r), r.rx, r.ry};
}

template <class T>
__device__ void keep_brighter(Seen<T>& best, const Seen<T>& seen) {
  if (seen.v > best.v) best = seen;
}

// The brightest of what `Width` neighbouring lanes see.
template <int Width, class T>
__device__ Seen<T> brightest(const Seen<T>& seen) {
  const T most = lane_max<Width>(seen.v);
  const unsigned group = kAllLanes >> (kWarp - Width) << (threadIdx.x % kWarp / Width * Width);
  const int lane = __ffs(__ballot_sync(kAllLanes, seen.v == most) & group) - 1;
  return {most, __shfl_sync(kAllLanes, seen.rx, lane), __shfl_sync(kAllLanes, seen.ry, lane)};
}

// Whether the link may win a pixel of the tile and reach the smallest normal number there.
template <class T>
__device__ bool survives(const Tile<T>& tile, const Rival<T>& rival, const Seen<T>& seen) {
  return may_win(rival, seen.v, seen.rx, seen.ry) &
         (upper_bound(tile, seen.v, seen.rx, seen.ry) >= Limits<T>::log2_tiny);
}

template <class T>
struct FwdShared {
  typename Table<T>::Half ends[kThreads], rest[kThreads];
  uint16_t list[kWarps][kThreads];
  T largest[kWarps];
};

template <class T>
struct Row {  // the pixels of one thread
  T x[kRow], y, best[kRow];
  int who[kRow];
};

// Lists the links of the table that may win a pixel of the warp's region; returns how many.
template <class T>
__device__ int cull(const Table<T>& table, int links, const Tile<T>& region, Seen<T>& best, uint16_t* list) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll 1
  for (int j = lane; j < links; j += kWarp) keep_brighter(best, look(table[j], region));
  best = brightest<kWarp>(best);
  const auto rival = make_rival(region, best.v, best.rx, best.ry);
  int count = 0;
#pragma unroll 1
  for (int first = 0; first < links; first += kWarp) {
    const int j = first + lane;
    const bool keep = survives(region, rival, look(table[min(j, links - 1)], region)) & (j < links);
    const unsigned kept = __ballot_sync(kAllLanes, keep);
    if (keep) list[count + __popc(kept & ((1u << lane) - 1))] = uint16_t(j);
    count += __popc(kept);
  }
  __syncwarp();
  return count;
}

// Draws the listed links on the 4 x 4 pixels that four lanes share; `first` is the index of the table's first link.
template <class T>
__device__ void draw(const Table<T>& table, const uint16_t* list, int count, int first, const Tile<T>& block,
                     Row<T>& row) {
  const int lane = threadIdx.x % kWarp, mine = lane % kRow, group = lane - mine;
  Seen<T> best = {-T(INFINITY), 0, 0};
#pragma unroll 1
  for (int j = mine; j < count; j += kRow) keep_brighter(best, look(table[list[j]], block));
  best = brightest<kRow>(best);
  const auto rival = make_rival(block, best.v, best.rx, best.ry);
  for (int base = 0; base < count; base += kWarp) {
    unsigned left = 0;  // bit i: entry base + i of the list is left
#pragma unroll 1
    for (int i = 0; i < kWarp && base + i < count; i += kRow) {
      const int j = base + i + mine;
      const bool keep = survives(block, rival, look(table[list[min(j, count - 1)]], block)) & (j < count);
      left |= (__ballot_sync(kAllLanes, keep) >> group & ((1u << kRow) - 1)) << i;
    }
    for (; left; left &= left - 1) {
      const int j = list[base + __ffs(left) - 1];
      const Link<T> link = table[j];
      for (int p = 0; p < kRow; ++p) {
        const T value = value_of(link, residual(link, row.x[p], row.y));
        if (value > row.best[p]) row.best[p] = value, row.who[p] = first + j;  // strictly: the lowest index keeps a tie
      }
    }
  }
}

// Stores the values of a row of pixels, at once where that is possible.
template <class S, class V>
__device__ void store_row(S* to, const V* values, int count, bool aligned) {
  if (aligned && count == kRow) {
    Pack<S, kRow> pack;
    for (int p = 0; p < kRow; ++p) pack.at[p] = S(values[p]);
    *reinterpret_cast<Pack<S, kRow>*>(to) = pack;
  } else {
    for (int p = 0; p < count; ++p) to[p] = S(values[p]);
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads, kMinBlocks<Compute<S>>)
    link_heatmap_fwd_kernel(Scene<S> scene, S* heatmap, Winner winner) {
  using T = Compute<S>;
  auto& shared = shared_memory<FwdShared<T>>();
  const Table<T> table = {shared.ends, shared.rest};
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
  const int64_t sample = blockIdx.x;
  const int region_x = blockIdx.y * kTile + warp % 2 * kRegionX, region_y = blockIdx.z * kTile + warp / 2 * kRegionY;
  const int px = region_x + lane / kRow % kRow * kRow, block_y = region_y + lane / kRegionX * kRow;
  const int py = block_y + lane % kRow;
  Row<T> row;
  row.y = scene.y(py);
  for (int p = 0; p < kRow; ++p) row.x[p] = scene.x(px + p), row.best[p] = -T(INFINITY), row.who[p] = 0;

  T largest = scene.scale;
  int found = survey_keypoints(scene, sample, largest) ? kPoisoned : 0;
  largest = lane_max<kWarp>(largest);
  if (lane == 0) shared.largest[warp] = largest;
  Seen<T> best = {-T(INFINITY), 0, 0};
  for (int first = 0; first < scene.num_links; first += kThreads) {
    const int links = min(kThreads, scene.num_links - first);
    if (first > 0) __syncthreads();  // the table was in use
    if (thread < links) {
      const auto built = build(scene, sample, first + thread);
      table.set(thread, built.link);
      found |= (built.poisoned ? kPoisoned : 0) | (built.positive ? kPositive : 0);
    }
    __syncthreads();
    if (region_x >= scene.width || region_y >= scene.height) continue;
    for (int w = 0; w < kWarps; ++w) largest = fmax(largest, shared.largest[w]);
    const Tile<T> region = scene.tile(region_x, region_y, kRegionX, kRegionY, largest);
    const Tile<T> block = scene.tile(px, block_y, kRow, kRow, largest);
    const int count = cull(table, links, region, best, shared.list[warp]);
    draw(table, shared.list[warp], count, first, block, row);
  }
  const bool poisoned = __syncthreads_or(found & kPoisoned), positive = __syncthreads_or(found & kPositive);

  T value[kRow];
  for (int p = 0; p < kRow; ++p) {
    const bool lit = row.best[p] >= Limits<T>::log2_tiny;
    value[p] = poisoned ? T(NAN) : lit ? power_of_two(row.best[p]) : T(0);
    // Where no weight is positive, S is 0 everywhere and the first link wins the tie.
    row.who[p] = !poisoned && lit ? row.who[p] : poisoned || positive || scene.num_links == 0 ? -1 : 0;
  }
  if (py >= scene.height) return;
  const int64_t at = (sample * scene.height + py) * scene.width + px;
  const int count = min(kRow, scene.width - px);
  const bool aligned = scene.width % kRow == 0;
  store_row(heatmap + at, value, count, aligned);
  if (winner.wide)
    store_row(static_cast<int32_t*>(winner.at) + at, row.who, count, aligned);
  else
    store_row(static_cast<int16_t*>(winner.at) + at, row.who, count, aligned);
}

std::tuple<Tensor, Tensor> link_heatmap_cuda(const Tensor& keypoints, const Tensor& weights, const Tensor& links,
                                             int64_t height, int64_t width, double thickness) {
  check_link_heatmap(keypoints, weights, links, thickness);
  check_counts(keypoints, links, height, width);
  const OnDevice device(keypoints);
  const auto x = torch::stable::contiguous(keypoints), w = torch::stable::contiguous(weights),
             order = torch::stable::contiguous(links);
  const int64_t b = x.size(0);
  const auto heatmap = empty(x, {b, 1, height, width}, x.scalar_type());
  const auto winner = empty(x, {b, height, width}, winner_type(links.size(0)));
  dispatch_storage(x.scalar_type(), "link_heatmap", [&](auto zero) {
    using S = decltype(zero);
    const Grid tiles = {b, ceil_div(width, kTile), ceil_div(height, kTile)};
    launch(link_heatmap_fwd_kernel<S>, tiles, kThreads, sizeof(FwdShared<Compute<S>>), device.stream(),
           make_scene<S>(x, w, order, height, width, thickness), write<S>(heatmap),
           Winner{winner.mutable_data_ptr(), winner.scalar_type() == ScalarType::Int});
  });
  return {heatmap, winner};
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kThreads, sizeof(FwdShared<float>), link_heatmap_fwd_kernel<float>),
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("link_heatmap"), TORCH_BOX(&link_heatmap_cuda));
}

}  // namespace ppl_fast
