// link_heatmap on the CPU, compiled once per instruction set.
//
// Forward: a tile of 16 x 16 pixels culls the sample's links, a vector of links at a time, and each of its 4 x 4 blocks
// culls what the tile kept. The pixels of a block, side by side in one to four vectors, then walk the links left, keep
// the largest log value and its index, and take one power of two. At N = 16, thickness 1e-3, under five of 120 links
// reach a block: a pixel costs about 5 x 12 operations and one exp2 instead of 120 exponentials.
// Backward: for each block and each different winner in it, one masked evaluation; sums stay apart by lane until the
// band ends, so their order never changes. Not taken: scattering per pixel (scalar, and the order of sums varies).
#include "link_heatmap_cpu.h"
#include "simd.h"

#include "link_heatmap.h"

namespace PPL_NAMESPACE {

template <class T>
using Index = typename Bits<T>::type;

constexpr int kPixels = kBlock * kBlock;
template <class T>
constexpr int kVectors = kPixels / kLanes<T>;

// As many links as a vector has lanes. Lane i of group g lies at g * kGroup<T> + i, its fields kLanes<T> apart.
template <class T>
struct Group {
  Link<Vec<T>> link;
  Vec<Index<T>> id;  // index in the sample
};
template <class T>
constexpr int kGroup = int(sizeof(Group<T>) / sizeof(T));
static_assert(sizeof(Group<float>) == kFields * sizeof(Vec<float>), "Group must be plain columns");

template <class T>
PPL_HD Link<T> get_link(const T* at) {
  constexpr int n = kLanes<T>;
  return {at[0], at[n], at[2 * n], at[3 * n], at[4 * n], at[5 * n], at[6 * n]};
}

template <class T>
PPL_HD Index<T> get_id(const T* at) {
  Index<T> id;
  __builtin_memcpy(&id, at + (kFields - 1) * kLanes<T>, sizeof(id));
  return id;
}

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

// Copies the links listed, filling the last group with links that never win; returns the number of groups.
template <class T>
int64_t gather_links(const T* table, const int32_t* list, int64_t kept, T* out) {
  constexpr int n = kLanes<T>;
  const int64_t groups = (kept + n - 1) / n;
  reinterpret_cast<Group<T>*>(out)[groups - 1].link.lw = Vec<T>{} - INFINITY;
  for (int64_t j = 0; j < kept; ++j) {
    const T* const from = table + list[j];
    T* const to = out + j / n * kGroup<T> + j % n;
    for (int c = 0; c < kFields; ++c) to[c * n] = from[c * n];
  }
  return groups;
}

template <class T>
struct Block {  // the pixel centres of a 4 x 4 block, lane by lane
  Vec<T> x[kVectors<T>], y[kVectors<T>];

  Block(const T* xs, const T* ys) {
    T px[kPixels], py[kPixels];
    for (int i = 0; i < kPixels; ++i) px[i] = xs[i % kBlock], py[i] = ys[i / kBlock];
    for (int k = 0; k < kVectors<T>; ++k) x[k] = load(px + k * kLanes<T>), y[k] = load(py + k * kLanes<T>);
  }
};

// Copies between a 4 x 4 block and the part of it that lies in the image; whole blocks as constant-size copies.
template <class To, class From>
PPL_HD void copy_block(To* to, int64_t to_width, const From* from, int64_t from_width, int64_t columns, int64_t rows) {
  if (columns == kBlock && rows == kBlock) {
    for (int y = 0; y < kBlock; ++y)
      for (int x = 0; x < kBlock; ++x) to[y * to_width + x] = To(from[y * from_width + x]);
  } else {
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < columns; ++x) to[y * to_width + x] = To(from[y * from_width + x]);
  }
}

template <class T, class I>
struct Painter {  // draws rows of one sample
  const LinkRows<T>& rows;
  T *heatmap, *tile_links;
  I* winner;
  Seen<T>* seen;
  int32_t* list;

  Painter(const LinkRows<T>& r, T* memory, T* heatmap, I* winner) : rows(r), heatmap(heatmap), winner(winner) {
    tile_links = memory;
    seen = reinterpret_cast<Seen<T>*>(tile_links + r.groups * kGroup<T>);
    list = reinterpret_cast<int32_t*>(seen + r.groups);
  }

  void paint_tile(int64_t x0, int64_t y0) {
    const int64_t columns = extent(rows.width - x0, kTile), height = extent(rows.y1 - y0, kTile);
    const int64_t kept = cull(rows.table, rows.groups, tile(x0, y0, columns, height), seen, list);
    if (kept == 0) return clear(x0, y0, columns, height);
    const int64_t groups = gather_links(rows.table, list, kept, tile_links);
    for (int64_t y = y0; y < y0 + height; y += kBlock)
      for (int64_t x = x0; x < x0 + columns; x += kBlock)
        paint_block(groups, x, y, extent(rows.width - x, kBlock), extent(rows.y1 - y, kBlock));
  }

