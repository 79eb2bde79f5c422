// A graphics processor of plain C++, for one kernel source: its blocks run one after the other, each thread of a block as a fiber.
//
// What a warp does together (matrix products, ldmatrix, shuffles) waits until all 32 lanes have come to it; the last one does it for
// all. Between two barriers warps run one after the other, in an order that the seed draws, as do blocks: what lacks a barrier meets
// memory that is not ready. Asynchronous copies are as late as they may be, and leave NaN where they will arrive; so are the
// products of warpgroups, which read shared memory when they are waited for. Tensor cores add exactly and round toward zero; TF32
// operands lose the bits that the hardware does not read. Shared addresses are checked, and an access beyond a page that may be read
// is an error instead of a crash.
//
// Instructions: NVIDIA, "Parallel Thread Execution ISA", sections on mma, ldmatrix, cp.async, cp.async.bulk.tensor, mbarrier and
// wgmma; fragments, swizzles and matrix descriptors as in its figures.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

namespace gpu {

struct Index { unsigned x = 0; };
struct Copy { uint32_t to; const void* from; int bytes; };

struct Lane {
  sigjmp_buf resume;
  ucontext_t entry;
  bool started, done;
  const unsigned* event;  // what it waits for: a change of this from `seen`; or null
  unsigned seen;
  std::deque<std::vector<Copy>> groups;  // copies that were committed
  std::vector<Copy> open;                // and that were not
};

constexpr size_t STACK_BYTES = 128 * 1024;
constexpr unsigned MOST_THREADS = 256, WARP = 32, WARPGROUP = 128;

struct Meeting { unsigned generation = 0, arrived = 0; const char* what = nullptr; void* slot[WARPGROUP]; };

// Of shared memory: one arrival, and as many bytes as it expects, end a phase.
struct Barrier { unsigned phase = 0; bool arrived = false, fenced = false, known_to_copies = false; long bytes = 0; std::vector<std::function<long()>> copies; };

// What a warpgroup has asked the tensor cores for.
struct Products { bool fenced = false; std::vector<std::function<void()>> open; std::deque<std::vector<std::function<void()>>> groups; };

inline std::vector<Lane> lanes(MOST_THREADS);
inline Meeting warps[MOST_THREADS / WARP], warpgroups[MOST_THREADS / WARPGROUP], block;
inline Products products[MOST_THREADS / WARPGROUP];
inline std::map<uint32_t, Barrier> barriers;
inline unsigned arrivals;  // at any barrier
inline std::vector<uint8_t> shared_memory;
inline Lane* running;
inline sigjmp_buf scheduler;
inline std::string failure;
inline std::function<void()> entered;

}  // namespace gpu

inline gpu::Index threadIdx, blockIdx, blockDim, gridDim;

