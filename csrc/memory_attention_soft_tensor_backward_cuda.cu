// memory_attention on CUDA: soft mode's backward with many prototypes, on tensor cores, from factors split in two, as
// in the forward (memory_attention_soft_tensor_cuda.cu). Of 64 tokens and 128 prototypes at a time one kernel gets the
// weights P from t'.p', as the forward has them; from here on relative to a prototype that the bank's first token
// chose, another P h, h = g.(p - p_n), from g.p'; two more add P h p' to 64 tokens, over shares of the prototypes, and
// P g + 2 s t' to 64 prototypes. Where a distance cancels or may be the least, a warp sums the differences t - p of D,
// h and s (t - p): of n and its twins h is 0. P and P h wait, of as many banks and tokens at a time as 64 MB hold. B =
// 64, m = 34, k = 4,096, d = 512 on an H100: 121, 107, 156 and 324 us by the model; an H200 takes 356, 323, 394 and 741
// (an H100 465, 458, 522 and 758 with little on its way). Not taken: products anew for the prototypes, four instead of
// two; kernels in one, which spill registers.
#include "memory_attention_soft_tensor_cuda.cuh"

namespace ppl_fast {
namespace {

constexpr int kColumns = kScreenStep / kWarp;
constexpr int kTile = 64, kParts = kPairThreads / kTile;  // of the prototypes' kernel: 64 tokens, 64 prototypes

// A gradient magnifies a weight by |h| / temperature, which is below 2^20 times what is left of a difference of
// distances that products can tell: 2^-kVanishes of the largest weight is none even so.
constexpr float kVanishes = 64;

struct WeightsShared : ScreenShared {
  float least[kScreenTokens], total[kScreenTokens];  // the forward's
};

struct ProductsShared : ScreenShared {
  float g_dot_nearest[kScreenTokens], q[kScreenTokens];  // g . (p_n - c), and the sum of P h so far
};

struct TokensShared {
  float product[kScreenTokens][kScreenStep + 8];
};

struct alignas(16) PrototypesShared {
  // Padded so that the lanes of a product, 8 prototypes of 4 pairs of tokens, meet 32 banks.
  float weight[kTile][kTile + 4], slope[kTile][kTile + 4];
  // Of every fourth token: the sum of slopes, and a bit for each that is near.
  float slopes[kParts][kTile];
  unsigned near[kParts][kTile];
};

// Of a token and a prototype: P, with its sign where differences were summed, and there h, later P h everywhere.
struct Pairs {
  float *weight, *product;  // (banks, b, k)
};
__device__ float marked(float weight, bool near) { return copysignf(weight, near ? -1.0f : 1.0f); }
__device__ bool is_marked(float weight) { return int(__float_as_uint(weight)) < 0; }

// What shares of the prototypes add up to: sums of P h p' and P h.
struct Partial {
  float *tokens, *q;  // (shares, b, stride, d) and (shares, b, stride)
  int64_t stride;     // m or banks
};

// The weights of 64 tokens and a share of the prototypes.
__global__ void __launch_bounds__(kPairThreads, 2)
    memory_attention_soft_tensor_bwd_weights_kernel(Banks<float> a, int share, float sharpness, SoftGrad<float> g,
                                                    Pairs pairs) {
  auto& shared = shared_memory<WeightsShared>();
  const int begin = int(blockIdx.z) * share, end = min(begin + share, int(a.k));
  const int count = BlockTile().count(a);
  for (int r = BlockTile().warp; r < count; r += kWarps) {
    const BlockTile tile;
    const float norm = squared_distance(tile.row(a, a.tokens, r), tile.bank_of(a), a.d);
    const int64_t at = tile.at(a, r);
    if (tile.lane == 0) shared.token_norm[r] = norm, shared.least[r] = g.least[at], shared.total[r] = g.total[at];
  }
  for (int first = begin; first < end; first += kScreenStep) {
    {  // The forward's centre, so that distances, and with them the total, are the same.
      const BlockTile tile;
      screen<true>(shared, tile.rows(a, a.tokens), step_of(a, tile.bank, first, end), tile.bank_of(a), a.d);
    }
    const BlockTile tile;
    const int prototypes = min(end - first, kScreenStep), lane = tile.lane;
    for (int r = tile.warp; r < count; r += kWarps) {
      const float least = shared.least[r];
      const int64_t row = (tile.bank * a.b + tile.b0 + r) * a.k + first;
#pragma unroll 1
      for (int c = 0; c < kColumns; ++c) {
        const int j = c * kWarp + lane;
        const ProductDistance product(shared, r, j, float(a.d));
        // Where the least is no number, all is none.
        const bool near = j < prototypes && least == least && product.is_vague(least, sharpness, kVanishes);
        float distance = product.value, h = 0;
        for (unsigned left = __ballot_sync(kAllLanes, near); left; left &= left - 1) {
          const BlockTile own;
          const int at = __ffs(left) - 1;
          const float* const other = own.bank_of(a) + (first + c * kWarp + at) * a.d;
          const float* const nearest = g.nearest(a, own.bank, own.b0 + r);
          const float difference = squared_distance(own.row(a, a.tokens, r), other, a.d);
          const float dot = product_with_difference(own.row(a, g.grad_values, r), other, nearest, a.d);
          if (lane == at) distance = difference, h = dot;
        }
        if (near) pairs.product[row + j] = h;
        if (j < prototypes)
          pairs.weight[row + j] = marked(power_of_two((least - distance) * sharpness) / shared.total[r], near);
      }
    }
  }
}

// P h of 64 tokens and a share of the prototypes, and its sum.
__global__ void __launch_bounds__(kPairThreads, 2)
    memory_attention_soft_tensor_bwd_products_kernel(Banks<float> a, int share, SoftGrad<float> g, Pairs pairs,
                                                     Partial out) {
  auto& shared = shared_memory<ProductsShared>();
  const int begin = int(blockIdx.z) * share, end = min(begin + share, int(a.k));
  for (int r = BlockTile().warp; r < BlockTile().count(a); r += kWarps) {
    const BlockTile tile;
    const float *const nearest = g.nearest(a, tile.bank, tile.b0 + r), *const centre = g.nearest(a, tile.bank, 0);
    const float dot = product_with_difference(tile.row(a, g.grad_values, r), nearest, centre, a.d);
    if (tile.lane == 0) shared.g_dot_nearest[r] = dot, shared.q[r] = 0;
  }
  for (int first = begin; first < end; first += kScreenStep) {
    {
      const BlockTile tile;
      screen<true, false>(shared, tile.rows(a, g.grad_values), step_of(a, tile.bank, first, end),
                          g.nearest(a, tile.bank, 0), a.d);
    }
    const BlockTile tile;
    const int prototypes = min(end - first, kScreenStep), count = tile.count(a);
    for (int r = tile.warp; r < count; r += kWarps) {
      const int64_t row = (tile.bank * a.b + tile.b0 + r) * a.k + first;
      float weight[kColumns], sum = 0;  // on their way at once
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        weight[c] = c * kWarp + tile.lane < prototypes ? pairs.weight[row + c * kWarp + tile.lane] : 0.0f;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        const int j = c * kWarp + tile.lane;
        if (j >= prototypes) break;
        const float h = is_marked(weight[c]) ? pairs.product[row + j] : shared.product[r][j] - shared.g_dot_nearest[r];
        const float product = fabsf(weight[c]) * h;
        pairs.product[row + j] = product, sum += product;
      }
      __syncwarp();  // the last prototypes may be fewer than lanes
      sum = lane_sum<kWarp>(sum);
      if (tile.lane == 0) shared.q[r] += sum;
    }
  }
  const BlockTile tile;
  for (int r = tile.warp; r < tile.count(a); r += kWarps)
    if (tile.lane == 0) out.q[(blockIdx.z * a.b + tile.b0 + r) * out.stride + tile.bank] = shared.q[r];
}

// The sum of P h p' of 64 tokens over a share of the prototypes.
__global__ void __launch_bounds__(kPairThreads, 2)
    memory_attention_soft_tensor_bwd_tokens_kernel(Banks<float> a, int share, SoftGrad<float> g, Pairs pairs,
                                                   Partial out) {
  auto& shared = shared_memory<TokensShared>();
  const int64_t b0 = int64_t(blockIdx.x) * kScreenTokens, bank = blockIdx.y;
  const int begin = int(blockIdx.z) * share, end = min(begin + share, int(a.k));
  const int count = a.token_rows(a.tokens, bank, b0, kScreenTokens).count;
  const float* const centre = g.nearest(a, bank, 0);
  float* const to = out.tokens + ((blockIdx.z * a.b + b0) * out.stride + bank) * a.d;
  for (int first = begin; first < end; first += kScreenStep) {
    const Rows<float> prototypes = step_of(a, bank, first, end);
    const int j = threadIdx.x % kScreenStep;
    __syncthreads();  // the products before were in use
#pragma unroll 4
    for (int r = threadIdx.x / kScreenStep; r < kScreenTokens; r += kPairThreads / kScreenStep)
      shared.product[r][j] =
          r < count && j < prototypes.count ? pairs.product[(bank * a.b + b0 + r) * a.k + first + j] : 0.0f;
    __syncthreads();
    for_columns(a.d, come_in_fours(a.d, prototypes.at, centre), [&](WeightedSums& part) {
      part.add<true, true>(prototypes, centre, [&](int r, int j) {
        return *reinterpret_cast<const Pack<float, 2>*>(&shared.product[r][j]);
      });
      const int stride = int(out.stride * a.d);
      part.store(
          to, stride, count, [&](int r, int column) { return part.before(to, stride, r, column, first > begin); },
          [](int, const Four& sums, const Four& before) { return add(sums, before); });
    });
  }
}

// The shares of a token as one, and its gradient; a block a token.
__global__ void __launch_bounds__(kCombineThreads)
    memory_attention_soft_tensor_bwd_combine_kernel(Banks<float> a, int banks, int shares, float inverse_temperature,
                                                    SoftGrad<float> g, Partial partial) {
  const int64_t token = blockIdx.x / banks, bank = blockIdx.x % banks, at = token * a.m + bank;
  const int64_t row = token * partial.stride + bank, rows = a.b * partial.stride;
  const float *const centre = g.nearest(a, bank, 0), *const nearest = g.nearest(a, bank, token);
  float q = 0;
  for (int s = 0; s < shares; ++s) q += partial.q[s * rows + row];
  for (int64_t i = threadIdx.x; i < a.d; i += kCombineThreads) {
    const int64_t element = at * a.d + i;
    float sum = 0;
#pragma unroll 4
    for (int s = 0; s < shares; ++s) sum += partial.tokens[(s * rows + row) * a.d + i];
    g.grad_tokens[element] = 2 * inverse_temperature * (sum - q * (g.values[element] - centre[i])) +
                             2 * g.grad_distances[at] * (a.tokens[element] - nearest[i]);
  }
  if (threadIdx.x == 0) g.q[at] = q;
}

// The gradient of 64 prototypes.
__global__ void __launch_bounds__(kPairThreads, 2)
    memory_attention_soft_tensor_bwd_prototypes_kernel(Banks<float> a, float inverse_temperature, SoftGrad<float> g,
                                                       Pairs pairs, bool begun) {
  auto& shared = shared_memory<PrototypesShared>();
  const int64_t j0 = int64_t(blockIdx.x) * kTile, bank = blockIdx.y;
  const Rows<float> prototypes = a.prototype_rows(bank, j0, a.k, kTile);
  const float* const centre = g.nearest(a, bank, 0);
  float* const out = g.grad_prototypes + (bank * a.k + j0) * a.d;
  const auto slope_of = [&](int64_t token, int j) {
    const int64_t at = token * a.m + bank, pair = (bank * a.b + token) * a.k + j0 + j;
    const float slope = (pairs.product[pair] - g.q[at] * fabsf(pairs.weight[pair])) * inverse_temperature;
    return 2 * (slope - (g.indices[at] == j0 + j ? g.grad_distances[at] : 0.0f));
  };
  for (int64_t first = 0; first < a.b; first += kTile) {
    const Rows<float> tokens = a.token_rows(a.tokens, bank, first, kTile),
                      grads = a.token_rows(g.grad_values, bank, first, kTile);
    __syncthreads();  // the tile before was in use
    const int j = threadIdx.x % kTile, part = threadIdx.x / kTile;
    float slopes = 0;
    unsigned near = 0;
#pragma unroll 4
    for (int i = 0; i < kTile / kParts; ++i) {
      const int r = part + i * kParts;
      const bool inside = r < tokens.count && j < prototypes.count;
      const float weight = inside ? pairs.weight[(bank * a.b + first + r) * a.k + j0 + j] : 0.0f;
      near |= unsigned(is_marked(weight)) << i;
      const float slope = inside && !is_marked(weight) ? slope_of(first + r, j) : 0.0f;
      shared.weight[r][j] = fabsf(weight), shared.slope[r][j] = slope, slopes += slope;
    }
    shared.slopes[part][j] = slopes, shared.near[part][j] = near;
    __syncthreads();
    for_columns(a.d, come_in_fours(a.d, a.prototypes, a.tokens, g.grad_values), [&](WeightedSums& sums) {
      sums.add<false, false>(
          grads, nullptr, [&](int r, int k) { return Pack<float, 2>{shared.weight[k][r], shared.weight[k + 1][r]}; });
      sums.add<true, false>(tokens, centre,
                            [&](int r, int k) { return Pack<float, 2>{shared.slope[k][r], shared.slope[k + 1][r]}; });
      const int stride = int(a.d);
      sums.store(
          out, stride, prototypes.count,
          [&](int r, int column) {
            float slopes = 0;
            for (int i = 0; i < kParts; ++i) slopes += shared.slopes[i][r];
            const Four own = sums.before(prototypes.at, stride, r, column, true),
                       origin = sums.before(centre, 0, 0, column, true);
            return add(sums.before(out, stride, r, column, begun || first > 0), add(own, origin, -1), -slopes);
          },
          [](int, const Four& sum, const Four& before) { return add(before, sum); });
    });
    __syncthreads();  // and out is in one piece
    // t' - p' would cancel for those that lie near each other.
    for (int r = threadIdx.x / kWarp; r < prototypes.count; r += kWarps)
      for (int i = 0; i < kParts; ++i)
        for (unsigned left = shared.near[i][r]; left; left &= left - 1) {
          const int token = i + (__ffs(left) - 1) * kParts;
          const float slope = slope_of(first + token, r);
          const float *const x = tokens.at + token * int(tokens.stride), *const own = prototypes.at + r * a.d;
          for (int64_t e = threadIdx.x % kWarp; e < a.d; e += kWarp) out[r * a.d + e] += slope * (x[e] - own[e]);
        }
  }
}

const ReportedKernels kReported{
    PPL_FAST_KERNEL(kPairThreads, sizeof(WeightsShared), memory_attention_soft_tensor_bwd_weights_kernel),
    PPL_FAST_KERNEL(kPairThreads, sizeof(ProductsShared), memory_attention_soft_tensor_bwd_products_kernel),
    PPL_FAST_KERNEL(kPairThreads, sizeof(TokensShared), memory_attention_soft_tensor_bwd_tokens_kernel),
    PPL_FAST_KERNEL(kCombineThreads, 0, memory_attention_soft_tensor_bwd_combine_kernel),
    PPL_FAST_KERNEL(kPairThreads, sizeof(PrototypesShared), memory_attention_soft_tensor_bwd_prototypes_kernel),
};

// How many banks and tokens are taken at a time: as many as have 2^23 pairs, 64 MB; but of one bank 64 tokens at least,
// 512 bytes a prototype. The emulator takes fewer.
struct Turn {
  int64_t banks, tokens;
};
Turn turn_of(const Banks<float>& a) {
  const int64_t most = enough_blocks() << 14;
  const int64_t tokens = std::min(a.b, std::max<int64_t>(1, most / a.k / kScreenTokens) * kScreenTokens);
  const int64_t turns = ceil_div(a.m, std::max<int64_t>(1, most / a.k / tokens));
  return {ceil_div(a.m, turns), tokens};
}

}  // namespace