  static int64_t extent(int64_t left, int64_t size) { return left < size ? left : size; }

  Tile<T> tile(int64_t x, int64_t y, int64_t columns, int64_t height) const {
    const T *xs = rows.xs + x, *ys = rows.ys + y;
    return make_tile(xs[0], xs[columns - 1], ys[0], ys[height - 1], rows.largest_coordinate);
  }

  void clear(int64_t x, int64_t y, int64_t columns, int64_t height) {
    for (int64_t at = y * rows.width + x, end = at + height * rows.width; at < end; at += rows.width)
      for (int64_t i = 0; i < columns; ++i) heatmap[at + i] = 0, winner[at + i] = -1;
  }

  void paint_block(int64_t groups, int64_t x, int64_t y, int64_t columns, int64_t height) {
    const int64_t kept = cull(tile_links, groups, tile(x, y, columns, height), seen, list);
    if (kept == 0) return clear(x, y, columns, height);
    const Block<T> pixels(rows.xs + x, rows.ys + y);
    Vec<T> best[kVectors<T>];
    Vec<Index<T>> who[kVectors<T>];
    for (int k = 0; k < kVectors<T>; ++k) best[k] = Vec<T>{} - INFINITY, who[k] = Vec<Index<T>>{};
    for (int64_t j = 0; j < kept; ++j) {
      const T* const at = tile_links + list[j];
      const auto link = get_link(at);
      const auto id = Vec<Index<T>>{} + get_id(at);
      for (int k = 0; k < kVectors<T>; ++k) {
        const Vec<T> value = link.lw - residual(link, pixels.x[k], pixels.y[k]).d2;
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

// Adds to a link's sums what the pixels of one vector that it won contribute.
template <class T>
PPL_HD void accumulate(const Link<T>& link, Vec<T> x, Vec<T> y, Vec<T> grad, Vec<Index<T>> won, T* sums) {
  const auto at = residual(link, x, y);
  // Selected, not multiplied by 0: a gradient that is not a number must stay with the link that won its pixel.
  const Vec<T> g = won ? grad * exp2<T>(-at.d2) : Vec<T>{};
  const Vec<T> to_b = at.t * g, to_a = g - to_b;
  const Vec<T> field[kGradFields] = {g, to_a * at.rx, to_a * at.ry, to_b * at.rx, to_b * at.ry};
  for (int c = 0; c < kGradFields; ++c) store(sums + c * kLanes<T>, load(sums + c * kLanes<T>) + field[c]);
}

template <class T, class I>
void backward(const LinkRows<T>& rows, const T* grad_heatmap, const I* winner, T* scratch, T* sums) {
  constexpr int n = kLanes<T>;
  const int64_t fields = rows.groups * n * kGradFields;
  T* const lane_sums = scratch;
  for (int64_t i = 0; i < fields * n; i += n) store(lane_sums + i, Vec<T>{});
  for (int64_t y = rows.y0; y < rows.y1; y += kBlock)
    for (int64_t x = 0; x < rows.width; x += kBlock) {
      const int64_t columns = rows.width - x < kBlock ? rows.width - x : kBlock;
      const int64_t height = rows.y1 - y < kBlock ? rows.y1 - y : kBlock;
      T grad[kPixels];
      Index<T> index[kPixels];
      if (columns < kBlock || height < kBlock)
        for (int i = 0; i < kPixels; ++i) grad[i] = 0, index[i] = -1;
      copy_block(grad, kBlock, grad_heatmap + y * rows.width + x, rows.width, columns, height);
      copy_block(index, kBlock, winner + y * rows.width + x, rows.width, columns, height);

      Vec<Index<T>> who[kVectors<T>];
      uint32_t left[kVectors<T>];  // pixels that no link has accounted for yet
      for (int k = 0; k < kVectors<T>; ++k) {
        who[k] = *reinterpret_cast<const Vec<Index<T>>*>(index + k * n);
        left[k] = lane_bits(who[k] >= Vec<Index<T>>{});
      }
      const Block<T> pixels(rows.xs + x, rows.ys + y);
      for (int first = 0; first < kVectors<T>; ++first)
        while (left[first]) {
          const Index<T> id = index[first * n + __builtin_ctz(left[first])];
          const auto link = get_link(rows.table + id / n * kGroup<T> + id % n);
          for (int k = first; k < kVectors<T>; ++k) {
            const auto won = who[k] == id + Vec<Index<T>>{};
            const uint32_t bits = lane_bits(won);
            left[k] &= ~bits;
            if (bits)
              accumulate(link, pixels.x[k], pixels.y[k], load(grad + k * n), won, lane_sums + id * kGradFields * n);
          }
        }
    }
  for (int64_t i = 0; i < fields; ++i) sums[i] = add_lanes<T>(load(lane_sums + i * n));
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
