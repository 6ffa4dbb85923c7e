// link_heatmap's forward on CUDA. A block of 256 threads draws 32 x 32 pixels. It puts the links into shared memory (12
// KB with the lists); of more than 256, those that may win one of its pixels. A warp takes 16 x 8 pixels, with up to
// 256 links far from the next warp's, and twice where blocks are many: it drops the links that cannot win there
// (exactly, link_heatmap.h) and lists the others; four lanes, a row of pixels each, cull that list for their 4 x 4
// pixels and walk what is left: 12.5 instructions a pixel and link, 5 of them FFMA, one EX2 a pixel. B = 64, N = 16,
// 128 x 128: 120 links become 24, lanes walk 7.8 together: 1,500 instructions (benchmarks/cycle_model.py), 8,192 times,
// are 11.8 us at full rate. An H200 takes 20.0 us (21.6 where a warp draws once), 104 for N = 32, 256 x 256, 99 for B =
// 8, N = 64, 512 x 512 (126 and 164 on an H100, before blocks culled). Not taken: culling in a kernel of its own (a
// launch costs more), five blocks a multiprocessor (spills), warps that take regions as they come (no better than two
// far apart).
#include "link_heatmap_forward_cuda.cuh"

namespace ppl_fast {
namespace {

template <class T>
struct FwdShared {
  typename Table<T>::Half ends[kThreads], rest[kThreads];
  uint16_t list[kWarps][kThreads];
  T largest[kWarps];
  int found[kWarps];
};

struct Regions {  // of a sample, row by row; a warp takes `turns`
  int across, count, turns;
};

// Looks at the keypoints and puts all links into the table; returns what the block has found among them.
template <class S, class T = Compute<S>>
__device__ int fill(const Scene<S>& scene, int64_t sample, const Table<T>& table, FwdShared<T>& shared, T& largest) {
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
  int found = survey_keypoints(scene, sample, largest) ? kPoisoned : 0;
  largest = lane_max<kWarp>(largest);
  if (thread < scene.num_links) {
    const auto built = build(scene, sample, thread);
    table.set(thread, built.link);
    found |= (built.poisoned ? kPoisoned : 0) | (built.positive ? kPositive : 0);
  }
  const bool poisoned = __any_sync(kAllLanes, found & kPoisoned), positive = __any_sync(kAllLanes, found & kPositive);
  if (lane == 0) {
    shared.found[warp] = (poisoned ? kPoisoned : 0) | (positive ? kPositive : 0);
    shared.largest[warp] = largest;
  }
  __syncthreads();
  found = 0;
  for (int w = 0; w < kWarps; ++w) largest = fmax(largest, shared.largest[w]), found |= shared.found[w];
  return found;
}

// Where one table holds all links.
template <class S>
__global__ void __launch_bounds__(kThreads, kMinBlocks<Compute<S>>)
    link_heatmap_fwd_kernel(Scene<S> scene, Output<S> out, Regions regions) {
  using T = Compute<S>;
  auto& shared = shared_memory<FwdShared<T>>();
  const Table<T> table = {shared.ends, shared.rest};
  const int warp = threadIdx.x / kWarp;
  const int64_t sample = blockIdx.x;
  T largest = scene.scale;
  const int found = fill(scene, sample, table, shared, largest);
  for (int turn = 0; turn < regions.turns; ++turn) {
    const int number = blockIdx.y + (turn * kWarps + warp) * gridDim.y;  // far apart: some are crowded, some are not
    const int down = unsigned(number) / unsigned(regions.across);
    const Place<S> at((number - down * regions.across) * kRegionX, down * kRegionY);
    auto row = at.row(scene);
    Seen<T> best = {-T(INFINITY), 0, 0};
    const int count = cull(table, number < regions.count ? scene.num_links : 0,
                           scene.tile(at.x, at.y, kRegionX, kRegionY, largest), best, shared.list[warp]);
    draw(table, shared.list[warp], count, 0, scene.tile(at.px, at.block_y, kRow, kRow, largest), row);
    store(scene, out, sample, at, row, found);
    __syncwarp();  // the list was in use
  }
}

template <class T>
struct ManyShared {
  FwdShared<T> one;
  int index[kThreads], kept[kWarps];  // of the table's links, and how many a warp adds
  Seen<T> best[kWarps];
};

// Adds to the table, of the kThreads links from `first` on, those that may win one of the block's pixels, from (x, y)
// on; returns how many it holds then. If that is more than it can hold, nothing has been added.
template <class S, class T = Compute<S>>
__device__ int add(const Scene<S>& scene, int64_t sample, int first, int x, int y, int held, ManyShared<T>& shared,
                   T& largest, int& found) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, e = first + threadIdx.x;
  Built<T> built = {};
  Seen<T> seen = {-T(INFINITY), 0, 0};
  if (e < scene.num_links) {
    built = build(scene, sample, e);
    found |= (built.poisoned ? kPoisoned : 0) | (built.positive ? kPositive : 0);
    seen = look(built.link, scene.tile(x, y, kTile, kTile, T(0)));  // its centre alone
  }
  const Seen<T> mine = brightest<kWarp>(seen);
  if (lane == 0 && mine.v > shared.best[warp].v) shared.best[warp] = mine;
  __syncthreads();
  const Seen<T> top = brightest<kWarps>(shared.best[lane % kWarps]);
  largest = lane_max<kWarps>(shared.one.largest[lane % kWarps]);
  const auto tile = scene.tile(x, y, kTile, kTile, largest);
  const bool keep = survives(tile, make_rival(tile, top.v, top.rx, top.ry), seen) & (e < scene.num_links);
  const unsigned kept = __ballot_sync(kAllLanes, keep);
  if (lane == 0) shared.kept[warp] = __popc(kept);
  __syncthreads();
  int total = held, place = held + __popc(kept & ((1u << lane) - 1));
  for (int w = 0; w < kWarps; ++w) total += shared.kept[w], place += w < warp ? shared.kept[w] : 0;
  if (keep && total <= kThreads) {
    Table<T>{shared.one.ends, shared.one.rest}.set(place, built.link);
    shared.index[place] = e;
  }
  return total;
}

// Where links are more than a table holds: the block collects those that may win one of its 32 x 32 pixels, and draws
// before the table overflows, and in the end.
template <class S>
__global__ void __launch_bounds__(kThreads, kMinBlocks<Compute<S>>)
    link_heatmap_fwd_many_kernel(Scene<S> scene, Output<S> out) {
  using T = Compute<S>;
  auto& shared = shared_memory<ManyShared<T>>();
  const Table<T> table = {shared.one.ends, shared.one.rest};
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t sample = blockIdx.x;
  const int x = blockIdx.y * kTile, y = blockIdx.z * kTile;
  const Place<S> at(x + warp % 2 * kRegionX, y + warp / 2 * kRegionY);
  auto row = at.row(scene);
  T largest = scene.scale;
  int found = survey_keypoints(scene, sample, largest) ? kPoisoned : 0;
  largest = lane_max<kWarp>(largest);
  if (lane == 0) shared.one.largest[warp] = largest, shared.best[warp] = {-T(INFINITY), 0, 0};
  for (int first = 0, held = 0;;) {
    const bool more = first < scene.num_links;
    if (more) {
      const int total = add(scene, sample, first, x, y, held, shared, largest, found);
      if (total <= kThreads) {
        held = total, first += kThreads;
        continue;
      }
    }
    __syncthreads();
    if (at.x < scene.width && at.y < scene.height) {
      Seen<T> best = {-T(INFINITY), 0, 0};
      const int count =
          cull(table, held, scene.tile(at.x, at.y, kRegionX, kRegionY, largest), best, shared.one.list[warp]);
      draw(table, shared.one.list[warp], count, INT32_MIN, scene.tile(at.px, at.block_y, kRow, kRow, largest), row);
      for (int p = 0; p < kRow; ++p)  // INT32_MIN and a place in the table
        if (row.who[p] < 0) row.who[p] = shared.index[row.who[p] & INT32_MAX];
    }
    if (!more) break;
    held = 0;  // and once more from `first`
  }
  const bool poisoned = __syncthreads_or(found & kPoisoned), positive = __syncthreads_or(found & kPositive);
  store(scene, out, sample, at, row, (poisoned ? kPoisoned : 0) | (positive ? kPositive : 0));
}

// Two turns, so that a table serves two regions and a warp's work varies less, where a GPU is nearly full even then:
// 384 blocks are three quarters of what an H100 holds.
Regions regions_of(int64_t samples, int64_t height, int64_t width) {
  const int64_t across = ceil_div(width, kRegionX), count = across * ceil_div(height, kRegionY);
  STD_TORCH_CHECK(count <= INT32_MAX / 2, "link_heatmap: the heatmap is too large");
  int turns = samples * count >= 2 * kWarps * 384 ? 2 : 1;
  while (ceil_div(count, turns * kWarps) > 65535) turns *= 2;
  return {int(across), int(count), turns};
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
    const auto scene = make_scene<S>(x, w, order, height, width, thickness);
    const Output<S> out = {write<S>(heatmap), {winner.mutable_data_ptr(), winner.scalar_type() == ScalarType::Int}};
    if (scene.num_links <= kThreads) {
      const auto regions = regions_of(b, height, width);
      launch(link_heatmap_fwd_kernel<S>, Grid{b, ceil_div(regions.count, regions.turns * kWarps)}, kThreads,
             sizeof(FwdShared<Compute<S>>), device.stream(), scene, out, regions);
    } else {
      launch(link_heatmap_fwd_many_kernel<S>, Grid{b, ceil_div(width, kTile), ceil_div(height, kTile)}, kThreads,
             sizeof(ManyShared<Compute<S>>), device.stream(), scene, out);
    }
  });
  return {heatmap, winner};
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kThreads, sizeof(FwdShared<float>), link_heatmap_fwd_kernel<float>),
    PPL_FAST_KERNEL(kThreads, sizeof(ManyShared<float>), link_heatmap_fwd_many_kernel<float>),
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("link_heatmap"), TORCH_BOX(&link_heatmap_cuda));
}

}  // namespace ppl_fast