namespace gpu {

[[noreturn]] inline void fail(const std::string& what) {
  failure = what + " (block " + std::to_string(blockIdx.x) + ", thread " + std::to_string(threadIdx.x) + ")";
  siglongjmp(scheduler, 1);
}

// Lets others run until `event` is no longer what it is.
__attribute__((noinline)) inline void wait(const unsigned& event) {
  running->event = &event;
  running->seen = event;
  if (!sigsetjmp(running->resume, 0)) siglongjmp(scheduler, 1);
}

// Meets the other threads of a warp, or of a warpgroup; the last to come does `perform(everyone's operands)`.
template <unsigned SIZE = WARP, class Operands, class Perform> void together(const char* what, Operands& mine, Perform perform) {
  Meeting& meeting = (SIZE == WARP ? warps : warpgroups)[threadIdx.x / SIZE];
  if (meeting.arrived && strcmp(meeting.what, what)) fail(std::string("lanes of one warp meet in ") + meeting.what + " and " + what);
  meeting.what = what;
  meeting.slot[threadIdx.x % SIZE] = &mine;
  if (++meeting.arrived < SIZE) return wait(meeting.generation);
  meeting.arrived = 0;
  perform(reinterpret_cast<Operands**>(meeting.slot));
  ++meeting.generation;
}

inline void enter() {
  entered();
  for (const auto& group : running->groups)
    if (!group.empty()) fail("a thread ends while copies are under way");
  running->done = true;
  siglongjmp(scheduler, 1);
}

inline void resume(unsigned thread) {
  threadIdx.x = thread;
  running = &lanes[thread];
  running->event = nullptr;
  if (sigsetjmp(scheduler, 0)) return;
  if (running->started) siglongjmp(running->resume, 1);
  running->started = true;
  setcontext(&running->entry);
}

inline bool waits(const Lane& lane) { return lane.done || (lane.event && *lane.event == lane.seen); }

// One block, whose threads all call `entered`; returns whether all went well.
inline bool run_block(unsigned threads, uint8_t* stacks, std::mt19937& random) {
  for (Meeting& warp : warps) warp = {};
  for (Meeting& warpgroup : warpgroups) warpgroup = {};
  for (Products& of_warpgroup : products) of_warpgroup = {};
  barriers.clear();
  block = {};
  std::fill(shared_memory.begin(), shared_memory.end(), 0xff);
  for (unsigned thread = 0; thread < threads; ++thread) {
    Lane& lane = lanes[thread];
    lane.started = lane.done = false;
    lane.event = nullptr;
    lane.groups.clear();
    lane.open.clear();
    getcontext(&lane.entry);
    lane.entry.uc_stack.ss_sp = stacks + thread * STACK_BYTES;
    lane.entry.uc_stack.ss_size = STACK_BYTES;
    lane.entry.uc_link = nullptr;
    makecontext(&lane.entry, enter, 0);
  }
  std::vector<unsigned> order(threads / WARP);
  std::iota(order.begin(), order.end(), 0u);
  for (unsigned left = threads; left;) {
    std::shuffle(order.begin(), order.end(), random);
    bool moved = false;
    for (unsigned warp : order)
      for (bool again = true; again;) {  // as far as this warp gets by itself
        again = false;
        for (unsigned thread = warp * WARP; thread < (warp + 1) * WARP; ++thread) {
          if (waits(lanes[thread])) continue;
          resume(thread);
          if (!failure.empty()) return false;
          left -= lanes[thread].done;
          moved = again = true;
        }
      }
    if (left && !moved) {
      failure = "threads wait for others that never come";
      return false;
    }
  }
  for (const auto& [address, barrier] : barriers)
    if (!barrier.copies.empty()) failure = "a block ends while bulk copies are under way";
  return failure.empty();
}

inline void illegal_access(int, siginfo_t* about, void*) {
  char text[64];
  snprintf(text, sizeof text, "an access to illegal address %p", about->si_addr);
  fail(text);
}

// A grid of blocks in an order that the seed draws, all threads of which call `kernel`. Returns what went wrong, or null.
inline const char* run(std::function<void()> kernel, unsigned blocks, unsigned threads, unsigned shared_bytes, unsigned seed) {
  static uint8_t* stacks = static_cast<uint8_t*>(
      mmap(nullptr, MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  entered = std::move(kernel);
  failure.clear();
  shared_memory.assign(shared_bytes, 0);
  gridDim.x = blocks;
  blockDim.x = threads;
  struct sigaction handler = {}, before, before_bus;
  handler.sa_sigaction = illegal_access;
  handler.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &handler, &before);
  sigaction(SIGBUS, &handler, &before_bus);
  std::mt19937 random(seed);
  std::vector<unsigned> order(blocks);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), random);
  for (unsigned index : order) {
    blockIdx.x = index;
    if (!run_block(threads, stacks, random)) break;
  }
  sigaction(SIGSEGV, &before, nullptr);
  sigaction(SIGBUS, &before_bus, nullptr);
  return failure.empty() ? nullptr : failure.c_str();
}

inline uint8_t* shared_at(uint32_t address, unsigned bytes) {
  if (address % 16) fail("a shared address of 16-byte units that is not one");
  if (address + bytes > shared_memory.size()) fail("an access beyond shared memory");
  return shared_memory.data() + address;
}

// A sum that tensor cores have made: the exact one, rounded toward zero.
inline float toward_zero(double exact) {
  float rounded = static_cast<float>(exact);
  return fabs(static_cast<double>(rounded)) > fabs(exact) ? nextafterf(rounded, 0.f) : rounded;
}

