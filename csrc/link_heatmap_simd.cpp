// link_heatmap on the CPU, compiled once per instruction set.
//
// Forward: a tile of 16 x 16 pixels culls the sample's links, several links a vector; each of its 4 x 4 blocks culls
// the survivors again; the pixels of a block, side by side in one to four vectors, then walk what is left, keep the
// largest log value and its index, and take one power of two. At N = 16, thickness 1e-3, about four links reach a
// block, so a pixel costs 4 x 10 operations and one exp2 instead of 120 exponentials.
// Backward: for each 4 x 4 block and each different winner in it, one masked evaluation; sums stay apart by lane until
// the band ends, so their order never changes. Not taken: scattering per pixel (scalar, and the order of sums varies).
#include "link_heatmap_cpu.h"
#include "simd.h"

#include "link_heatmap.h"

PPL_FAST_BEGIN

template <class T>
using Index = typename Bits<T>::type;

constexpr int kPixels = kBlock * kBlock;
template <class T>
constexpr int kVectors = kPixels / kLanes<T>;

template <class T>
PPL_HD Link<Vec<T>> load_link(const T* const* field, int64_t i) {
  return {load(field[0] + i), load(field[1] + i), load(field[2] + i), load(field[3] + i),
          load(field[4] + i), load(field[5] + i), load(field[6] + i)};
}

template <class T>
PPL_HD Link<T> get_link(const T* const* field, int64_t i) {
  return {field[0][i], field[1][i], field[2][i], field[3][i], field[4][i], field[5][i], field[6][i]};
}

// Fills keep (0 or 1 per link) and returns whether any link reaches the smallest normal number on the tile.
template <class T>
bool cull(const T* const* field, int64_t count, const Tile<T>& tile, T* v, T* rx, T* ry, Index<T>* keep) {
  constexpr int n = kLanes<T>;
  Vec<T> best = Vec<T>{} - INFINITY, bound = best;
  for (int64_t i = 0; i < count; i += n) {
    const auto link = load_link(field, i);
    const auto at = residual(link, tile.cx, tile.cy);
    const Vec<T> value = link.lw - at.d2;
    store(v + i, value), store(rx + i, at.rx), store(ry + i, at.ry);
    best = higher(value, best);
    bound = higher(upper_bound(tile, value, at.rx, at.ry), bound);
  }
  if (!(maximum<T>(bound) >= Limits<T>::log2_tiny)) return false;
  const T most = maximum<T>(best);
  int64_t f = 0;
  while (f + 1 < count && !(v[f] == most)) ++f;
  const T vf = v[f], fx = rx[f], fy = ry[f];
  for (int64_t i = 0; i < count; i += n) {
    const auto keeps = may_win(tile, load(v + i), load(rx + i), load(ry + i), vf, fx, fy);
    *reinterpret_cast<Vec<Index<T>>*>(keep + i) = keeps & 1;
  }
  return true;
}

template <class T>
struct Scratch {  // of one thread: the tile's own links, their indices, and the arrays of a cull
  T *field[kLinkFields], *v, *rx, *ry;
  Index<T>*id, *keep;

  Scratch(T* memory, int64_t stride) {
    for (auto& column : field) column = memory, memory += stride;
    v = memory, rx = v + stride, ry = rx + stride;
    id = reinterpret_cast<Index<T>*>(ry + stride);
    keep = id + stride;
  }
};

// The first count columns of the table that are kept become the tile's own, followed by links that never win.
template <class T>
int64_t compact(const T* const* table, int64_t count, Scratch<T>& s) {
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    s.id[kept] = i;
    kept += s.keep[i];
  }
  for (int c = 0; c < kLinkFields; ++c) {
    for (int64_t j = 0; j < kept; ++j) s.field[c][j] = table[c][s.id[j]];
    store(s.field[c] + kept, Vec<T>{} - (c == kLinkFields - 1 ? T(INFINITY) : T(0)));
  }
  return kept;
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

// Copies the rows and columns of a 4 x 4 block that lie in the image.
template <class From, class To>
PPL_HD void write_block(const From* from, To* to, int64_t width, int64_t columns, int64_t rows) {
  for (int64_t y = 0; y < rows; ++y)
    for (int64_t x = 0; x < columns; ++x) to[y * width + x] = static_cast<To>(from[y * kBlock + x]);
}

template <class T, class I>
void fill_zero(T* heatmap, I* winner, int64_t width, int64_t columns, int64_t rows) {
  for (int64_t y = 0; y < rows; ++y)
    for (int64_t x = 0; x < columns; ++x) heatmap[y * width + x] = 0, winner[y * width + x] = -1;
}

template <class T, class I>
void draw_block(const Scratch<T>& s, const int* list, int count, const Block<T>& pixels, T* heatmap, I* winner,
                int64_t width, int64_t columns, int64_t rows) {
  Vec<T> best[kVectors<T>];
  Vec<Index<T>> who[kVectors<T>];
  for (int k = 0; k < kVectors<T>; ++k) best[k] = Vec<T>{} - INFINITY, who[k] = Vec<Index<T>>{};
  for (int j = 0; j < count; ++j) {
    const auto link = get_link(s.field, list[j]);
    const Index<T> id = s.id[list[j]];
    for (int k = 0; k < kVectors<T>; ++k) {
      const Vec<T> value = link.lw - residual(link, pixels.x[k], pixels.y[k]).d2;
      const auto wins = value > best[k];  // strictly: the lowest index keeps a tie
      best[k] = higher(value, best[k]);
      who[k] = wins ? Vec<Index<T>>{} + id : who[k];
    }
  }
  T value[kPixels];
  Index<T> index[kPixels];
  for (int k = 0; k < kVectors<T>; ++k) {
    store(value + k * kLanes<T>, exp2<T>(best[k]));
    *reinterpret_cast<Vec<Index<T>>*>(index + k * kLanes<T>) =
        best[k] < Limits<T>::log2_tiny ? Vec<Index<T>>{} - 1 : who[k];
  }
  if (columns == kBlock && rows == kBlock) {
    write_block(value, heatmap, width, kBlock, kBlock);
    write_block(index, winner, width, kBlock, kBlock);
  } else {
    write_block(value, heatmap, width, columns, rows);
    write_block(index, winner, width, columns, rows);
  }
}

