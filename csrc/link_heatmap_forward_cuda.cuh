// link_heatmap's forward on CUDA: how a warp culls the links of a table for its 16 x 8 pixels, and draws what is left.
#pragma once

#include "link_heatmap_cuda.cuh"

namespace ppl_fast {

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

// A warp's region, and a thread's row of pixels in it, not yet drawn.
template <class S, class T = Compute<S>>
struct Place {
  int x, y, px, block_y, py;

  __device__ Place(int region_x, int region_y) : x(region_x), y(region_y) {
    const int lane = threadIdx.x % kWarp;
    px = x + lane / kRow % kRow * kRow, block_y = y + lane / kRegionX * kRow, py = block_y + lane % kRow;
  }
  __device__ Row<T> row(const Scene<S>& scene) const {
    Row<T> row;
    row.y = scene.y(py);
    for (int p = 0; p < kRow; ++p) row.x[p] = scene.x(px + p), row.best[p] = -T(INFINITY), row.who[p] = 0;
    return row;
  }
};

template <class S>
struct Output {
  S* heatmap;
  Winner winner;
};

// Writes a thread's row of pixels; `found` is what the block has found among all links.
template <class S, class T = Compute<S>>
__device__ void store(const Scene<S>& scene, const Output<S>& out, int64_t sample, const Place<S>& at, Row<T>& row,
                      int found) {
  T value[kRow];
  for (int p = 0; p < kRow; ++p) {
    const bool lit = row.best[p] >= Limits<T>::log2_tiny;
    value[p] = found & kPoisoned ? T(NAN) : lit ? power_of_two(row.best[p]) : T(0);
    // Where no weight is positive, S is 0 everywhere and the first link wins the tie.
    row.who[p] = !(found & kPoisoned) && lit ? row.who[p] : found || scene.num_links == 0 ? -1 : 0;
  }
  if (at.py >= scene.height) return;
  const int64_t to = (sample * scene.height + at.py) * scene.width + at.px;
  const int count = min(kRow, scene.width - at.px);
  const bool aligned = scene.width % kRow == 0;
  store_row(out.heatmap + to, value, count, aligned);
  if (out.winner.wide)
    store_row(static_cast<int32_t*>(out.winner.at) + to, row.who, count, aligned);
  else
    store_row(static_cast<int16_t*>(out.winner.at) + to, row.who, count, aligned);
}

}  // namespace ppl_fast
