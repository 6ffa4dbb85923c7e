// Stands in for CUDA's cuda_runtime.h, so that g++ compiles csrc/*.cu and the emulator (emulator.cpp) runs them.
//
// Only what the kernels use, each with CUDA's meaning. A collective that breaks CUDA's rules (a barrier that not all
// threads reach, a shuffle with a lane that is not there) throws std::runtime_error from the launch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#define __global__
#define __host__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// Static in a function and extern for dynamic memory, as in CUDA. One thread runs all of a launch, so that each
// variable is there once; and what is thread_local in a library lies side by side, so that the emulator finds and
// poisons it.
#define __shared__ thread_local

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_emulator {

struct Site {
  const char* file;
  int line;
};

// Waits for all threads of the block; returns how many came with a nonzero predicate.
int block_barrier(bool predicate, Site site);
// Waits for the lanes of the mask, hands in a value and returns the 32 lanes' values.
const uint64_t* exchange(unsigned mask, uint64_t value, Site site, bool orders_memory = false);
int current_lane();
// The virtual architecture that the kernels pretend to have been compiled for; CUDA_EMULATOR_COMPILED_FOR sets it.
inline int compiled_for() {
  static const char* const given = std::getenv("CUDA_EMULATOR_COMPILED_FOR");
  return given ? std::atoi(given) : 90;
}
// How many blocks a launch need not pass; cuda_emulator_set_enough sets it.
inline int64_t& enough_blocks() {
  static int64_t number = 512;
  return number;
}
[[noreturn]] void fail(const char* what, Site site);
void run(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);
bool was_launched(const void* kernel, int threads, size_t shared_bytes);
int current_thread();
// Of each thread of the block, whether it has waited for the kernel before, or need not.
inline bool* waited() {
  static bool of_thread[1024];
  return of_thread;
}

template <class T>
T lane_value(const uint64_t* values, unsigned mask, int lane, Site site) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  if (!(mask >> lane & 1)) fail("a shuffle reads from a lane outside its mask", site);
  T value;
  std::memcpy(&value, values + lane, sizeof(T));
  return value;
}

template <class T>
T shuffle(unsigned mask, T value, int lane, Site site) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return lane_value<T>(exchange(mask, bits, site), mask, lane, site);
}

}  // namespace cuda_emulator

#define CUDA_EMULATOR_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_EMULATOR_SITE) { cuda_emulator::block_barrier(false, {file, line}); }
inline int __syncthreads_or(int p, CUDA_EMULATOR_SITE) { return cuda_emulator::block_barrier(p, {file, line}) > 0; }
inline int __syncthreads_count(int p, CUDA_EMULATOR_SITE) { return cuda_emulator::block_barrier(p, {file, line}); }
inline void __syncwarp(unsigned mask = 0xffffffffu, CUDA_EMULATOR_SITE) {
  cuda_emulator::exchange(mask, 0, {file, line}, true);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, CUDA_EMULATOR_SITE) {
  return cuda_emulator::shuffle(mask, value, lane & 31, {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, CUDA_EMULATOR_SITE) {
  return cuda_emulator::shuffle(mask, value, cuda_emulator::current_lane() ^ bits, {file, line});
}
inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_EMULATOR_SITE) {
  const uint64_t* const values = cuda_emulator::exchange(mask, predicate != 0, {file, line});
  unsigned bits = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) bits |= unsigned(values[lane]) << lane;
  return bits;
}
inline int __any_sync(unsigned mask, int predicate, CUDA_EMULATOR_SITE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_EMULATOR_SITE) {
  return __ballot_sync(mask, predicate, file, line) == mask;
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value, CUDA_EMULATOR_SITE) {
  const uint64_t* const values = cuda_emulator::exchange(mask, value, {file, line});
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1 && values[lane] < value) value = unsigned(values[lane]);
  return value;
}

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(x));
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

namespace cuda_emulator {
// What tensor cores add up: whatever is below the last of 24 bits of the largest addend is cut off, and of the sum,
// too. Some GPUs keep a few bits more; no kernel may count on them.
inline float truncated_sum(const double (&addends)[9]) {
  double most = 0, plain = 0;
  for (const double x : addends) most = std::fmax(most, std::fabs(x)), plain += x;
  if (!std::isfinite(plain) || most == 0) return float(plain);
  const int last = std::max(std::ilogb(most) - 23, -149);
  int64_t units = 0;
  for (const double x : addends) units += int64_t(std::ldexp(x, -last));
  const double sum = std::ldexp(double(units), last);
  const float rounded = float(sum);
  return std::fabs(double(rounded)) > std::fabs(sum) && std::isfinite(rounded) ? std::nextafter(rounded, 0.0f)
                                                                               : rounded;
}
}  // namespace cuda_emulator

