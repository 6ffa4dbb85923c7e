// link_heatmap on the CPU, forward, compiled once per instruction set.
//
// A tile of 16 x 16 pixels culls the sample's links, a vector of links at a time; then its 4 x 4 blocks, side by side
// in the lanes, all cull what the tile kept, so that nothing is compared across lanes. The pixels of a block, in one to
// four vectors, walk the links left, keep the largest log value and its index, and take one power of two. At N = 16,
// thickness 1e-3, about five of 120 links reach a block: a pixel costs some 5 x 12 operations and one exp2 instead of
// 120 exponentials. Not taken: blocks of 8 x 4 (twice the links reach one), and a cull of each block by links in the
// lanes (1.8 times the time, since blocks wait for what is compared across lanes).
#include "link_heatmap_simd.h"

namespace PPL_NAMESPACE {

constexpr int kSide = kTile / kBlock, kBlocks = kSide * kSide;  // of a tile
constexpr int kWord = 32;                                       // links that one word tells of
static_assert(kBlocks == kPixels, "vectors take the pixels of a block, and the blocks of a tile");

template <class T>
struct Seen {  // links as the centre of a tile sees them
  Vec<T> v, rx, ry;
};

// Lists where the links lie that may win a pixel of the tile, in order; none if no link reaches the smallest normal
// number there.
template <class T>
int64_t cull(const T* table, int64_t groups, const Tile<T>& tile, Seen<T>* seen, int32_t* list) {
  constexpr int n = kLanes<T>;
  const auto* group = reinterpret_cast<const Group<T>*>(table);
  Vec<T> best = Vec<T>{} - INFINITY;
  Vec<Index<T>> where{};
  for (int64_t g = 0; g < groups; ++g) {
    const auto at = residual(group[g].link, tile.cx, tile.cy);
    const Vec<T> v = group[g].link.lw - at.d2;
    seen[g] = {v, at.rx, at.ry};
    where = v > best ? Vec<Index<T>>{} + Index<T>(g) : where;
    best = higher(v, best);
  }
  const T most = maximum<T>(best);
  if (!(most >= Limits<T>::log2_tiny)) {  // rarely: is it dark everywhere, or only at the centre?
    Vec<T> bound = Vec<T>{} - INFINITY;
    for (int64_t g = 0; g < groups; ++g) bound = higher(upper_bound(tile, seen[g].v, seen[g].rx, seen[g].ry), bound);
    if (!(maximum<T>(bound) >= Limits<T>::log2_tiny)) return 0;
  }
  const int lane = __builtin_ctz(lane_bits(best == most + Vec<T>{}) | 1u << (n - 1));
  const Seen<T>& f = seen[where[lane]];
  const auto rival = make_rival(tile, f.v[lane], f.rx[lane], f.ry[lane]);
  int64_t kept = 0;
  for (int64_t g = 0; g < groups; ++g)
    kept += append_bits<n>(lane_bits(may_win(rival, seen[g].v, seen[g].rx, seen[g].ry)), int32_t(g) * kGroup<T>,
                           list + kept);
  return kept;
}

// The 4 x 4 blocks of a tile, side by side in the lanes.
template <class T>
struct Blocks {
  Tile<Vec<T>> at[kVectors<T>];