template <class T, class I>
void forward(const LinkRows<T>& r, T* memory, T* heatmap, I* winner) {
  Scratch<T> s(memory, r.stride);
  const T* table[kLinkFields];
  for (int c = 0; c < kLinkFields; ++c) table[c] = r.table + c * r.stride;
  auto* list = reinterpret_cast<int*>(s.keep + r.stride);

  for (int64_t ty = r.y0; ty < r.y1; ty += kTile) {
    const int64_t tile_rows = r.y1 - ty < kTile ? r.y1 - ty : kTile;
    for (int64_t tx = 0; tx < r.width; tx += kTile) {
      const int64_t tile_columns = r.width - tx < kTile ? r.width - tx : kTile;
      const auto tile = make_tile(r.xs[tx], r.xs[tx + tile_columns - 1], r.ys[ty], r.ys[ty + tile_rows - 1],
                                  r.largest_coordinate);
      T* const tile_heatmap = heatmap + ty * r.width + tx;
      I* const tile_winner = winner + ty * r.width + tx;
      if (!cull<T>(table, r.num_links, tile, s.v, s.rx, s.ry, s.keep)) {
        fill_zero(tile_heatmap, tile_winner, r.width, tile_columns, tile_rows);
        continue;
      }
      const int64_t kept = compact<T>(table, r.num_links, s);
      for (int64_t y = 0; y < tile_rows; y += kBlock) {
        const int64_t rows = tile_rows - y < kBlock ? tile_rows - y : kBlock;
        for (int64_t x = 0; x < tile_columns; x += kBlock) {
          const int64_t columns = tile_columns - x < kBlock ? tile_columns - x : kBlock;
          const T *xs = r.xs + tx + x, *ys = r.ys + ty + y;
          const auto block = make_tile(xs[0], xs[columns - 1], ys[0], ys[rows - 1], r.largest_coordinate);
          T* const out = tile_heatmap + y * r.width + x;
          I* const who = tile_winner + y * r.width + x;
          if (!cull<T>(s.field, kept, block, s.v, s.rx, s.ry, s.keep)) {
            fill_zero(out, who, r.width, columns, rows);
            continue;
          }
          int count = 0;
          for (int j = 0; j < kept; ++j) list[count] = j, count += int(s.keep[j]);
          draw_block(s, list, count, Block<T>(xs, ys), out, who, r.width, columns, rows);
        }
      }
    }
  }
}

template <class T, class I>
void backward(const LinkRows<T>& r, const T* grad_heatmap, const I* winner, T* lane_sums) {
  constexpr int n = kLanes<T>;
  const T* table[kLinkFields];
  for (int c = 0; c < kLinkFields; ++c) table[c] = r.table + c * r.stride;

  for (int64_t y = r.y0; y < r.y1; y += kBlock) {
    const int64_t rows = r.y1 - y < kBlock ? r.y1 - y : kBlock;
    for (int64_t x = 0; x < r.width; x += kBlock) {
      const int64_t columns = r.width - x < kBlock ? r.width - x : kBlock;
      T grad[kPixels];
      Index<T> who[kPixels];
      for (int i = 0; i < kPixels; ++i) {
        const bool inside = i % kBlock < columns && i / kBlock < rows;
        const int64_t at = (y + i / kBlock) * r.width + x + i % kBlock;
        grad[i] = inside ? grad_heatmap[at] : T(0);
        who[i] = inside ? Index<T>(winner[at]) : Index<T>(-1);
      }
      const Block<T> pixels(r.xs + x, r.ys + y);
      for (int first = 0; first < kPixels; ++first) {
        const Index<T> id = who[first];
        if (id < 0) continue;
        const auto link = get_link(table, id);
        T* const sums = lane_sums + id * kGradFields * n;
        for (int k = 0; k < kVectors<T>; ++k) {
          auto* const lanes = reinterpret_cast<Vec<Index<T>>*>(who + k * n);
          const auto won = *lanes == Vec<Index<T>>{} + id;
          const auto at = residual(link, pixels.x[k], pixels.y[k]);
          // Selected, not multiplied by 0: a gradient that is no number must stay with the link that won its pixel.
          const Vec<T> g = won ? load(grad + k * n) * exp2<T>(-at.d2) : Vec<T>{};
          const Vec<T> to_b = at.t * g, to_a = g - to_b;
          const Vec<T> field[kGradFields] = {g, to_a * at.rx, to_a * at.ry, to_b * at.rx, to_b * at.ry};
          for (int c = 0; c < kGradFields; ++c) store(sums + c * n, load(sums + c * n) + field[c]);
          *lanes = won ? Vec<Index<T>>{} - 1 : *lanes;
        }
      }
    }
  }
}

template <class T, class I>
LinkHeatmapKernels<T, I> link_heatmap_kernels() {
  return {kLanes<T>, forward<T, I>, backward<T, I>};
}

template LinkHeatmapKernels<float, int16_t> link_heatmap_kernels();
template LinkHeatmapKernels<float, int32_t> link_heatmap_kernels();
template LinkHeatmapKernels<double, int16_t> link_heatmap_kernels();
template LinkHeatmapKernels<double, int32_t> link_heatmap_kernels();

PPL_FAST_END