// Products in tf32, which csrc/common.cuh has in PTX; a factor that is not in tf32 is refused.
inline void mma_tf32(float (&sums)[4], const float (&a)[4], const float (&b)[2], CUDA_EMULATOR_SITE) {
  if (cuda_emulator::compiled_for() < 80) cuda_emulator::fail("a trap: there is no tf32 before sm_80", {file, line});
  float left[16][8], right[8][8];  // all of A and of B, the latter by columns
  const float mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  for (int i = 0; i < 6; ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, &mine[i], sizeof(float));
    const uint64_t* const values = cuda_emulator::exchange(0xffffffffu, bits, {file, line});
    for (int lane = 0; lane < 32; ++lane) {
      float value;
      std::memcpy(&value, values + lane, sizeof(float));
      if (__float_as_uint(value) & 0x1fff) cuda_emulator::fail("a factor is not in tf32", {file, line});
      (i < 4 ? left[lane / 4 + i % 2 * 8][lane % 4 + i / 2 * 4] : right[lane / 4][lane % 4 + i % 2 * 4]) = value;
    }
  }
  const int g = cuda_emulator::current_lane() / 4, t = cuda_emulator::current_lane() % 4;
  for (int i = 0; i < 4; ++i) {
    double addends[9] = {sums[i]};
    for (int k = 0; k < 8; ++k) addends[k + 1] = double(left[g + i / 2 * 8][k]) * double(right[2 * t + i % 2][k]);
    sums[i] = cuda_emulator::truncated_sum(addends);
  }
}

using std::isfinite;
using std::max;
using std::min;
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1.0f : 0.0f; }

template <class T>
__attribute__((noinline, no_sanitize("thread"))) T atomicAdd(T* address, T value) {  // nothing comes between
  const T before = *address;
  *address += value;
  return before;
}

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9 };
typedef struct CUstream_st* cudaStream_t;

enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization = 6 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

// Copies that pass registers by, which csrc/common.cuh has in PTX: they may come at once or as late as they are
// awaited. Until then there is a NaN, and whoever reads at the start or writes before the end is seen to race.
namespace cuda_emulator {
struct Copies {
  struct Copy {
    void (*go)(void* to, const void* from);
    void* to;
    const void* from;
    int group;
  };
  std::vector<Copy> under_way;
  int group = 0;
};
inline Copies& copies() {
  static Copies of_thread[1024];
  return of_thread[current_thread()];
}
}  // namespace cuda_emulator
template <class P>
void start_copy(P* to, const P* from) {
  static_assert(sizeof(P) == 4 || sizeof(P) == 8 || sizeof(P) == 16);
  std::memset(static_cast<void*>(to), 0xff, sizeof(P));
  auto& own = cuda_emulator::copies();
  own.under_way.push_back(
      {[](void* t, const void* f) { *static_cast<P*>(t) = *static_cast<const P*>(f); }, to, from, own.group});
}
inline void end_copies() { ++cuda_emulator::copies().group; }
template <int kOthers>
void await_copies() {
  auto& own = cuda_emulator::copies();
  auto at = own.under_way.begin();
  for (; at != own.under_way.end() && at->group < own.group - kOthers; ++at) at->go(at->to, at->from);
  own.under_way.erase(own.under_way.begin(), at);
}

inline int anew(int number) { return number; }  // which costs no registers, of which csrc/common.cuh speaks
// Of no effect on what a kernel computes; read, so that AddressSanitizer sees an address that is out of bounds.
inline void call_into_l2(const void* at) { (void)*static_cast<const volatile char*>(at); }

// A kernel that may overlap with the one before, which PTX has instructions for: csrc/common.cuh.
inline void let_next_begin() {}
inline void await_previous() { cuda_emulator::waited()[cuda_emulator::current_thread()] = true; }

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
  const dim3 &grid = config->gridDim, &block = config->blockDim;
  // What every device grants without opting in.
  if (!grid.x || !grid.y || !grid.z || block.x * block.y * block.z == 0 || block.x * block.y * block.z > 1024 ||
      grid.y > 65535 || grid.z > 65535 || config->dynamicSmemBytes > 48 * 1024)
    return cudaErrorInvalidConfiguration;
  cuda_emulator::run(reinterpret_cast<const void*>(kernel), grid, block, config->dynamicSmemBytes, [&] {
    const int thread = cuda_emulator::current_thread();
    cuda_emulator::waited()[thread] = config->numAttrs == 0;
    cuda_emulator::copies() = {};
    kernel(arguments...);
    if (!cuda_emulator::copies().under_way.empty())
      cuda_emulator::fail("a thread has ended that never awaited a copy", {__FILE__, __LINE__});
    if (!cuda_emulator::waited()[thread])
      cuda_emulator::fail("a thread has ended that never waited for the kernel before", {__FILE__, __LINE__});
  });
  return cudaSuccess;
}

// There are no registers to tell of. A multiprocessor holds one block in a shape in which the kernel has been launched,
// and none in another: so a test sees whether a shape is right.
struct cudaFuncAttributes {
  int numRegs, binaryVersion, ptxVersion;
  size_t sharedSizeBytes, localSizeBytes;
};
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->ptxVersion = cuda_emulator::compiled_for();
  return cudaSuccess;
}
inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel, int threads,
                                                                 size_t shared_bytes) {
  *blocks = cuda_emulator::was_launched(kernel, threads, shared_bytes);
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) { return "an error of the CUDA emulator"; }