struct Factors { float* sums[4]; uint32_t a[4], b[2]; };

// sums (16 x 8) += A (16 x K) B (K x 8), of which `mine` is this lane's part; at(register, part) is an element.
template <int K, int PER_REGISTER, class At> void multiply_accumulate(const char* what, At at, Factors mine) {
  together(what, mine, [&](Factors** warp) {
    constexpr int LANES_K = 4, HALF = LANES_K * PER_REGISTER;  // k of a fragment's first registers
    double a[16][K], b[K][8];
    for (int lane = 0; lane < 32; ++lane)
      for (int k = lane % 4 * PER_REGISTER, part = 0; part < PER_REGISTER; ++part, ++k)
        for (int half = 0; half < K / HALF; ++half) {
          a[lane / 4][k + half * HALF] = at(warp[lane]->a[half * 2], part);
          a[lane / 4 + 8][k + half * HALF] = at(warp[lane]->a[half * 2 + 1], part);
          b[k + half * HALF][lane / 4] = at(warp[lane]->b[half], part);
        }
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
        double sum = *warp[lane]->sums[i];
        for (int k = 0; k < K; ++k) sum += a[row][k] * b[k][column];
        *warp[lane]->sums[i] = toward_zero(sum);
      }
  });
}

}  // namespace gpu

// ---- what CUDA C++ says ----

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static  // of the one block that runs

struct float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline float __uint_as_float(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
inline uint32_t __float_as_uint(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }

struct __half { uint16_t bits; };
struct __nv_bfloat16 { uint16_t bits; };
inline float __half2float(__half x) { _Float16 value; memcpy(&value, &x, 2); return static_cast<float>(value); }
inline __half __float2half_rn(float x) { const _Float16 value = static_cast<_Float16>(x); __half h; memcpy(&h, &value, 2); return h; }
inline float __bfloat162float(__nv_bfloat16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) {
  const uint32_t bits = __float_as_uint(x);
  if (x != x) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <class T> T __ldg(const T* from) { return *from; }
template <class T> T __ldcg(const T* from) { return *from; }
inline void __threadfence() {}
inline uint32_t atomicMax(uint32_t* at, uint32_t x) { const uint32_t before = *at; *at = std::max(before, x); return before; }
inline uint32_t atomicAdd(uint32_t* at, uint32_t x) { const uint32_t before = *at; *at += x; return before; }

inline void __syncwarp() {
  int nothing = 0;
  gpu::together("syncwarp", nothing, [](int**) {});
}

inline void __syncthreads() {
  if (++gpu::block.arrived < blockDim.x) return gpu::wait(gpu::block.generation);
  gpu::block.arrived = 0;
  ++gpu::block.generation;
}

template <class T> T exchanged(const char* what, T value, int from) {
  struct { T value; int from; T got; } mine = {value, from, value};
  gpu::together(what, mine, [](auto** warp) {
    for (int lane = 0; lane < 32; ++lane)
      if (warp[lane]->from >= 0 && warp[lane]->from < 32) warp[lane]->got = warp[warp[lane]->from]->value;
  });
  return mine.got;
}
template <class T> T __shfl_sync(unsigned, T value, int from) { return exchanged("shfl", value, from); }
template <class T> T __shfl_down_sync(unsigned, T value, int by) { return exchanged("shfl.down", value, threadIdx.x % 32 + by); }
template <class T> T __shfl_xor_sync(unsigned, T value, int with) { return exchanged("shfl.xor", value, threadIdx.x % 32 ^ with); }

inline uint32_t __cvta_generic_to_shared(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const uint8_t*>(pointer) - gpu::shared_memory.data());
}

// ---- what inline assembly says; emulated_gpu.py turns each statement into a call of the instruction's name ----

inline void cvt_rna_tf32_f32(uint32_t& rounded, float x) {
  rounded = (__float_as_uint(x) + 0x1000) & 0xffffe000;  // to the nearest of 10 bits of mantissa, ties away from zero
}

inline double half_at(uint32_t bits, int part) { return __half2float({static_cast<uint16_t>(bits >> 16 * part)}); }
inline double bfloat_at(uint32_t bits, int part) { return __bfloat162float({static_cast<uint16_t>(bits >> 16 * part)}); }
inline double tf32_at(uint32_t bits, int) { return __uint_as_float(bits & 0xffffe000); }  // the rest is not read

inline void mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32(float& c0, float& c1, float& c2, float& c3, uint32_t a0, uint32_t a1,
                                                              uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  gpu::multiply_accumulate<16, 2>(__func__, half_at, {{&c0, &c1, &c2, &c3}, {a0, a1, a2, a3}, {b0, b1}});
}

inline void mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32(float& c0, float& c1, float& c2, float& c3, uint32_t a0, uint32_t a1,
                                                                uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  gpu::multiply_accumulate<16, 2>(__func__, bfloat_at, {{&c0, &c1, &c2, &c3}, {a0, a1, a2, a3}, {b0, b1}});
}

inline void mma_sync_aligned_m16n8k8_row_col_f32_f16_f16_f32(float& c0, float& c1, float& c2, float& c3, uint32_t a0, uint32_t a1,
                                                             uint32_t b0) {
  gpu::multiply_accumulate<8, 2>(__func__, half_at, {{&c0, &c1, &c2, &c3}, {a0, a1}, {b0}});
}

inline void mma_sync_aligned_m16n8k8_row_col_f32_tf32_tf32_f32(float& c0, float& c1, float& c2, float& c3, uint32_t a0, uint32_t a1,
                                                               uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  gpu::multiply_accumulate<8, 1>(__func__, tf32_at, {{&c0, &c1, &c2, &c3}, {a0, a1, a2, a3}, {b0, b1}});
}

namespace gpu {
struct Rows { uint32_t address; uint32_t* r[4]; };

template <bool TRANSPOSED> void load_matrices(const char* what, uint32_t& r0, uint32_t& r1, uint32_t& r2, uint32_t& r3, uint32_t address) {
  Rows mine = {address, {&r0, &r1, &r2, &r3}};
  together(what, mine, [](Rows** warp) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint16_t element[8][8];
      for (int row = 0; row < 8; ++row) memcpy(element[row], shared_at(warp[matrix * 8 + row]->address, 16), 16);
      for (int lane = 0; lane < 32; ++lane) {
        const int outer = lane / 4, inner = lane % 4 * 2;
        const uint16_t low = TRANSPOSED ? element[inner][outer] : element[outer][inner];
        const uint16_t high = TRANSPOSED ? element[inner + 1][outer] : element[outer][inner + 1];
        *warp[lane]->r[matrix] = static_cast<uint32_t>(high) << 16 | low;
      }
    }
  });
}
}  // namespace gpu

