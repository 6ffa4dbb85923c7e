// What memory_attention_tensor_cuda.cuh claims of its products, on one tile, against sums in double.
#include "memory_attention_tensor_cuda.cuh"

namespace ppl_fast {
namespace {

template <bool kSplit>
__global__ void error_kernel(Rows<float> tokens, Rows<float> prototypes, int64_t d, bool slack_of_split,
                             double* worst) {
  auto& shared = shared_memory<ScreenShared>();
  const float* const centre = prototypes.at;
  screen<kSplit>(shared, tokens, prototypes, centre, d);
  for (int r = threadIdx.x / kWarp; r < tokens.count; r += kWarps) {
    const float* const token = tokens.at + r * tokens.stride;
    const float token_norm = squared_distance(token, centre, d);
    for (int j = threadIdx.x % kWarp; j < prototypes.count; j += kWarp) {
      double exact = 0;
      for (int64_t i = 0; i < d; ++i) {
        const double difference = double(token[i]) - double(prototypes.at[j * prototypes.stride + i]);
        exact += difference * difference;
      }
      const float norm = shared.norm[j], distance = token_norm + norm - 2 * shared.product[r][j];
      const float slack_of = slack_of_split ? slack<true>(token_norm + norm, d) : slack<false>(token_norm + norm, d);
      *worst = std::max(*worst, std::fabs(double(distance) - exact) / double(slack_of));  // threads run one by one
    }
  }
}

}  // namespace
}  // namespace ppl_fast

// The largest error of 64 x 128 squared distances as a share of the slack that is allowed for.
extern "C" __attribute__((visibility("default"))) double error_in_slacks(const float* tokens, const float* prototypes,
                                                                         int64_t d, bool split, bool slack_of_split) {
  using namespace ppl_fast;
  double worst = 0;
  launch(split ? error_kernel<true> : error_kernel<false>, Grid{1}, kPairThreads, sizeof(ScreenShared), nullptr,
         Rows<float>{tokens, d, kScreenTokens}, Rows<float>{prototypes, d, kScreenStep}, d, slack_of_split, &worst);
  return worst;
}
