// What the CUDA kernels share: how they are launched and registered, storage types, shared memory, warp reductions.
//
// Everything is launched by `launch` on the current stream of the tensors' device, allocates through torch alone and
// never waits, so it can be captured in a CUDA graph. tests/cuda_emulator compiles the same files with g++ against a
// stand-in for cuda_runtime.h; hence no <<<>>>, and shared memory by `shared_memory` only.
#pragma once

#include <cuda_runtime.h>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <atomic>

#include "common.h"
#include "kernel_info.h"
#include "tensors.h"

// The dispatch key and the names that the operators' implementations are registered under. The emulator chooses others:
// the CPU, and names of its own.
#ifndef PPL_FAST_CUDA_KEY
#define PPL_FAST_CUDA_KEY CUDA
#define PPL_FAST_CUDA_OP(name) name
#endif

extern __shared__ __align__(32) unsigned char ppl_fast_shared[];

namespace ppl_fast {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Inputs and outputs are stored as S, sums are taken in Compute<S>.
template <class S>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
template <class S>
using Compute = typename ComputeOf<S>::type;

// Calls f with a zero of the storage type.
template <class F>
void dispatch_storage(ScalarType type, const char* op, F f) {
  switch (type) {
    case ScalarType::Half:
      return f(c10::Half());
    case ScalarType::BFloat16:
      return f(c10::BFloat16());
    default:
      return dispatch(type, op, f);
  }
}

// The device of a tensor, current as long as this lives, and its current stream.
class OnDevice {
 public:
  explicit OnDevice(const Tensor& t) : guard_(t.get_device_index()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }
  cudaStream_t stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

// The grid of a launch; an empty one launches nothing. Only the first extent may pass 65,535.
struct Grid {
  int64_t x, y = 1, z = 1;
};

template <class... Parameters, class... Arguments>
void launch_as(bool overlapping, void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_bytes,
               cudaStream_t stream, Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
  STD_TORCH_CHECK(grid.x <= INT32_MAX && grid.y <= 65535 && grid.z <= 65535, "ppl_fast: ", grid.x, " x ", grid.y, " x ",
                  grid.z, " thread blocks are more than a CUDA grid holds");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(grid.x), unsigned(grid.y), unsigned(grid.z));
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute;
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute, config.numAttrs = overlapping;
  STD_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_bytes, cudaStream_t stream,
            Arguments... arguments) {
  launch_as(false, kernel, grid, threads, shared_bytes, stream, arguments...);
}

// The compute capability, times ten, that a kernel's code was compiled for as the current device has loaded it: on a
// new GPU that may be PTX for an old one. Asked once a device.
class CompiledFor {
 public:
  template <class... Parameters>
  explicit CompiledFor(void (*kernel)(Parameters...)) : kernel_(reinterpret_cast<const void*>(kernel)) {}
  int on(int device) {
    std::atomic<int>* const answer = device >= 0 && device < 64 ? &known_[device] : nullptr;  // further ones: each time
    if (answer && *answer) return *answer;
    cudaFuncAttributes attributes;
    STD_CUDA_CHECK(cudaFuncGetAttributes(&attributes, kernel_));
    if (answer) *answer = attributes.ptxVersion;
    return attributes.ptxVersion;
  }

 private:
  const void* kernel_;
  std::atomic<int> known_[64] = {};
};

template <class... Parameters>
KernelShape shape_of(const char* name, void (*kernel)(Parameters...), int threads, size_t shared_bytes) {
  return {name, reinterpret_cast<const void*>(kernel), threads, shared_bytes};
}
// A kernel, under its own name, at the shape of its launches, for ReportedKernels.
#define PPL_FAST_KERNEL(threads, shared_bytes, ...) shape_of(#__VA_ARGS__, __VA_ARGS__, threads, shared_bytes)

template <class M>
__device__ M& shared_memory() {
  return *reinterpret_cast<M*>(ppl_fast_shared);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// N values that are loaded or stored at once; p must be aligned to all of them.
template <class S, int N>
struct alignas(sizeof(S) * N) Pack {
  S at[N];
};

// The sum over groups of Width lanes, in every lane, always in the same order.
template <int Width, class T>
__device__ T lane_sum(T value) {
  for (int offset = Width / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}

template <int Width, class T>
__device__ T lane_max(T value) {
  for (int offset = Width / 2; offset > 0; offset /= 2) value = fmax(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
}

#ifndef PPL_FAST_EMULATE_CUDA
// sums += A B by a warp, A (16, 8), B (8, 8), sums (16, 8), on tensor cores, which multiply tf32 from sm_80 on: code
// that was compiled for less must not come here. With g = lane / 4 and t = lane % 4, a lane has A at (g, t), (g + 8,
// t), (g, t + 4), (g + 8, t + 4), B at (t, g), (t + 4, g) and the sums at (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8,
// 2 t + 1).
__device__ inline void mma_tf32(float (&sums)[4], const float (&a)[4], const float (&b)[2]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#else
  __trap();
#endif
}

// Starts to copy a value of 4, 8 or 16 bytes from global to shared memory, past the registers, from sm_80 on. A thread
// ends a group of such copies, then awaits all groups of its own but the last kOthers; other threads need a barrier.
// Memory brings 128 bytes at a time, of which L2 keeps the rest.
template <class P>
__device__ void start_copy(P* to, const P* from) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  const unsigned at = unsigned(__cvta_generic_to_shared(to));
  if constexpr (sizeof(P) == 16)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
  else
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], %2;" ::"r"(at), "l"(from), "n"(sizeof(P)) : "memory");
#else
  *to = *from;
#endif
}
__device__ inline void end_copies() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int kOthers>
__device__ void await_copies() {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kOthers) : "memory");
#endif
}

// The same number, from which nothing follows that was known before: a loop around does not keep it in registers.
__device__ inline int anew(int number) {
  asm volatile("" : "+r"(number));
  return number;
}

// What lies at an address of global memory is soon read: it may come into L2.
__device__ inline void call_into_l2(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }
#endif

// Two kernels in a row: the first says early that the second may be set up, and the second, launched as overlapping,
// waits for all that the first has written before it touches memory. From sm_90 on, and by drivers for CUDA 12.3 and
// later, which capture such launches in a graph.
inline bool may_overlap(CompiledFor& second, int device) {
  static const int driver = [] {
    int version = 0;
    STD_CUDA_CHECK(cudaDriverGetVersion(&version));
    return version;
  }();
  return driver >= 12030 && second.on(device) >= 90;
}
#ifndef PPL_FAST_EMULATE_CUDA
__device__ inline void let_next_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline void await_previous() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
#endif

__device__ inline unsigned warp_min(unsigned value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = min(value, __shfl_xor_sync(kAllLanes, value, offset));
  return value;
#else
  return __reduce_min_sync(kAllLanes, value);
#endif
}

__device__ inline float power_of_two(float x) { return exp2f(x); }
__device__ inline double power_of_two(double x) { return exp2(x); }
__device__ inline float log_of_two(float x) { return log2f(x); }
__device__ inline double log_of_two(double x) { return log2(x); }

}  // namespace ppl_fast