inline void ldmatrix_sync_aligned_m8n8_x4_shared_b16(uint32_t& r0, uint32_t& r1, uint32_t& r2, uint32_t& r3, uint32_t address) {
  gpu::load_matrices<false>(__func__, r0, r1, r2, r3, address);
}

inline void ldmatrix_sync_aligned_m8n8_x4_trans_shared_b16(uint32_t& r0, uint32_t& r1, uint32_t& r2, uint32_t& r3, uint32_t address) {
  gpu::load_matrices<true>(__func__, r0, r1, r2, r3, address);
}

inline void cp_async_cg_shared_global(uint32_t to, const void* from, int bytes = 16) {
  if (reinterpret_cast<uintptr_t>(from) % 16) gpu::fail("an asynchronous copy from an address that is not of 16 bytes");
  if (bytes < 0 || bytes > 16) gpu::fail("an asynchronous copy of " + std::to_string(bytes) + " bytes");
  memset(gpu::shared_at(to, 16), 0xff, 16);
  gpu::running->open.push_back({to, from, bytes});
}

inline void cp_async_commit_group() {
  gpu::running->groups.push_back(std::move(gpu::running->open));
  gpu::running->open.clear();
}

inline void cp_async_wait_group(unsigned pending) {
  auto& groups = gpu::running->groups;
  for (; groups.size() > pending; groups.pop_front())
    for (const gpu::Copy& copy : groups.front()) {
      uint8_t* to = gpu::shared_at(copy.to, 16);
      memset(to, 0, 16);
      memcpy(to, copy.from, copy.bytes);
    }
}

// ---- Hopper: barriers that count bytes, bulk copies of tiles, products of warpgroups ----

