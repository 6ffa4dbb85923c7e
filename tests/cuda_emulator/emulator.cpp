// Runs kernels on the CPU: blocks one after another, the threads of a block as fibres that take turns.
//
// A fibre runs until it waits at a barrier or a warp's collective, or ends. When no fibre can go on, waits that are
// complete are released; when none is, a rule was broken and the launch throws. Fibres run in a chosen order between
// two waits, blocks too, so a result that depends on the order is a race; in the order `interleaved` they also change
// places at accesses to shared memory (watch.cpp). Shared memory starts as NaN in every block.
#include "context.h"
#include "cuda_runtime.h"
#include "watch.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_emulator {
namespace {

constexpr size_t kStack = 256 * 1024;  // of address space; pages are touched as needed

enum class State { ready, at_block_barrier, at_warp_collective, ended };
enum class Order { forwards, backwards, shuffled, interleaved };

struct Fibre {
  dim3 index;
  int lane;
  Context context;
  bool rests = false;  // has run a thread to its end, and can run another
  State state;
  Site site;
  unsigned mask;
  bool orders_memory;  // whether the collective it waits at does
  uint64_t value;      // handed in
  uint64_t seen[32];   // handed out
};

struct Scheduler {
  std::mutex mutex;  // the backward pass of torch runs on another thread
  Context main = {{}, {}, true};
  std::vector<Fibre> fibres;
  Fibre* current = nullptr;
  std::vector<int> turn;
  unsigned char* stacks = nullptr;
  size_t stacks_for = 0;
  const std::function<void()>* kernel = nullptr;
  std::string error;
  Order order = Order::forwards;
  std::mt19937 random;
  int64_t launches = 0;
  bool only_noted = false;                                   // launches are noted, and nothing runs
  std::vector<const void*> noted;                            // kernels, in the order of their launches
  std::set<std::tuple<const void*, size_t, size_t>> shapes;  // kernel, threads, bytes of shared memory
  void* main_fake_stack = nullptr;                           // AddressSanitizer's
  const void* main_stack = nullptr;
  size_t main_stack_size = 0;
} scheduler;

std::string name(Site site) {
  const std::string file = site.file;
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(site.line);
}

Fibre& self() { return *scheduler.current; }

void leave(bool for_good) {
  Fibre& fibre = self();
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack, scheduler.main_stack, scheduler.main_stack_size);
#endif
  if (for_good) fibre.state = State::ended;
  change(fibre.context, scheduler.main);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

void fibre_main() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler.main_stack, &scheduler.main_stack_size);
#endif
  for (;; leave(true)) {
    (*scheduler.kernel)();
    self().rests = true;
  }
}

void resume(int id) {
  Fibre& fibre = scheduler.fibres[id];
  scheduler.current = &fibre;
  threadIdx = fibre.index;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler.main_fake_stack, scheduler.stacks + id * kStack, kStack);
#endif
  change(scheduler.main, fibre.context);
  scheduler.current = nullptr;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler.main_fake_stack, nullptr, nullptr);
#endif
  if (!scheduler.error.empty()) throw std::runtime_error("CUDA emulator: " + scheduler.error);
}

void wait(State state, Site site) {
  self().state = state;
  self().site = site;
  leave(false);
}

bool same(Site a, Site b) { return a.line == b.line && std::strcmp(a.file, b.file) == 0; }

// Lanes that meet at one place must agree on who takes part, or not know of each other.
void check_masks(const Fibre& fibre, const Fibre* lanes, int present) {
  for (int lane = 0; lane < present; ++lane) {
    const Fibre& other = lanes[lane];
    if (other.state != State::at_warp_collective || !same(other.site, fibre.site) || other.mask == fibre.mask) continue;
    if (!(other.mask & fibre.mask)) continue;
    char masks[64];
    std::snprintf(masks, sizeof(masks), "%08x and %08x", fibre.mask, other.mask);
    throw std::runtime_error("CUDA emulator: " + name(fibre.site) + ": lanes of a warp meet with the masks " + masks);
  }
}