  Blocks(const LinkRows<T>& rows, int64_t x0, int64_t y0) {
    T cx[kBlocks], cy[kBlocks], hx[kBlocks], hy[kBlocks];
    for (int i = 0; i < kSide; ++i) {
      const int64_t x = lesser(x0 + i * kBlock, rows.width - 1), x1 = lesser(x + kBlock, rows.width) - 1;
      const int64_t y = lesser(y0 + i * kBlock, rows.y1 - 1), y1 = lesser(y + kBlock, rows.y1) - 1;
      const auto one = make_tile(rows.xs[x], rows.xs[x1], rows.ys[y], rows.ys[y1], rows.largest_coordinate);
      for (int j = 0; j < kSide; ++j) {
        cx[j * kSide + i] = one.cx, hx[j * kSide + i] = one.hx;
        cy[i * kSide + j] = one.cy, hy[i * kSide + j] = one.hy;
      }
    }
    for (int k = 0; k < kVectors<T>; ++k)
      at[k] = {load(cx + k * kLanes<T>), load(cy + k * kLanes<T>), load(hx + k * kLanes<T>), load(hy + k * kLanes<T>)};
  }
};

// For each block of a tile which of the links listed may win a pixel of it: bit i of words[w * kBlocks + block] speaks
// of link kWord * w + i. As `cull`, all blocks at once.
template <class T>
void cull_blocks(const T* table, const int32_t* list, int64_t kept, const Blocks<T>& blocks, Seen<T>* seen,
                 Index<T>* words) {
  constexpr int n = kVectors<T>;
  Vec<T> best[n], fx[n] = {}, fy[n] = {};
  for (int k = 0; k < n; ++k) best[k] = Vec<T>{} - INFINITY;
  for (int64_t j = 0; j < kept; ++j) {
    const auto link = get_link(table + list[j]);
    for (int k = 0; k < n; ++k) {
      const auto from = residual(link, blocks.at[k].cx, blocks.at[k].cy);
      const Vec<T> v = link.lw - from.d2;
      seen[j * n + k] = {v, from.rx, from.ry};
      fx[k] = v > best[k] ? from.rx : fx[k];
      fy[k] = v > best[k] ? from.ry : fy[k];
      best[k] = higher(v, best[k]);
    }
  }
  Rival<Vec<T>> rival[n];
  Vec<Index<T>> lit[n];  // where some link reaches the smallest normal number
  bool all = true;
  for (int k = 0; k < n; ++k) {
    rival[k] = make_rival(blocks.at[k], best[k], fx[k], fy[k]);
    lit[k] = best[k] >= Limits<T>::log2_tiny + Vec<T>{};
    all = all && lane_bits(lit[k]) == (1u << kLanes<T>)-1;
  }
  for (int64_t j = 0; j < kept && !all; ++j)  // rarely: dark everywhere, or only at the centre?
    for (int k = 0; k < n; ++k) {
      const auto& s = seen[j * n + k];
      lit[k] |= upper_bound(blocks.at[k], s.v, s.rx, s.ry) >= Limits<T>::log2_tiny + Vec<T>{};
    }
  for (int64_t first = 0; first < kept; first += kWord, words += kBlocks) {
    Vec<Index<T>> word[n] = {};
    for (int64_t j = first; j < lesser(first + kWord, kept); ++j) {
      const Index<T> bit = Index<T>(1u << (j - first));
      for (int k = 0; k < n; ++k) {
        const auto& s = seen[j * n + k];
        word[k] |= may_win(rival[k], s.v, s.rx, s.ry) & bit;
      }
    }
    for (int k = 0; k < n; ++k) *reinterpret_cast<Vec<Index<T>>*>(words + k * kLanes<T>) = word[k] & lit[k];
  }
}

template <class T, class I>
struct Painter {  // draws rows of one sample
  const LinkRows<T>& rows;
  T* heatmap;
  I* winner;
  Seen<T>* seen;
  Index<T>* words;
  int32_t* list;

  Painter(const LinkRows<T>& r, T* memory, T* heatmap, I* winner) : rows(r), heatmap(heatmap), winner(winner) {
    const int64_t links = r.groups * kLanes<T>;
    seen = reinterpret_cast<Seen<T>*>(memory);
    words = reinterpret_cast<Index<T>*>(memory + 3 * kBlocks * links);
    list = reinterpret_cast<int32_t*>(words + (links + 2 * kWord - 1) / (2 * kWord) * 2 * kBlocks);
  }