namespace gpu {

inline Barrier& barrier_at(uint32_t address) {
  if (address % 8 || !barriers.count(address)) fail("no barrier at shared address " + std::to_string(address));
  return barriers[address];
}

inline void end_phase_if_due(Barrier& barrier) {
  if (!barrier.arrived || barrier.bytes) return;
  barrier.arrived = false;
  ++barrier.phase;
}

// As tests/emulated_gpu.py lays out what cuTensorMapEncodeTiled is told.
struct Tiles { const uint8_t* base; uint64_t extent[3], stride[2]; uint32_t box[3], element_bytes; };

// Bits 4 to 6 of an address change with bits 7 to 9.
inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

inline long copy_tile(const Tiles& tiles, uint32_t to, const int* first) {
  const uint32_t* box = tiles.box;
  for (uint32_t z = 0; z < box[2]; ++z)
    for (uint32_t y = 0; y < box[1]; ++y)
      for (uint32_t x = 0; x < box[0]; ++x) {
        const long at[3] = {first[0] + static_cast<long>(x), first[1] + static_cast<long>(y), first[2] + static_cast<long>(z)};
        bool inside = true;
        for (int axis = 0; axis < 3; ++axis) inside = inside && at[axis] >= 0 && at[axis] < static_cast<long>(tiles.extent[axis]);
        uint8_t* element = shared_memory.data() + swizzled(to + ((z * box[1] + y) * box[0] + x) * tiles.element_bytes);
        memset(element, 0, tiles.element_bytes);
        if (inside)
          memcpy(element, tiles.base + at[2] * tiles.stride[1] + at[1] * tiles.stride[0] + at[0] * tiles.element_bytes, tiles.element_bytes);
      }
  return static_cast<long>(box[0]) * box[1] * box[2] * tiles.element_bytes;
}

// Element (outer, k) of a swizzled 64 x 16 operand in shared memory.
template <class At> double operand_at(At at, uint64_t descriptor, bool outer_is_inner, int outer, int k) {
  const uint32_t start = (descriptor & 0x3fff) << 4, group = (descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1 || descriptor >> 46 & 0xffff) fail("a matrix descriptor that is not swizzled by 128 bytes from a whole pattern on");
  const int line = outer_is_inner ? k : outer, along = outer_is_inner ? outer : k;
  const uint32_t address = swizzled(start + line / 8 * group + line % 8 * 128 + along * 2);
  if (address + 2 > shared_memory.size()) fail("a product of what lies beyond shared memory");
  uint16_t element;
  memcpy(&element, shared_memory.data() + address, 2);
  return at(element, 0);
}

struct Squares { float* sums[32]; uint64_t left, right; int outer_is_inner; };

template <class At> void multiply_squares(const char* what, At at, Squares mine) {
  together<WARPGROUP>(what, mine, [at](Squares** threads) {
    Products& mine = products[threadIdx.x / WARPGROUP];
    if (!mine.fenced) fail("products of a warpgroup without a fence before them");
    std::vector<Squares> all(WARPGROUP);
    for (unsigned thread = 0; thread < WARPGROUP; ++thread) {
      all[thread] = *threads[thread];
      if (all[thread].left != all[0].left || all[thread].right != all[0].right) fail("threads of one warpgroup name different operands");
    }
    mine.open.push_back([at, all] {
      static double left[64][16], right[64][16];
      for (int outer = 0; outer < 64; ++outer)
        for (int k = 0; k < 16; ++k) {
          left[outer][k] = operand_at(at, all[0].left, all[0].outer_is_inner, outer, k);
          right[outer][k] = operand_at(at, all[0].right, all[0].outer_is_inner, outer, k);
        }
      for (int thread = 0; thread < 128; ++thread)
        for (int i = 0; i < 32; ++i) {
          const int row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + thread % 4 * 2 + i % 2;
          double sum = *all[thread].sums[i];
          for (int k = 0; k < 16; ++k) sum += left[row][k] * right[column][k];
          *all[thread].sums[i] = toward_zero(sum);
        }
    });
  });
}

// What all threads of a warpgroup say together about its products.
template <class Change> void change_products(const char* what, Change change) {
  int nothing = 0;
  together<WARPGROUP>(what, nothing, [change](int**) { change(products[threadIdx.x / WARPGROUP]); });
}

}  // namespace gpu