// Releases the fibre's warp collective if all lanes of its mask are there.
bool release_warp(Fibre& fibre, int warp) {
  Fibre* const lanes = scheduler.fibres.data() + warp * 32;
  const int present = std::min<int>(32, scheduler.fibres.size() - warp * 32);
  check_masks(fibre, lanes, present);
  for (int lane = 0; lane < 32; ++lane) {
    if (!(fibre.mask >> lane & 1)) continue;
    if (lane >= present || lanes[lane].state != State::at_warp_collective || lanes[lane].mask != fibre.mask ||
        !same(lanes[lane].site, fibre.site))
      return false;
  }
  if (fibre.orders_memory) watch_warp_barrier(warp, fibre.mask);
  const unsigned mask = fibre.mask;
  uint64_t values[32] = {};
  for (int lane = 0; lane < present; ++lane)
    if (mask >> lane & 1) values[lane] = lanes[lane].value;
  for (int lane = 0; lane < present; ++lane)
    if (mask >> lane & 1) {
      std::copy(values, values + 32, lanes[lane].seen);
      lanes[lane].state = State::ready;
    }
  return true;
}

bool release_block() {
  uint64_t predicates = 0;
  for (const Fibre& fibre : scheduler.fibres) {
    if (fibre.state != State::at_block_barrier || !same(fibre.site, scheduler.fibres[0].site)) return false;
    predicates += fibre.value;
  }
  for (Fibre& fibre : scheduler.fibres) fibre.seen[0] = predicates, fibre.state = State::ready;
  watch_block_barrier();
  return true;
}

[[noreturn]] void report_deadlock() {
  std::string text = "in block " + std::to_string(blockIdx.x) + " no thread can go on:";
  const char* const waits[] = {"", "waits at the barrier of ", "waits at the warp collective of ", "has ended"};
  std::vector<std::string> said;
  for (size_t id = 0; id < scheduler.fibres.size(); ++id) {
    const Fibre& fibre = scheduler.fibres[id];
    const std::string what = waits[int(fibre.state)] + (fibre.state == State::ended ? std::string() : name(fibre.site));
    if (std::find(said.begin(), said.end(), what) != said.end()) continue;
    text += (said.empty() ? " thread " : ", thread ") + std::to_string(id) + " " + what;
    said.push_back(what);
    if (fibre.state != State::at_warp_collective) continue;
    for (size_t lane = 0; lane < 32; ++lane) {
      const size_t other = id / 32 * 32 + lane;
      const bool there = other < scheduler.fibres.size() && scheduler.fibres[other].state != State::ended;
      if (there || !(fibre.mask >> lane & 1)) continue;
      text += " for lane " + std::to_string(lane) + ", which has ended";
      break;
    }
  }
  throw std::runtime_error("CUDA emulator: " + text);
}

template <class T>
void arrange(std::vector<T>& items) {
  std::iota(items.begin(), items.end(), T(0));
  if (scheduler.order == Order::backwards) std::reverse(items.begin(), items.end());
  if (scheduler.order >= Order::shuffled) std::shuffle(items.begin(), items.end(), scheduler.random);
}

void start_fibres() {
  for (size_t id = 0; id < scheduler.fibres.size(); ++id) {
    Fibre& fibre = scheduler.fibres[id];
    const unsigned x = id % blockDim.x, rest = id / blockDim.x;
    fibre.index = dim3(x, rest % blockDim.y, rest / blockDim.y);
    fibre.lane = id % 32;
    fibre.state = State::ready;
    fibre.site = {};
    if (std::exchange(fibre.rests, false)) continue;
    begin(fibre.context, scheduler.stacks + id * kStack, kStack, fibre_main);
  }
}

