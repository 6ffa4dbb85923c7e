// link_heatmap on CUDA.
//
// Forward: a block of 64 threads draws a tile of 16 x 16 pixels. It compares all links at the tile's centre, drops
// those that cannot win a pixel (exact, link_heatmap.h) and compacts the others in link order in shared memory. Four
// lanes then hold a 4 x 4 block of pixels, a row each: they cull the tile's links once more and walk those left, with
// one power of two a pixel. At N = 16, thickness 1e-3, 120 links become 33 for a tile and 4.5 for a block (measured).
// Backward: a warp takes tiles of 16 x 8 pixels, link by link among their winners, and sums each link's five values
// crosswise into shared memory of its own; blocks add their warps and write partial sums, which a second kernel adds
// up. No float atomics: every sum has one order. Not taken: a link table made by a kernel before (a launch costs more),
// one launch for affine_warp and this.
#include "link_heatmap_cuda.cuh"

namespace ppl_fast {
namespace {

constexpr int kTile = 16;
constexpr int kRow = 4;  // pixels of a thread, side by side, and threads of a 4 x 4 block
constexpr int kThreads = kTile * kTile / kRow;
constexpr int kWarps = kThreads / kWarp;
constexpr int kCapacity = 256;  // links of a tile in shared memory; more are drawn in several goes

template <class T>
struct Seen {  // a link, as the centre of a tile or block sees it
  T v, rx, ry;
};

template <class T>
__device__ Seen<T> look(const Link<T>& link, const Tile<T>& tile) {
  const auto r = residual(link, tile.cx, tile.cy);
  return {link.lw - r.d2, r.rx, r.ry};
}

// The brightest of what `Width` neighbouring lanes see. (On ties lanes may differ; any rival culls exactly.)
template <int Width, class T>
__device__ Seen<T> brightest(Seen<T> seen) {
  for (int offset = Width / 2; offset > 0; offset /= 2) {
    const Seen<T> other = {__shfl_xor_sync(kAllLanes, seen.v, offset), __shfl_xor_sync(kAllLanes, seen.rx, offset),
                           __shfl_xor_sync(kAllLanes, seen.ry, offset)};
    if (other.v > seen.v) seen = other;
  }
  return seen;
}

// Whether the link may win a pixel of the tile and reach the smallest normal number there.
template <class T>
__device__ bool survives(const Tile<T>& tile, const Rival<T>& rival, const Seen<T>& seen) {
  return may_win(rival, seen.v, seen.rx, seen.ry) &&
         upper_bound(tile, seen.v, seen.rx, seen.ry) >= Limits<T>::log2_tiny;
}

template <class T>
struct alignas(16) Listed {
  Link<T> link;
  int id;
};

template <class T>
struct FwdShared {
  Listed<T> list[kCapacity];
  Seen<T> best[kWarps];
  T largest[kWarps];
  int poisoned[kWarps], positive[kWarps], kept[kWarps];
};

template <class T>
struct Row {  // the pixels of one thread
  T x[kRow], y, best[kRow];
  int who[kRow];
};

// Draws the listed links on the block of 4 x 4 pixels that four lanes share.
template <class T>
__device__ void draw(const Listed<T>* list, int count, const Tile<T>& block, Row<T>& row) {
  const int lane = threadIdx.x % kWarp, mine = lane % kRow, group = lane - mine;
  Seen<T> best = {-T(INFINITY), 0, 0};
  for (int j = mine; j < count; j += kRow) {
    const Seen<T> seen = look(list[j].link, block);
    if (seen.v > best.v) best = seen;
  }
  best = brightest<kRow>(best);
  const auto rival = make_rival(block, best.v, best.rx, best.ry);
  for (int first = 0; first < count; first += kWarp) {
    unsigned left = 0;  // bit i: link first + i is left
    for (int i = 0; i < kWarp && first + i < count; i += kRow) {
      const int j = first + i + mine;
      const bool keep = j < count && survives(block, rival, look(list[j].link, block));
      left |= (__ballot_sync(kAllLanes, keep) >> group & ((1u << kRow) - 1)) << i;
    }
    for (; left; left &= left - 1) {
      const Listed<T> one = list[first + __ffs(left) - 1];
      for (int p = 0; p < kRow; ++p) {
        const T value = one.link.lw - residual(one.link, row.x[p], row.y).d2;
        if (value > row.best[p]) row.best[p] = value, row.who[p] = one.id;  // strictly: the lowest index keeps a tie
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
__global__ void __launch_bounds__(kThreads)
    link_heatmap_fwd_kernel(Scene<S> scene, int tiles_x, int tiles_y, S* heatmap, Winner winner) {
  using T = Compute<S>;
  auto& shared = shared_memory<FwdShared<T>>();
  const int thread = threadIdx.x, lane = thread % kWarp, warp = thread / kWarp;
  const int64_t sample = blockIdx.x / (tiles_x * tiles_y);
  const int x0 = blockIdx.x % tiles_x * kTile, y0 = blockIdx.x / tiles_x % tiles_y * kTile;
  const auto tile_of = [&](int x, int y, int size, T largest) {
    return make_tile(scene.x(min(x, scene.width - 1)), scene.x(min(x + size, scene.width) - 1),
                     scene.y(min(y, scene.height - 1)), scene.y(min(y + size, scene.height) - 1), largest);
  };

  // All links at the tile's centre; where they fit, they are kept.
  const bool fits = scene.num_links <= kCapacity;
  Tile<T> tile = tile_of(x0, y0, kTile, scene.scale);
  Seen<T> best = {-T(INFINITY), 0, 0};
  T largest = scene.scale;
  bool poisoned = survey_keypoints(scene, sample, largest), positive = false;
  for (int e = thread; e < scene.num_links; e += kThreads) {
    const auto built = build(scene, sample, e);
    if (fits) shared.list[e] = {built.link, e};
    poisoned = poisoned || built.poisoned, positive = positive || built.positive;
    const Seen<T> seen = look(built.link, tile);
    if (seen.v > best.v) best = seen;
  }
  best = brightest<kWarp>(best), largest = lane_max<kWarp>(largest);
  poisoned = __any_sync(kAllLanes, poisoned), positive = __any_sync(kAllLanes, positive);
  if (lane == 0) {
    shared.best[warp] = best, shared.largest[warp] = largest;
    shared.poisoned[warp] = poisoned, shared.positive[warp] = positive;
  }
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) {
    if (shared.best[w].v > best.v) best = shared.best[w];
    largest = fmax(largest, shared.largest[w]);
    poisoned = poisoned || shared.poisoned[w], positive = positive || shared.positive[w];
  }

  // This thread's pixels: block (lane / 4) of its warp's 4 x 2, row (lane % 4) of the block.
  const int block_x = x0 + lane / kRow % kRow * kRow, block_y = y0 + (warp * kWarp + lane) / kTile * kRow;
  const int px = block_x, py = block_y + lane % kRow;
  Row<T> row;
  row.y = scene.y(py);
  for (int p = 0; p < kRow; ++p) row.x[p] = scene.x(px + p), row.best[p] = -T(INFINITY), row.who[p] = 0;

  if (positive && !poisoned) {
    tile = tile_of(x0, y0, kTile, largest);
    const Tile<T> block = tile_of(block_x, block_y, kRow, largest);
    const auto rival = make_rival(tile, best.v, best.rx, best.ry);
    int count = 0;
    for (int first = 0; first < scene.num_links; first += kThreads) {
      const int e = first + thread;
      Listed<T> one;
      bool keep = false;
      if (e < scene.num_links) {
        one = fits ? shared.list[e] : Listed<T>{build(scene, sample, e).link, e};
        keep = survives(tile, rival, look(one.link, tile));
      }
      const unsigned kept = __ballot_sync(kAllLanes, keep);
      if (lane == 0) shared.kept[warp] = __popc(kept);
      __syncthreads();  // from here on the list may be overwritten, up to entry first + kThreads
      int at = count + __popc(kept & ((1u << lane) - 1));
      for (int w = 0; w < kWarps; ++w) {
        if (w < warp) at += shared.kept[w];
        count += shared.kept[w];
      }
      if (keep) shared.list[at] = one;
      __syncthreads();
      if (!fits && count > kCapacity - kThreads) {
        draw(shared.list, count, block, row);
        __syncthreads();
        count = 0;
      }
    }
    draw(shared.list, count, block, row);
  }

  T value[kRow];
  for (int p = 0; p < kRow; ++p) {
    const bool lit = row.best[p] >= Limits<T>::log2_tiny;
    value[p] = poisoned ? T(NAN) : lit ? power_of_two(row.best[p]) : T(0);
    // Where no weight is positive, S is 0 everywhere and the first link wins the tie.
    row.who[p] = lit ? row.who[p] : poisoned || positive || scene.num_links == 0 ? -1 : 0;
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
  check_size(height, width);
  const OnDevice device(keypoints);
  const auto x = torch::stable::contiguous(keypoints), w = torch::stable::contiguous(weights),
             order = torch::stable::contiguous(links);
  const int64_t b = x.size(0), tiles_x = ceil_div(width, kTile), tiles_y = ceil_div(height, kTile);
  const bool wide = links.size(0) > 32767;
  const auto heatmap = empty(x, {b, 1, height, width}, x.scalar_type());
  const auto winner = empty(x, {b, height, width}, wide ? ScalarType::Int : ScalarType::Short);
  dispatch_storage(x.scalar_type(), "link_heatmap", [&](auto zero) {
    using S = decltype(zero);
    launch(link_heatmap_fwd_kernel<S>, b * tiles_x * tiles_y, kThreads, sizeof(FwdShared<Compute<S>>), device.stream(),
           make_scene<S>(x, w, order, height, width, thickness), int(tiles_x), int(tiles_y), write<S>(heatmap),
           Winner{winner.mutable_data_ptr(), wide});
  });
  return {heatmap, winner};
}

}  // namespace

void describe_link_heatmap(KernelShapes& shapes) {
  shapes.push_back(describe("link_heatmap_fwd", link_heatmap_fwd_kernel<float>, kThreads, sizeof(FwdShared<float>)));
}

STABLE_TORCH_LIBRARY_IMPL(ppl_fast, PPL_FAST_CUDA_KEY, m) {
  m.impl(PPL_FAST_CUDA_OP("link_heatmap"), TORCH_BOX(&link_heatmap_cuda));
}

}  // namespace ppl_fast