inline void mbarrier_init_shared_b64(uint32_t address) {
  gpu::shared_at(address / 16 * 16, 16);
  gpu::barriers[address] = {};
}

inline void fence_mbarrier_init_release_cluster() {
  for (auto& [address, barrier] : gpu::barriers) barrier.fenced = true;
}

inline void fence_proxy_async_shared_cta() {
  for (auto& [address, barrier] : gpu::barriers) barrier.known_to_copies = true;
}

inline void mbarrier_arrive_expect_tx_shared_b64(uint32_t address, int bytes) {
  gpu::Barrier& barrier = gpu::barrier_at(address);
  if (barrier.arrived) gpu::fail("a barrier of one arrival meets a second");
  barrier.arrived = true;
  barrier.bytes += bytes;
  gpu::end_phase_if_due(barrier);
  ++gpu::arrivals;
}

// Others run until something arrives anywhere, whenever it says no.
inline void mbarrier_try_wait_parity_shared_b64(uint32_t& arrived, uint32_t address, uint32_t parity) {
  gpu::Barrier& barrier = gpu::barrier_at(address);
  for (const auto& copy : barrier.copies) barrier.bytes -= copy();
  barrier.copies.clear();
  gpu::end_phase_if_due(barrier);
  arrived = barrier.phase % 2 != parity;
  if (!arrived) gpu::wait(gpu::arrivals);
}

template <class Map>
void cp_async_bulk_tensor_3d_shared_cluster_global_mbarrier_complete_tx_bytes(uint32_t to, const Map* map, int x, int y, int z, uint32_t address) {
  gpu::Barrier& barrier = gpu::barrier_at(address);
  if (!barrier.fenced || !barrier.known_to_copies) gpu::fail("a bulk copy counts on a barrier that it cannot know");
  gpu::Tiles tiles;
  static_assert(sizeof tiles <= sizeof *map);
  memcpy(&tiles, map, sizeof tiles);
  const uint32_t bytes = tiles.box[0] * tiles.box[1] * tiles.box[2] * tiles.element_bytes;
  if (to % 1024) gpu::fail("a swizzled tile that does not begin where the pattern does");
  memset(gpu::shared_at(to, bytes), 0xff, bytes);
  barrier.copies.push_back([tiles, to, x, y, z] {
    const int first[3] = {x, y, z};
    return gpu::copy_tile(tiles, to, first);
  });
}

inline void wgmma_fence_sync_aligned() {
  gpu::change_products(__func__, [](gpu::Products& mine) { mine.fenced = true; });
}

inline void wgmma_commit_group_sync_aligned() {
  gpu::change_products(__func__, [](gpu::Products& mine) {
    mine.groups.push_back(std::move(mine.open));
    mine.open.clear();
  });
}

inline void wgmma_wait_group_sync_aligned(unsigned pending) {
  gpu::change_products(__func__, [pending](gpu::Products& mine) {
    for (; mine.groups.size() > pending; mine.groups.pop_front())
      for (const auto& product : mine.groups.front()) product();
    mine.fenced = false;  // for the registers may be used from now on
  });
}

namespace gpu {
template <class Operands, size_t... I> Squares squares(Operands operands, std::index_sequence<I...>) {
  return {{&std::get<I>(operands)...}, std::get<32>(operands), std::get<33>(operands), std::get<34>(operands)};
}
}  // namespace gpu

// 32 sums, the operand on the left, that on the right, and whether their lines run along the outer axis instead of k.
template <class... Operands> void wgmma_mma_async_sync_aligned_m64n64k16_f32_f16_f16(Operands&&... operands) {
  gpu::multiply_squares(__func__, half_at, gpu::squares(std::tie(operands...), std::make_index_sequence<32>()));
}

template <class... Operands> void wgmma_mma_async_sync_aligned_m64n64k16_f32_bf16_bf16(Operands&&... operands) {
  gpu::multiply_squares(__func__, bfloat_at, gpu::squares(std::tie(operands...), std::make_index_sequence<32>()));
}
