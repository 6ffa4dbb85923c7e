// memory_attention on CUDA: soft mode's forward with many prototypes, on tensor cores. A block takes 64 tokens of a
// bank past its share of the prototypes, 128 at a time. D = |t'|^2 + |p'|^2 - 2 t'.p', the product from factors split
// in two, within 2^-22 (|t'|^2 + |p'|^2) and what float32's sums leave: a few bits less than differences, and more
// where D < (|t'|^2 + |p'|^2) / 4. There, and where a prototype may be the nearest, a warp sums the differences. Then
// 2^((D_n - D) sharpness), n the nearest so far, takes the products' place, and a warp adds 32 tokens x 32 columns of
// weighted prototypes, split alike, to sums in L2, rescaled when n changes; a second kernel adds the shares. B = 64, m
// = 34, k = 4,096, d = 512 on an H100: 269 us for what is issued; an H200 takes 577, the second kernel 17 (an H100 736
// and 40 with one piece on its way and 16 shares). Not taken: sums in registers (d would be bounded), a pass for the
// nearest before, factors cut off instead of rounded.
#include "memory_attention_soft_tensor_cuda.cuh"

namespace ppl_fast {
namespace {

constexpr float kVanishes = 40;  // 2^-kVanishes of the largest weight is none

struct SoftTensorShared : ScreenShared {
  float shrink[kScreenTokens], total[kScreenTokens];
};

// A share of a token's prototypes: the nearest, and relative to it the sum of weights.
struct SoftShare {
  Choice<float> best;
  float total;
};

struct SoftPartial {
  SoftShare* shares;  // (shares, b, m)
  float* values;      // (shares, b, m, d): sums of weighted prototypes
};

// Leaves the weights of a token in the place of its products; the first prototype has the index `first`. A warp a
// token. Distances are exact to float32 but where they cancel; there, and where one may be the least, differences are
// summed, unless the weight vanishes or the temperature hides the error.
__device__ void weigh(SoftTensorShared& shared, int row, const float* token, const Rows<float>& prototypes, int first,
                      int64_t d, float sharpness) {
  constexpr int columns = kScreenStep / kWarp;
  const int lane = threadIdx.x % kWarp;
  const Choice<float> before = shared.best[row];
  Choice<float> best = before;
  float distance[columns], upper = shared.upper[row];
#pragma unroll
  for (int c = 0; c < columns; ++c) {
    const int j = c * kWarp + lane;
    const ProductDistance product(shared, row, j, float(d));
    distance[c] = product.value;
    if (j < prototypes.count) upper = fmin(upper, product.value + product.error);
  }
  upper = -lane_max<kWarp>(-upper);
#pragma unroll
  for (int c = 0; c < columns; ++c) {
    const int j = c * kWarp + lane;
    const bool vague = ProductDistance(shared, row, j, float(d)).is_vague(upper, sharpness, kVanishes);
    unsigned left = __ballot_sync(kAllLanes, j < prototypes.count && vague && best.distance == best.distance);
    for (; left; left &= left - 1) {
      const int at = __ffs(left) - 1, other = c * kWarp + at;
      const float exact = squared_distance(token, prototypes.at + other * int(prototypes.stride), d);
      best.meet(exact, first + other);
      if (lane == at) distance[c] = exact;
    }
  }
  float sum = 0;
#pragma unroll
  for (int c = 0; c < columns; ++c) {
    const int j = c * kWarp + lane;
    const float above = best.distance - distance[c];  // fmin would hide what is not a number
    const float weight = j < prototypes.count ? power_of_two((above > 0 ? 0 : above) * sharpness) : 0.0f;
    shared.product[row][j] = weight, sum += weight;
  }
  sum = lane_sum<kWarp>(sum);  // and every lane has read what lane 0 writes
  const float shrink = power_of_two((best.distance - before.distance) * sharpness);
  __syncwarp();
  if (lane == 0) {
    shared.upper[row] = upper, shared.best[row] = best, shared.shrink[row] = shrink;
    shared.total[row] = shared.total[row] * shrink + sum;
  }
}

// values_r = shrink_r values_r + sum_j weight_rj p_j for the tile's tokens.
__device__ void add_weighted(const SoftTensorShared& shared, const Rows<float>& prototypes, float* values, int stride,
                             int count, int d, bool begun) {
  for_columns(d, come_in_fours(d, prototypes.at), [&](WeightedSums& part) {
    part.add<false, true>(prototypes, nullptr, [&](int r, int j) {
      return *reinterpret_cast<const Pack<float, 2>*>(&shared.product[r][j]);
    });
    part.store(
        values, stride, count, [&](int r, int column) { return part.before(values, stride, r, column, begun); },
        [&](int r, const Four& sums, const Four& before) { return add(sums, before, shared.shrink[r]); });
  });
}

__global__ void __launch_bounds__(kPairThreads, 2)
    memory_attention_soft_tensor_kernel(Banks<float> a, int64_t share, float sharpness, SoftPartial out) {
  auto& shared = shared_memory<SoftTensorShared>();
  const int begin = int(blockIdx.z * share), end = int(min(begin + share, a.k));
  const int count = BlockTile().count(a);
  for (int r = BlockTile().warp; r < count; r += kWarps) {
    const BlockTile tile;
    const float norm = squared_distance(tile.row(a, a.tokens, r), tile.bank_of(a), a.d);
    if (tile.lane == 0) shared.token_norm[r] = norm, shared.upper[r] = INFINITY, shared.total[r] = 0;
    if (tile.lane == 0) shared.best[r] = {Limits<float>::largest, begin};  // relative to which infinity weighs nothing
  }
  for (int first = begin; first < end; first += kScreenStep) {
    const auto prototypes_of = [&](int64_t bank) { return a.prototype_rows(bank, first, end, kScreenStep); };
    {
      const BlockTile tile;
      screen<true>(shared, tile.rows(a, a.tokens), prototypes_of(tile.bank), tile.bank_of(a), a.d);
    }
    for (int r = BlockTile().warp; r < count; r += kWarps) {  // of no meaning past the last row
      const BlockTile tile;
      weigh(shared, r, tile.row(a, a.tokens, r), prototypes_of(tile.bank), first, a.d, sharpness);
    }
    __syncthreads();
    const BlockTile tile;
    float* const values = out.values + (blockIdx.z * a.b * a.m + tile.at(a, 0)) * a.d;
    add_weighted(shared, prototypes_of(tile.bank), values, int(a.m * a.d), count, int(a.d), first > begin);
  }
  __syncwarp();
  const BlockTile tile;
  for (int r = tile.warp; r < count; r += kWarps)
    if (tile.lane == 0) out.shares[blockIdx.z * a.b * a.m + tile.at(a, r)] = {shared.best[r], shared.total[r]};
}

// The shares of a token as one, a block a token; the least once more, in the order of the sums of the backward.
__global__ void __launch_bounds__(kCombineThreads)
    memory_attention_soft_combine_kernel(Banks<float> a, int shares, float sharpness, SoftPartial partial,
                                         SoftOut<float> out) {
  const int64_t row = blockIdx.x, rows = a.b * a.m;
  Choice<float> best = {INFINITY, 0};
  for (int s = threadIdx.x % kWarp; s < shares; s += kWarp) best.meet(partial.shares[s * rows + row].best);
  best = lane_choice<kWarp>(best);  // each warp does it all
  constexpr int batch = 4;
  for (int64_t first = threadIdx.x; first < a.d || first == threadIdx.x; first += batch * kCombineThreads) {
    float sums[batch] = {}, total = 0;
    for (int s = 0; s < shares; ++s) {
      const SoftShare share = partial.shares[s * rows + row];
      const float factor = power_of_two((best.distance - share.best.distance) * sharpness);
      total += factor * share.total;
#pragma unroll
      for (int c = 0; c < batch; ++c)
        if (first + c * kCombineThreads < a.d)
          sums[c] += factor * partial.values[(s * rows + row) * a.d + first + c * kCombineThreads];
    }
#pragma unroll
    for (int c = 0; c < batch; ++c)
      if (first + c * kCombineThreads < a.d) out.values[row * a.d + first + c * kCombineThreads] = sums[c] / total;
    if (first == 0) out.total[row] = total;
  }
  const int64_t nearest = best.nearest();
  const float least = squared_distance(a.tokens + row * a.d, a.prototypes + (row % a.m * a.k + nearest) * a.d, a.d);
  if (threadIdx.x != 0) return;
  // A distance that is not a number may be that of another prototype than the first, whose index it takes.
  out.indices[row] = nearest;
  out.least[row] = out.distances[row] = best.distance == best.distance ? least : best.distance;
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kPairThreads, sizeof(SoftTensorShared), memory_attention_soft_tensor_kernel),
    PPL_FAST_KERNEL(kCombineThreads, 0, memory_attention_soft_combine_kernel),
};

}  // namespace

void launch_soft_tensor_fwd(const Banks<float>& a, const Softmax<float>& softmax, const SoftOut<float>& out,
                            const Tensor& like, cudaStream_t stream) {
  const int64_t tiles = ceil_div(a.b, kScreenTokens), share = screen_share_of(tiles * a.m, a.k);
  const int64_t shares = ceil_div(a.k, share), rows = shares * a.b * a.m;
  const auto states = empty(like, {rows * int64_t(sizeof(SoftShare))}, ScalarType::Byte);
  const auto values = empty(like, {shares > 1 ? rows : 0, a.d}, ScalarType::Float);
  const SoftPartial partial = {reinterpret_cast<SoftShare*>(states.mutable_data_ptr()),
                               shares > 1 ? write<float>(values) : out.values};
  launch(memory_attention_soft_tensor_kernel, Grid{tiles, a.m, shares}, kPairThreads, sizeof(SoftTensorShared), stream,
         a, share, softmax.sharpness, partial);
  launch(memory_attention_soft_combine_kernel, Grid{a.b * a.m}, kCombineThreads, 0, stream, a, int(shares),
         softmax.sharpness, partial, out);
}

}  // namespace ppl_fast