void launch_soft_tensor_bwd(const Banks<float>& a, const Softmax<float>& softmax, const SoftGrad<float>& grad,
                            bool needs_prototypes, const Tensor& like, cudaStream_t stream) {
  if (a.m == 0) return;
  const auto [most_banks, most_tokens] = turn_of(a);
  const int64_t share = screen_share_of(ceil_div(most_tokens, kScreenTokens) * most_banks, a.k);
  const int64_t shares = ceil_div(a.k, share), stride = shares > 1 ? most_banks : a.m;
  const auto pairs_of = empty(like, {2, most_banks * most_tokens * a.k}, ScalarType::Float);
  const auto q = empty(like, {shares * most_tokens * stride}, ScalarType::Float);
  const auto sums = empty(like, {shares > 1 ? shares * most_tokens * stride : 0, a.d}, ScalarType::Float);
  const Pairs pairs = {write<float>(pairs_of), write<float>(pairs_of) + pairs_of.size(1)};
  for (int64_t bank = 0; bank < a.m; bank += most_banks)
    for (int64_t token = 0; token < a.b; token += most_tokens) {
      const int64_t banks = std::min(most_banks, a.m - bank), at = token * a.m + bank;
      Banks<float> some = a;
      some.b = std::min(most_tokens, a.b - token);
      some.tokens += at * a.d, some.prototypes += bank * a.k * a.d;
      SoftGrad<float> g = grad;
      g.grad_values += at * a.d, g.values += at * a.d, g.grad_tokens += at * a.d;
      g.grad_distances += at, g.indices += at, g.least += at, g.total += at, g.q += at;
      if (needs_prototypes) g.grad_prototypes += bank * a.k * a.d;
      const Partial partial = {shares > 1 ? write<float>(sums) : g.grad_tokens, write<float>(q), stride};
      const Grid grid = {ceil_div(some.b, kScreenTokens), banks, shares};
      launch(memory_attention_soft_tensor_bwd_weights_kernel, grid, kPairThreads, sizeof(WeightsShared), stream, some,
             int(share), softmax.sharpness, g, pairs);
      launch(memory_attention_soft_tensor_bwd_products_kernel, grid, kPairThreads, sizeof(ProductsShared), stream, some,
             int(share), g, pairs, partial);
      launch(memory_attention_soft_tensor_bwd_tokens_kernel, grid, kPairThreads, sizeof(TokensShared), stream, some,
             int(share), g, pairs, partial);
      launch(memory_attention_soft_tensor_bwd_combine_kernel, Grid{some.b * banks}, kCombineThreads, 0, stream, some,
             int(banks), int(shares), softmax.inverse_temperature, g, partial);
      if (needs_prototypes)
        launch(memory_attention_soft_tensor_bwd_prototypes_kernel, Grid{ceil_div(a.k, kTile), banks}, kPairThreads,
               sizeof(PrototypesShared), stream, some, softmax.inverse_temperature, g, pairs, token > 0);
    }
}

}  // namespace ppl_fast