  void paint_tile(int64_t x0, int64_t y0) {
    const int64_t columns = lesser(rows.width - x0, kTile), height = lesser(rows.y1 - y0, kTile);
    const T *const xs = rows.xs + x0, *const ys = rows.ys + y0;
    const auto tile = make_tile(xs[0], xs[columns - 1], ys[0], ys[height - 1], rows.largest_coordinate);
    const int64_t kept = cull(rows.table, rows.groups, tile, seen, list);
    if (kept == 0) return clear(x0, y0, columns, height);
    cull_blocks(rows.table, list, kept, Blocks<T>(rows, x0, y0), seen, words);
    const int64_t pairs = (kept + 2 * kWord - 1) / (2 * kWord);
    if ((kept - 1) / kWord % 2 == 0)  // an odd number of words
      for (int i = 0; i < kBlocks; ++i) words[(2 * pairs - 1) * kBlocks + i] = 0;
    for (int64_t y = 0; y < height; y += kBlock) {
      const Down<T> down(ys + y);
      for (int64_t x = 0; x < columns; x += kBlock)
        paint_block(words + y / kBlock * kSide + x / kBlock, pairs, xs + x, down, x0 + x, y0 + y,
                    lesser(columns - x, kBlock), lesser(height - y, kBlock));
    }
  }

  void clear(int64_t x, int64_t y, int64_t columns, int64_t height) {
    for (int64_t at = y * rows.width + x, end = at + height * rows.width; at < end; at += rows.width)
      for (int64_t i = 0; i < columns; ++i) heatmap[at + i] = 0, winner[at + i] = -1;
  }

  void paint_block(const Index<T>* word, int64_t pairs, const T* xs, const Down<T>& down, int64_t x, int64_t y,
                   int64_t columns, int64_t height) {
    Vec<T> best[kVectors<T>];
    Vec<Index<T>> who[kVectors<T>];
    for (int k = 0; k < kVectors<T>; ++k) best[k] = Vec<T>{} - INFINITY, who[k] = Vec<Index<T>>{};
    for (int64_t w = 0; w < pairs; ++w, word += 2 * kBlocks)
      for (uint64_t bits = uint32_t(word[0]) | uint64_t(uint32_t(word[kBlocks])) << kWord; bits; bits &= bits - 1) {
        const T* const at = rows.table + list[2 * kWord * w + __builtin_ctzll(bits)];
        const auto link = get_link(at);
        const auto id = Vec<Index<T>>{} + get_id(at);
        for (int k = 0; k < kVectors<T>; ++k) {
          const Vec<T> value = link.lw - residual(link, load_block(xs, 0, k), down.y[k]).d2;
          who[k] = value > best[k] ? id : who[k];  // strictly: the lowest index keeps a tie
          best[k] = higher(value, best[k]);
        }
      }
    T value[kPixels];
    I index[kPixels];
    typedef I Narrow __attribute__((vector_size(sizeof(I) * kLanes<T>), aligned(sizeof(I))));
    for (int k = 0; k < kVectors<T>; ++k) {
      store(value + k * kLanes<T>, exp2<T>(best[k]));
      *reinterpret_cast<Narrow*>(index + k * kLanes<T>) =
          __builtin_convertvector(best[k] < Limits<T>::log2_tiny ? Vec<Index<T>>{} - 1 : who[k], Narrow);
    }
    copy_block(heatmap + y * rows.width + x, rows.width, value, kBlock, columns, height);
    copy_block(winner + y * rows.width + x, rows.width, index, kBlock, columns, height);
  }
};

template <class T, class I>
void forward(const LinkRows<T>& rows, T* memory, T* heatmap, I* winner) {
  Painter<T, I> painter(rows, memory, heatmap, winner);
  for (int64_t y = rows.y0; y < rows.y1; y += kTile)
    for (int64_t x = 0; x < rows.width; x += kTile) painter.paint_tile(x, y);
}

template <class T, class I>
LinkHeatmapKernels<T, I> link_heatmap_kernels() {
  return {kLanes<T>, forward<T, I>, backward<T, I>};
}

template LinkHeatmapKernels<float, int16_t> link_heatmap_kernels();
template LinkHeatmapKernels<float, int32_t> link_heatmap_kernels();
template LinkHeatmapKernels<double, int16_t> link_heatmap_kernels();
template LinkHeatmapKernels<double, int32_t> link_heatmap_kernels();

}  // namespace PPL_NAMESPACE
