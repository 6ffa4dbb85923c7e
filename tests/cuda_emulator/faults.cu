// Kernels with planted faults, each beside its right form: what the emulator must catch, and must let pass.
#include <cstdio>
#include <stdexcept>

extern __shared__ __align__(32) unsigned char ppl_fast_shared[];

namespace {

constexpr int kThreads = 64;

struct Arguments {
  int* out;
  bool fault;
};

__device__ int* shared() { return reinterpret_cast<int*>(ppl_fast_shared); }

__global__ void missing_barrier(Arguments a) {  // reads what another thread may not have written yet
  shared()[threadIdx.x] = threadIdx.x;
  if (!a.fault) __syncthreads();
  a.out[threadIdx.x] = shared()[kThreads - 1 - threadIdx.x];
}

__global__ void missing_warp_barrier(Arguments a) {
  shared()[threadIdx.x] = threadIdx.x;
  if (!a.fault) __syncwarp();
  a.out[threadIdx.x] = shared()[threadIdx.x ^ 1];
}

__global__ void race(Arguments a) {  // two threads write one word
  shared()[a.fault ? threadIdx.x / 2 : threadIdx.x] = threadIdx.x;
  __syncthreads();
  a.out[threadIdx.x] = shared()[threadIdx.x / 2];
}

__global__ void race_of_blocks(Arguments a) {
  if (threadIdx.x < 2) a.out[a.fault ? 0 : blockIdx.x] = blockIdx.x;
}

__global__ void lost_update(Arguments a) {  // adds to a word that others add to
  int* const sum = shared();
  if (threadIdx.x == 0) *sum = 0;
  __syncthreads();
  if (a.fault) {
    const int before = *sum;
    __syncwarp();
    *sum = before + threadIdx.x;
  } else {
    atomicAdd(sum, int(threadIdx.x));
  }
  __syncthreads();
  a.out[threadIdx.x] = *sum;
}

__global__ void lost_update_between_accesses(Arguments a) {  // whichever order threads run in, one after the other
  int* const sum = shared();
  if (threadIdx.x == 0) *sum = 0;
  __syncthreads();
  if (a.fault)
    *sum = *sum + 1;
  else
    atomicAdd(sum, 1);
  __syncthreads();
  a.out[threadIdx.x] = *sum;
}

__global__ void shuffle_that_orders_nothing(Arguments a) {  // a shuffle is no barrier for memory
  shared()[threadIdx.x] = threadIdx.x;
  if (a.fault)
    __shfl_xor_sync(0xffffffffu, 0, 1);
  else
    __syncwarp();
  a.out[threadIdx.x] = shared()[threadIdx.x ^ 1];
}

struct alignas(16) Four {
  int at[4];
};

__global__ void misaligned_vector(Arguments a) {
  for (int i = threadIdx.x; i < kThreads; i += kThreads) shared()[i] = i;
  __syncthreads();
  const Four four = *reinterpret_cast<const Four*>(shared() + threadIdx.x / 16 * 4 + (a.fault ? 1 : 0));
  a.out[threadIdx.x] = four.at[threadIdx.x % 4];
}

__global__ void masks_that_disagree(Arguments a) {
  const unsigned own = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  const bool other = a.fault && threadIdx.x % 32 >= 16;
  a.out[threadIdx.x] = __shfl_xor_sync(other ? 0xffffffffu : own, int(threadIdx.x), 1);
}

__global__ void one_collective_in_two_places(Arguments a) {
  int value = threadIdx.x;
  if (a.fault && threadIdx.x % 2)
    value = __shfl_xor_sync(0xffffffffu, value, 2);
  else
    value = __shfl_xor_sync(a.fault ? 0xffffffffu : __ballot_sync(0xffffffffu, 1), value, 2);
  a.out[threadIdx.x] = value;
}

__global__ void collective_after_lanes_have_ended(Arguments a) {
  a.out[threadIdx.x] = 1;
  if (threadIdx.x % 32 >= 16) return;
  a.out[threadIdx.x] = __shfl_xor_sync(a.fault ? 0xffffffffu : 0x0000ffffu, 1, 1);
}

__global__ void divergent_barrier(Arguments a) {
  if (a.fault && threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();
  a.out[threadIdx.x] = 1;
}

__global__ void unreached_barrier(Arguments a) {
  if (!a.fault || threadIdx.x < 48) __syncthreads();
  a.out[threadIdx.x] = 1;
}

__global__ void unreached_shuffle(Arguments a) {
  int value = threadIdx.x;
  if (!a.fault || threadIdx.x % 32 < 16) value = __shfl_xor_sync(0xffffffffu, value, 1);
  a.out[threadIdx.x] = value;
}

__global__ void shuffle_outside_mask(Arguments a) {
  int value = threadIdx.x;
  if (threadIdx.x % 32 < 16) value = __shfl_xor_sync(0xffffu, value, a.fault ? 16 : 8);
  a.out[threadIdx.x] = value;
}

__global__ void unwritten_shared_memory(Arguments a) {  // poisoned: every bit set
  if (!a.fault) shared()[threadIdx.x] = 1;
  a.out[threadIdx.x] = shared()[threadIdx.x];
}

__global__ void unwritten_static_shared_memory(Arguments a) {
  __shared__ int words[kThreads], more;
  if (!a.fault) words[threadIdx.x] = 1;
  if (!a.fault && threadIdx.x == 0) more = 1;
  __syncthreads();
  a.out[threadIdx.x] = words[threadIdx.x] & more;
}

__global__ void race_in_static_shared_memory(Arguments a) {
  __shared__ int words[kThreads];
  words[threadIdx.x] = threadIdx.x;
  if (!a.fault) __syncthreads();
  a.out[threadIdx.x] = words[kThreads - 1 - threadIdx.x];
}

__global__ void overlapping_kernel_that_does_not_wait(Arguments a) {
  if (!a.fault || threadIdx.x % 2) await_previous();
  a.out[threadIdx.x] = 1;
}

__global__ void sum_on_tensor_cores(Arguments a) {  // twice adds three quarters of 1's last bit
  float sums[4] = {1, 1, 1, 1};
  for (int i = 0; i < 2; ++i) {
    float part[4] = {};
    mma_tf32(a.fault ? sums : part, {0x1.8p-26f, 0, 0, 0}, {1, 0});  // four lanes have one product each
    for (int c = 0; c < 4; ++c) sums[c] += part[c];
  }
  a.out[threadIdx.x] = int((sums[0] - 1) * 0x1p23f);
}

__global__ void write_past_the_end(Arguments a) { a.out[threadIdx.x + (a.fault ? 1 : 0)] = 1; }

__global__ void shared_memory_past_the_end(Arguments a) {
  shared()[threadIdx.x + (a.fault ? 1 : 0)] = 1;
  a.out[threadIdx.x] = 1;
}

const struct {
  const char* name;
  void (*kernel)(Arguments);
} kKernels[] = {
    {"missing_barrier", missing_barrier},
    {"missing_warp_barrier", missing_warp_barrier},
    {"race", race},
    {"race_of_blocks", race_of_blocks},
    {"lost_update", lost_update},
    {"lost_update_between_accesses", lost_update_between_accesses},
    {"shuffle_that_orders_nothing", shuffle_that_orders_nothing},
    {"misaligned_vector", misaligned_vector},
    {"masks_that_disagree", masks_that_disagree},
    {"one_collective_in_two_places", one_collective_in_two_places},
    {"collective_after_lanes_have_ended", collective_after_lanes_have_ended},
    {"divergent_barrier", divergent_barrier},
    {"unreached_barrier", unreached_barrier},
    {"unreached_shuffle", unreached_shuffle},
    {"shuffle_outside_mask", shuffle_outside_mask},
    {"unwritten_shared_memory", unwritten_shared_memory},
    {"unwritten_static_shared_memory", unwritten_static_shared_memory},
    {"race_in_static_shared_memory", race_in_static_shared_memory},
    {"overlapping_kernel_that_does_not_wait", overlapping_kernel_that_does_not_wait},
    {"sum_on_tensor_cores", sum_on_tensor_cores},
    {"write_past_the_end", write_past_the_end},
    {"shared_memory_past_the_end", shared_memory_past_the_end},
};

}  // namespace

// Runs a kernel with 2 blocks of 64 threads; returns 1 and a message if the emulator objects.
extern "C" __attribute__((visibility("default"))) int run_fault(const char* name, bool fault, int* out, char* message) {
  for (const auto& entry : kKernels) {
    if (std::strcmp(name, entry.name) != 0) continue;
    int* const memory = new int[kThreads]();
    int failed = 0;
    try {
      cudaLaunchAttribute overlapping{cudaLaunchAttributeProgrammaticStreamSerialization, {1}};
      const bool overlaps = entry.kernel == overlapping_kernel_that_does_not_wait;
      cudaLaunchConfig_t config{dim3(2), dim3(kThreads), kThreads * sizeof(int), nullptr, &overlapping, overlaps};
      failed = cudaLaunchKernelEx(&config, entry.kernel, Arguments{memory, fault}) != cudaSuccess;
    } catch (const std::exception& error) {
      std::snprintf(message, 1000, "%s", error.what());
      failed = 1;
    }
    std::memcpy(out, memory, kThreads * sizeof(int));
    delete[] memory;
    return failed;
  }
  return 2;
}