void run_block() {
  start_fibres();
  for (;;) {
    arrange(scheduler.turn);
    for (int id : scheduler.turn)
      if (scheduler.fibres[id].state == State::ready) resume(id);
    bool all_ended = true, released = false;
    for (size_t id = 0; id < scheduler.fibres.size(); ++id) {
      Fibre& fibre = scheduler.fibres[id];
      all_ended = all_ended && fibre.state == State::ended;
      if (fibre.state == State::at_warp_collective) released |= release_warp(fibre, id / 32);
      released |= fibre.state == State::ready;
    }
    if (all_ended) return;
    if (!released && !release_block()) report_deadlock();
  }
}

}  // namespace

int current_lane() { return self().lane; }

int current_thread() { return scheduler.current ? int(scheduler.current - scheduler.fibres.data()) : -1; }

void give_way() {
  if (scheduler.order == Order::interleaved && scheduler.random() % 4 == 0) leave(false);  // still ready
}

void fail_after(const std::string& what) {
  scheduler.error = what + (self().site.file ? ", after " + name(self().site) : "");
  leave(true);
  __builtin_unreachable();
}

int block_barrier(bool predicate, Site site) {
  self().value = predicate;
  wait(State::at_block_barrier, site);
  return int(self().seen[0]);
}

const uint64_t* exchange(unsigned mask, uint64_t value, Site site, bool orders_memory) {
  if (!(mask >> self().lane & 1)) fail("a warp collective is called by a lane outside its mask", site);
  self().mask = mask;
  self().value = value;
  self().orders_memory = orders_memory;
  wait(State::at_warp_collective, site);
  return self().seen;
}

void fail(const char* what, Site site) {
  scheduler.error = name(site) + ": " + what;
  leave(true);
  __builtin_unreachable();
}

bool was_launched(const void* kernel, int threads, size_t shared_bytes) {
  return scheduler.shapes.count({kernel, size_t(threads), shared_bytes});
}

void run(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> lock(scheduler.mutex);
  const size_t threads = size_t(block.x) * block.y * block.z;
  if (threads > scheduler.stacks_for) {
    if (scheduler.stacks) munmap(scheduler.stacks, scheduler.stacks_for * kStack);
    void* const memory =
        mmap(nullptr, threads * kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("CUDA emulator: no memory for the threads' stacks");
    scheduler.stacks = static_cast<unsigned char*>(memory), scheduler.stacks_for = threads;
    scheduler.fibres.clear();  // they rest on the stacks of before
  }
  scheduler.fibres.resize(threads), scheduler.turn.resize(threads);
  scheduler.kernel = &thread, scheduler.error.clear(), ++scheduler.launches;
  scheduler.shapes.insert({kernel, threads, shared_bytes});
  scheduler.noted.push_back(kernel);
  if (scheduler.only_noted) return;
  gridDim = grid, blockDim = block;
  std::vector<int64_t> blocks(size_t(grid.x) * grid.y * grid.z);
  arrange(blocks);
  for (int64_t b : blocks) {
    blockIdx = dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y);
    prepare_shared_memory(shared_bytes, threads);
    run_block();
  }
}

}  // namespace cuda_emulator

extern "C" {
// 0: forwards, 1: backwards, 2: shuffled, 3: interleaved as well, both by the seed.
__attribute__((visibility("default"))) void cuda_emulator_set_order(int order, unsigned seed) {
  cuda_emulator::scheduler.order = cuda_emulator::Order(order);
  cuda_emulator::scheduler.random.seed(seed);
}
__attribute__((visibility("default"))) void cuda_emulator_set_enough(int64_t n) { cuda_emulator::enough_blocks() = n; }
__attribute__((visibility("default"))) int64_t cuda_emulator_launches() { return cuda_emulator::scheduler.launches; }
__attribute__((visibility("default"))) void cuda_emulator_only_note(bool only) {
  cuda_emulator::scheduler.only_noted = only, cuda_emulator::scheduler.noted.clear();
}
// The kernel of a launch since then, null past the last.
__attribute__((visibility("default"))) const void* cuda_emulator_noted(int64_t launch) {
  const auto& noted = cuda_emulator::scheduler.noted;
  return size_t(launch) < noted.size() ? noted[launch] : nullptr;
}
}
