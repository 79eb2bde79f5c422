// Gram matrices, style losses and their gradients, for all layers of a style loss at once.
//
//   forward   G = F diag(m) F^T / (C sum m)          F: C channels x P pixels of one image, m: a mask, or ones
//   finish    L = sum_l w_l mean((G_l - A_l)^2), D = G - A
//   backward  dF = 4 w / (N C^2 C sum m) D F diag(m)
//
// The map
//   gram_forward   A block computes one TILE x TILE tile (64 or 128 channels square) of the upper triangle of G, over
//                  a run of pixel chunks. The chunks of all images of a layer form one line, which `gangs` cut into
//                  equal runs; the blocks of a gang are the tiles of one run, so that they read the same pixels at
//                  the same time and all but the first find them in L2. A block crosses from image to image without
//                  draining its pipeline and stores one float32 partial tile per image it met.
//                  Layers share the launch: each gets gangs by the bytes it must read (kernels/plan.py).
//                  On Hopper there is a second one, whose operands travel by bulk copies and are multiplied by warpgroups.
//   gram_finish    A block adds up the partials of 8 x 32 elements of G in the order of the gangs (so results repeat
//                  bit by bit), normalises, compares with the target, mirrors it below the diagonal. The last block
//                  adds up the loss, again in a fixed order. Partials of small layers are many and lie in L2: many
//                  blocks, with several threads for an element and many loads under way, keep them from waiting for
//                  one another.
//   gram_pack      D as the operand of a matrix product: in F's type, float16 scaled by a power of two.
//   gram_backward  A block computes 64 or 128 channels x PIXELS pixels of dF = D F.
//
// Operands travel global -> shared through a ring of asynchronous 16-byte copies, then by ldmatrix to registers and
// mma.sync with float32 accumulators; a panel's 128-byte rows are swizzled (16-byte unit ^ row % 8), so that neither the copies nor
// ldmatrix meet a bank twice. On the diagonal both operands are one panel, which is loaded once.
//
// Forward reads F once from memory when C <= 128, and ceil(C / 128) times through L2 above; at C = 128 that is 128
// operations a byte in float16, far under the 250 to 300 a byte where the chip turns from memory- to arithmetic-bound.
// 128 x 128 is the largest tile whose accumulators (64 registers a thread) leave room for two blocks on one
// multiprocessor: one computes while the other waits at its barrier.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#ifndef GRAM_STAGES
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define GRAM_STAGES 2  // Turing has 64 KiB of shared memory a block; see dynamic_shared_bytes in kernels/module.py
#else
#define GRAM_STAGES 3
#endif
#endif

namespace {

constexpr int THREADS = 256;
constexpr int MAX_LAYERS = 16;
constexpr int ROW_BYTES = 128;                      // of a chunk along the axis that a product sums over
constexpr int PANEL_BYTES = 128 * ROW_BYTES;        // the largest panel: 128 channels (or pixels) of a chunk
constexpr int SHARED_BYTES = GRAM_STAGES * 2 * PANEL_BYTES;
constexpr int BLOCK = 32;                           // columns of what one block of gram_finish owns
constexpr int STRIP = THREADS / BLOCK;              // and its rows

// One layer of a group. kernels/launch.py mirrors this field by field, and a test its size.
struct Layer {
  const void* features;
  void* gradient;
  const float* mask;     // (N, pixels), or null
  const float* area;     // (N): sum of the mask, or null
  const float* target;   // (C, C) or (N, C, C), or null
  float* partial;        // (gangs + N - 1, tiles, tile, tile)
  float* gram;           // (N, C, C), or null
  float* difference;     // (N, C, C), or null
  uint32_t* peak;        // (N): bits of max |D|
  void* packed;          // (N, C, packed_stride): D as an operand
  long long feature_stride[4];   // elements: image, channel, row, column
  long long gradient_stride[4];
  long long target_stride;       // elements from image to image: 0 or C * C
  float loss_scale;              // w / (N C^2)
  float gradient_scale;          // 4 w / (N C^3), over the area still to come
  int N, C, width, pixels;
  int packed_stride;
  int feature_vectors, gradient_vectors;  // whether 16-byte copies are legal
  int accumulate;                // add to the gradient instead of writing it
  int tile, gangs, chunks;       // chunks of one image
  int first_forward, first_finish, first_pack, first_backward;  // this layer's first block in each launch
};

struct Group {
  Layer layer[MAX_LAYERS];
  float* loss_part;      // one per block of gram_finish
  uint32_t* ticket;
  float* loss;           // or null
  const float* upstream; // gradient that arrives at the loss, or null for 1
  int layers;
  int reserved;
};
// CUtensorMap of a layer's features, which the driver makes: tiles of 64 pixels x 64 channels of an image, swizzled.
struct alignas(64) TensorMap { uint64_t opaque[16]; };
struct TensorMaps { TensorMap of_layer[MAX_LAYERS]; };
static_assert(sizeof(Layer) == 224 && sizeof(Group) == 3624, "as in kernels/launch.py; older drivers pass at most 4096 bytes");

// ---- element types: what one 32-byte step of a product multiplies ----

struct Float16 { using type = __half; };
struct Bfloat16 { using type = __nv_bfloat16; };
struct TensorFloat32 { using type = float; };  // operands rounded to 10 bits of mantissa
struct Float32 { using type = float; };        // operands split in two such halves: three products, float32's precision

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// A 16 x 8 block of float32 sums; c[0], c[1] in row lane / 4 at columns 2 (lane % 4) and + 1, c[2], c[3] eight rows on.
struct Sums { float c[4]; };

#if __CUDA_ARCH__ < 800
// Turing multiplies float16 only. Its other types go through shuffles: the same fragments, plain float32 arithmetic.
template <class T, int COUNT>
__device__ __forceinline__ void multiply_by_shuffles(Sums& sums, const uint32_t* a, uint32_t b0, uint32_t b1) {
  const int lane = threadIdx.x % 32, row = lane / 4 * 4, column = lane % 4 * 8;
  union Word { uint32_t bits; T value[COUNT]; __device__ Word(uint32_t bits) : bits(bits) {} };
#pragma unroll
  for (int half = 0; half < 2; ++half) {  // unrolled, so that a[] stays in registers
#pragma unroll 1
    for (int k = 0; k < 4; ++k) {
      const Word upper(__shfl_sync(~0u, a[half * 2], row + k)), lower(__shfl_sync(~0u, a[half * 2 + 1], row + k));
      const Word left(__shfl_sync(~0u, half ? b1 : b0, column + k)), right(__shfl_sync(~0u, half ? b1 : b0, column + 4 + k));
      for (int i = 0; i < COUNT; ++i) {
        sums.c[0] += to_float(upper.value[i]) * to_float(left.value[i]);
        sums.c[1] += to_float(upper.value[i]) * to_float(right.value[i]);
        sums.c[2] += to_float(lower.value[i]) * to_float(left.value[i]);
        sums.c[3] += to_float(lower.value[i]) * to_float(right.value[i]);
      }
    }
  }
}
#endif

__device__ __forceinline__ void multiply(Float16, Sums& s, const uint32_t* a, uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(s.c[0]), "+f"(s.c[1]), "+f"(s.c[2]), "+f"(s.c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(s.c[0]), "+f"(s.c[1]), "+f"(s.c[2]), "+f"(s.c[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
      : "+f"(s.c[0]), "+f"(s.c[1]), "+f"(s.c[2]), "+f"(s.c[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

__device__ __forceinline__ void multiply(Bfloat16, Sums& s, const uint32_t* a, uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(s.c[0]), "+f"(s.c[1]), "+f"(s.c[2]), "+f"(s.c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  multiply_by_shuffles<__nv_bfloat16, 2>(s, a, b0, b1);
#endif
}

#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ uint32_t rounded_to_tf32(uint32_t x) {
  uint32_t rounded;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(__uint_as_float(x)));
  return rounded;
}

__device__ __forceinline__ void multiply_rounded(Sums& s, const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(s.c[0]), "+f"(s.c[1]), "+f"(s.c[2]), "+f"(s.c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

__device__ __forceinline__ void multiply(TensorFloat32, Sums& s, const uint32_t* a, uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  const uint32_t high[4] = {rounded_to_tf32(a[0]), rounded_to_tf32(a[1]), rounded_to_tf32(a[2]), rounded_to_tf32(a[3])};
  multiply_rounded(s, high, rounded_to_tf32(b0), rounded_to_tf32(b1));
#else
  multiply_by_shuffles<float, 1>(s, a, b0, b1);
#endif
}

__device__ __forceinline__ void multiply(Float32, Sums& s, const uint32_t* a, uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  // x = high + low to 22 bits; low * low lies under float32's last bit and is left out.
  uint32_t high[4], low[4];
  for (int i = 0; i < 4; ++i) {
    high[i] = rounded_to_tf32(a[i]);
    low[i] = __float_as_uint(__uint_as_float(a[i]) - __uint_as_float(high[i]));
  }
  const uint32_t high0 = rounded_to_tf32(b0), high1 = rounded_to_tf32(b1);
  multiply_rounded(s, low, high0, high1);
  multiply_rounded(s, high, __float_as_uint(__uint_as_float(b0) - __uint_as_float(high0)),
                   __float_as_uint(__uint_as_float(b1) - __uint_as_float(high1)));
  multiply_rounded(s, high, high0, high1);
#else
  multiply_by_shuffles<float, 1>(s, a, b0, b1);
#endif
}

// A fragment times a mask, pixel by pixel. `mask` points at the first pixel of the 32-byte step, `left` pixels remain.
__device__ __forceinline__ float mask_at(const float* mask, int left, int k) { return k < left ? __ldg(mask + k) : 0.f; }

template <class T> struct Masked {  // two elements a register: pixels 2 t, 2 t + 1, and eight on
  static __device__ __forceinline__ void scale(uint32_t* a, const float* mask, int left) {
    for (int i = 0; i < 4; ++i) {
      const int k = threadIdx.x % 4 * 2 + i / 2 * 8;
      union { uint32_t bits; T value[2]; } word = {a[i]};
      word.value[0] = from_float<T>(to_float(word.value[0]) * mask_at(mask, left, k));
      word.value[1] = from_float<T>(to_float(word.value[1]) * mask_at(mask, left, k + 1));
      a[i] = word.bits;
    }
  }
};
template <> struct Masked<float> {  // one element a register: pixel t, and four on
  static __device__ __forceinline__ void scale(uint32_t* a, const float* mask, int left) {
    for (int i = 0; i < 4; ++i) {
      const float weight = mask_at(mask, left, threadIdx.x % 4 + i / 2 * 4);
      a[i] = __float_as_uint(__uint_as_float(a[i]) * weight);
    }
  }
};

// ---- global -> shared ----

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes.
__device__ __forceinline__ void copy_unit(uint8_t* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
#else
  *reinterpret_cast<uint4*>(to) = *static_cast<const uint4*>(from);
#endif
}

// 16 bytes, of which the first `bytes` are read and the rest is zero.
__device__ __forceinline__ void copy_unit(uint8_t* to, const void* from, int bytes) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
#else
  uint4 unit = make_uint4(0, 0, 0, 0);
  if (bytes == 16) {
    unit = *static_cast<const uint4*>(from);
  } else {  // the ragged end of a row
    for (int i = 0; i < bytes; ++i) reinterpret_cast<uint8_t*>(&unit)[i] = static_cast<const uint8_t*>(from)[i];
  }
  *reinterpret_cast<uint4*>(to) = unit;
#endif
}

__device__ __forceinline__ void commit_stage() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int PENDING> __device__ __forceinline__ void wait_for_stage() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// A matrix in global memory, rows x columns, whose columns are neighbours (vectors) or anywhere (strides).
// `rows_are_pixels` says which index runs over pixels, whose strides are two: by image row and column.
template <class T> struct Source {
  const T* base;
  long long channel_stride, row_stride, column_stride;
  int rows, columns, width, vectors;
  bool rows_are_pixels;

  __device__ __forceinline__ long long pixel_offset(int pixel) const {
    return pixel / width * row_stride + pixel % width * column_stride;
  }
  // 16 bytes along each of COUNT rows, STEP apart; in shared memory they lie PITCH bytes apart. Here pixels lie on one line:
  // row_stride = width * column_stride, neighbours are 1 apart.
  template <int COUNT, int STEP, int PITCH>
  __device__ __forceinline__ void copy_vectors(uint8_t* to, int row, int column, bool whole) const {
    const int bytes = min(max(columns - column, 0), static_cast<int>(16 / sizeof(T))) * static_cast<int>(sizeof(T));
    const long long stride = rows_are_pixels ? column_stride : channel_stride;
    const T* from = base + row * stride + column;
    if (whole) {  // half of the instructions of what follows
#pragma unroll
      for (int i = 0; i < COUNT; ++i, from += STEP * stride) copy_unit(to + i * PITCH, from);
      return;
    }
#pragma unroll
    for (int i = 0; i < COUNT; ++i, from += STEP * stride) {
      const bool inside = bytes && row + i * STEP < rows;
      copy_unit(to + i * PITCH, inside ? from : base, inside ? bytes : 0);
    }
  }
  __device__ __forceinline__ T element(int row, int column) const {
    if (row >= rows || column >= columns) return from_float<T>(0.f);
    const int channel = rows_are_pixels ? column : row, pixel = rows_are_pixels ? row : column;
    return base[channel * channel_stride + pixel_offset(pixel)];
  }
};

// The part of an operand that one stage holds: EXTENT rows of the product (or columns of it) x one chunk of the
// axis k that it sums over. K_INNER: rows of 128 bytes along k. Else: one row per k, EXTENT elements long.
template <class T, int EXTENT, bool K_INNER> struct Panel {
  static constexpr int UNIT = 16 / sizeof(T);
  static constexpr int CHUNK = ROW_BYTES / sizeof(T);
  static constexpr int ROWS = K_INNER ? EXTENT : CHUNK;
  static constexpr int UNITS = K_INNER ? CHUNK / UNIT : EXTENT / UNIT;  // 16-byte units in a row
  static constexpr int BYTES = ROWS * UNITS * 16;

  // float32 fragments of the second kind read 4 rows at once instead of 8, so their swizzle steps by two units.
  static __device__ __forceinline__ int offset(int row, int unit) {
    const int swizzle = !K_INNER && sizeof(T) == 4 ? row * 2 % 8 : row % 8;
    return (row * UNITS + (unit ^ swizzle)) * 16;
  }

  static __device__ __forceinline__ void load(uint8_t* panel, const Source<T>& source, int first_extent, int first_k) {
    const int first_row = K_INNER ? first_extent : first_k, first_column = K_INNER ? first_k : first_extent;
    if (source.vectors) {
      constexpr int STEP = THREADS / UNITS;
      static_assert(STEP % 8 == 0 && ROWS % STEP == 0, "a thread's rows are swizzled alike");
      const int row = threadIdx.x / UNITS, unit = threadIdx.x % UNITS;
      const bool whole = first_row + ROWS <= source.rows && first_column + UNITS * UNIT <= source.columns;
      source.template copy_vectors<ROWS / STEP, STEP, STEP * UNITS * 16>(panel + offset(row, unit), first_row + row,
                                                                         first_column + unit * UNIT, whole);
    } else {  // odd sizes and strange strides: element by element, small code rather than fast
#pragma unroll 1
      for (int i = threadIdx.x; i < ROWS * UNITS * UNIT; i += THREADS) {
        const int row = i / (UNITS * UNIT), column = i % (UNITS * UNIT);
        T* unit = reinterpret_cast<T*>(panel + offset(row, column / UNIT));
        unit[column % UNIT] = source.element(first_row + row, first_column + column);
      }
    }
  }

  // 16 rows (or columns) of the product x 32 bytes of k, as mma wants them. On its left: r[0], r[1] the first half of k for the
  // first and last eight rows, r[2], r[3] the second half. On its right two operands in neighbouring registers, which mma reads
  // as pairs: r[0], r[1] both halves of k for the first eight columns, r[2], r[3] for the last.
  template <bool LEFT> static __device__ __forceinline__ void fragment(uint32_t* r, const uint8_t* panel, int first_extent, int step) {
    const int lane = threadIdx.x % 32, matrix = lane / 8;
    const int extent_half = LEFT ? matrix % 2 : matrix / 2, k_half = LEFT ? matrix / 2 : matrix % 2;
    if constexpr (K_INNER) {
      const int at = offset(first_extent + extent_half * 8 + lane % 8, step * 2 + k_half);
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
          : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(panel + at)) : "memory");
    } else if constexpr (sizeof(T) == 2) {
      const int at = offset(step * 16 + k_half * 8 + lane % 8, first_extent / 8 + extent_half);
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
          : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(panel + at)) : "memory");
    } else {
      for (int i = 0; i < 4; ++i) {
        const int extent = first_extent + lane / 4 + (LEFT ? i % 2 : i / 2) * 8, k = step * 8 + lane % 4 + (LEFT ? i / 2 : i % 2) * 4;
        r[i] = *reinterpret_cast<const uint32_t*>(panel + offset(k, extent / 4) + extent % 4 * 4);
      }
    }
  }
};

// ---- one block's product: ROWS x COLUMNS, eight warps as 2 x 4 ----

template <class Op, class Left, class Right, int ROWS, int COLUMNS> struct Product {
  static constexpr int WARP_ROWS = ROWS / 2, WARP_COLUMNS = COLUMNS / 4;
  static constexpr int M = WARP_ROWS / 16, N = WARP_COLUMNS / 8;
  static constexpr int STEPS = ROW_BYTES / 32;
  static_assert(WARP_COLUMNS % 16 == 0, "fragments of the right operand come in pairs");
  Sums sums[M][N];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n) sums[m][n] = {};
  }

  static __device__ __forceinline__ int first_row() { return threadIdx.x / 32 / 4 * WARP_ROWS; }
  static __device__ __forceinline__ int first_column() { return threadIdx.x / 32 % 4 * WARP_COLUMNS; }

  // mask: if MASKED, the mask at the chunk's first pixel, of which `left` remain.
  template <bool MASKED>
  __device__ __forceinline__ void add(const uint8_t* left_panel, const uint8_t* right_panel, const float* mask, int left) {
    using T = typename Op::type;
#pragma unroll(MASKED ? 1 : STEPS)  // weights and their addresses leave no registers for several steps at once
    for (int step = 0; step < STEPS; ++step) {
      uint32_t a[M][4], b[N / 2][4];
#pragma unroll
      for (int n = 0; n < N / 2; ++n) Right::template fragment<false>(b[n], right_panel, first_column() + n * 16, step);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        Left::template fragment<true>(a[m], left_panel, first_row() + m * 16, step);
        if constexpr (MASKED) Masked<T>::scale(a[m], mask + step * (32 / sizeof(T)), left - step * static_cast<int>(32 / sizeof(T)));
      }
#pragma unroll
      for (int m = 0; m < M; ++m)
#pragma unroll
        for (int n = 0; n < N; ++n) multiply(Op{}, sums[m][n], a[m], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
    }
  }

  __device__ __forceinline__ void add(const Product& other) {
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][n].c[i] += other.sums[m][n].c[i];
  }

  // visit(row, column, value, value at column + 1), every pair of neighbours that this thread holds.
  template <class Visit> __device__ __forceinline__ void each_pair(Visit visit) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < M; ++m)
#pragma unroll
      for (int n = 0; n < N; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          visit(first_row() + m * 16 + lane / 4 + i * 8, first_column() + n * 8 + lane % 4 * 2, sums[m][n].c[i * 2],
                sums[m][n].c[i * 2 + 1]);
  }
};

// Tensor cores round sums toward zero, a bias that grows with the number of steps. Float32 therefore lets them add up
// one chunk at a time and adds the chunks in ordinary arithmetic; at 16-bit operands the bias drowns in their rounding.
template <class Op> constexpr bool ADDS_CHUNKS = false;
template <> constexpr bool ADDS_CHUNKS<Float32> = true;

template <class Op, bool MASKED, class P>
__device__ __forceinline__ void accumulate(P& product, const uint8_t* left, const uint8_t* right, const float* mask, int pixels) {
  if constexpr (ADDS_CHUNKS<Op>) {
    P chunk;
    chunk.clear();
    chunk.template add<MASKED>(left, right, mask, pixels);
    product.add(chunk);
  } else {
    product.template add<MASKED>(left, right, mask, pixels);
  }
}

template <class T> __device__ __forceinline__ Source<T> image_of(const Layer& layer, int n, bool rows_are_pixels) {
  const long long* stride = layer.feature_stride;
  return {static_cast<const T*>(layer.features) + n * stride[0], stride[1], stride[2], stride[3],
          rows_are_pixels ? layer.pixels : layer.C, rows_are_pixels ? layer.C : layer.pixels,
          layer.width, layer.feature_vectors, rows_are_pixels};
}

// The layer that owns this block; its index comes out relative to the layer's first.
__device__ __forceinline__ const Layer& layer_of(const Group& group, int Layer::*first, int& index) {
  int l = group.layers - 1;
  while (l > 0 && index < group.layer[l].*first) --l;
  index -= group.layer[l].*first;
  return group.layer[l];
}

// ---- forward ----

__device__ __forceinline__ int tiles_on_a_side(const Layer& layer) { return (layer.C + layer.tile - 1) / layer.tile; }

// First chunk of a gang's run; a layer's images lie behind one another on one line of chunks.
__device__ __forceinline__ int run_start(const Layer& layer, int gang) {
  return static_cast<int>(static_cast<long long>(gang) * layer.N * layer.chunks / layer.gangs);
}

// A chunk on the layer's line, as the chunk of an image and the stage of the ring that holds it. Counted, because divisions
// would take more instructions than the chunk's products.
template <int STAGES> struct Position {
  int image, chunk, stage = 0, round = 0;
  __device__ __forceinline__ Position(const Layer& layer, int start) : image(start / layer.chunks), chunk(start % layer.chunks) {}
  __device__ __forceinline__ void advance(int chunks) {
    if (++chunk == chunks) { chunk = 0; ++image; }
    if (++stage == STAGES) { stage = 0; ++round; }
  }
};

// What a block of forward computes: a tile of G's upper triangle, over one gang's run of chunks.
struct Task {
  const Layer& layer;
  int gang, tile, tiles, tile_row = 0, tile_column;

  __device__ __forceinline__ Task(const Layer& layer, int index) : layer(layer) {
    const int side = tiles_on_a_side(layer);
    tiles = side * (side + 1) / 2;
    gang = index / tiles;
    tile = tile_column = index % tiles;
    while (tile_column >= side - tile_row) tile_column -= side - tile_row++;
    tile_column += tile_row;
  }
  // Image n's share of the run: gang + n numbers all such shares of a layer, for both only grow along the line.
  __device__ __forceinline__ float* partial(int n, int side) const {
    return layer.partial + (static_cast<long long>(gang + n) * tiles + tile) * side * side;
  }
};

template <class Op, int TILE, bool DIAGONAL, bool PIXELS_INNER, bool MASKED>
__device__ void forward_tile(const Task& task, uint8_t* shared) {
  using T = typename Op::type;
  using Side = Panel<T, TILE, PIXELS_INNER>;
  // The diagonal has one panel a stage, and so the room for twice the stages.
  constexpr int STAGE_BYTES = Side::BYTES * (DIAGONAL ? 1 : 2);
  constexpr int STAGES = SHARED_BYTES / STAGE_BYTES < 8 ? SHARED_BYTES / STAGE_BYTES : 8;
  const Layer& layer = task.layer;
  const int start = run_start(layer, task.gang), stop = run_start(layer, task.gang + 1);

  Position<STAGES> loaded(layer, start), used = loaded;

  const auto load = [&](bool more) {
    if (more) {
      const Source<T> source = image_of<T>(layer, loaded.image, !PIXELS_INNER);
      uint8_t* stage = shared + loaded.stage * STAGE_BYTES;
      Side::load(stage, source, task.tile_row * TILE, loaded.chunk * Side::CHUNK);
      if (!DIAGONAL) Side::load(stage + Side::BYTES, source, task.tile_column * TILE, loaded.chunk * Side::CHUNK);
      loaded.advance(layer.chunks);
    }
    commit_stage();  // also past the end, so that the count of pending stages stays the same
  };

  Product<Op, Side, Side, TILE, TILE> product;
  product.clear();
#pragma unroll 1
  for (int chunk = start - (STAGES - 1); chunk < stop; ++chunk) {  // the first rounds only fill the ring
    wait_for_stage<STAGES - 2>();
    __syncthreads();  // this stage has arrived for all threads, and the one before it is read by none any more
    load(chunk + STAGES - 1 < stop);
    if (chunk < start) continue;
    const int n = used.image, first_pixel = used.chunk * Side::CHUNK;
    const uint8_t* stage = shared + used.stage * STAGE_BYTES;
    const float* mask = MASKED ? layer.mask + static_cast<long long>(n) * layer.pixels + first_pixel : nullptr;
    accumulate<Op, MASKED>(product, stage, DIAGONAL ? stage : stage + Side::BYTES, mask, layer.pixels - first_pixel);
    used.advance(layer.chunks);
    if (chunk + 1 == stop || used.chunk == 0) {
      float* out = task.partial(n, TILE);
      product.each_pair([&](int row, int column, float x, float y) {
        *reinterpret_cast<float2*>(out + row * TILE + column) = make_float2(x, y);
      });
      product.clear();
    }
  }
}

template <class Op, bool PIXELS_INNER, bool MASKED> __device__ __forceinline__ void run_tile(const Task& task, uint8_t* shared) {
  if (task.layer.tile == 64)  // only up to 64 channels: one tile, on the diagonal
    forward_tile<Op, 64, true, PIXELS_INNER, MASKED>(task, shared);
  else if (task.tile_row == task.tile_column)
    forward_tile<Op, 128, true, PIXELS_INNER, MASKED>(task, shared);
  else
    forward_tile<Op, 128, false, PIXELS_INNER, MASKED>(task, shared);
}

// The finish, which a forward launch precedes, counts and takes maxima.
__device__ __forceinline__ void prepare_finish(const Group& group) {
  if (blockIdx.x) return;
  if (threadIdx.x == 0) *group.ticket = 0;
  for (int l = 0; l < group.layers; ++l)
    if (group.layer[l].peak)
      for (int n = threadIdx.x; n < group.layer[l].N; n += THREADS) group.layer[l].peak[n] = 0;
}

template <class Op, bool PIXELS_INNER> __device__ __forceinline__ void forward(const Group& group) {
  extern __shared__ __align__(1024) uint8_t shared[];
  prepare_finish(group);
  int index = blockIdx.x;
  const Layer& layer = layer_of(group, &Layer::first_forward, index);
  const Task task(layer, index);
  // The mask is settled here, since a test for it between the products would keep loads and products in series.
  if (layer.mask)
    run_tile<Op, PIXELS_INNER, true>(task, shared);
  else
    run_tile<Op, PIXELS_INNER, false>(task, shared);
}

// ---- forward on Hopper ----

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// Tiles, runs and partials are as above; 16-bit types, no masks, rows that start on 16 bytes. A panel is one or two SQUAREs of
// 64 channels x 64 pixels. One thread asks for them; the copying engine writes zeros beyond the map's edges and counts bytes on a
// barrier in shared memory. It swizzles as the tensor cores read, so that neither addresses nor fragments take issue slots.
constexpr int SQUARE = 64;
constexpr int SQUARE_BYTES = SQUARE * ROW_BYTES;
constexpr int WARPGROUP = 128;
constexpr int MOST_STAGES = 8;  // whose barriers lie behind the stages; kernels/module.py adds their bytes

__device__ __forceinline__ void make_barriers(uint32_t barriers, int count) {
  for (int i = 0; i < count; ++i) asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(barriers + i * 8) : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // the copying engine will count on them
}

// This round of the barrier is over when as many bytes have arrived.
__device__ __forceinline__ void expect_bytes(uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void wait_for_bytes(uint32_t barrier, int round) {
  uint32_t arrived;
  do {
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(arrived) : "r"(barrier), "r"(round % 2) : "memory");
  } while (!arrived);
}

// The square whose first element along the map's inner and outer axis is given.
__device__ __forceinline__ void copy_square(uint32_t to, const TensorMap* map, int inner, int outer, int image, uint32_t barrier) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
               ::"r"(to), "l"(map), "r"(inner), "r"(outer), "r"(image), "r"(barrier) : "memory");
}

template <int SQUARES, bool PIXELS_INNER>
__device__ __forceinline__ void copy_panel(uint32_t to, const TensorMap* map, int channel, int pixel, int image, uint32_t barrier) {
#pragma unroll
  for (int square = 0; square < SQUARES; ++square, to += SQUARE_BYTES, channel += SQUARE)
    copy_square(to, map, PIXELS_INNER ? pixel : channel, PIXELS_INNER ? channel : pixel, image, barrier);
}

// A square as an operand: lines of 128 bytes, swizzled in groups of eight, which lie 1024 bytes apart.
__device__ __forceinline__ uint64_t operand(uint32_t address) {
  constexpr uint64_t SWIZZLED = 1ull << 62, GROUP = (1024ull >> 4) << 32;
  return SWIZZLED | GROUP | (address & 0x3ffff) >> 4;
}

// From one 16 pixels of a square to the next, in an operand's units: along its lines, or down.
template <bool PIXELS_INNER> constexpr int OPERAND_STEP = (PIXELS_INNER ? 32 : 16 * ROW_BYTES) >> 4;

// 64 x 64 sums += left x right^T over 16 pixels. A warp has 16 rows; s[n] as above, 8 columns on from n to n.
template <int CHANNELS_INNER> __device__ __forceinline__ void multiply_squares(Float16, Sums* s, uint64_t left, uint64_t right) {
  asm volatile("{ .reg .pred p; setp.eq.u32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
               "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
               "%32, %33, p, 1, 1, %34, %34; }"
               : "+f"(s[0].c[0]), "+f"(s[0].c[1]), "+f"(s[0].c[2]), "+f"(s[0].c[3]), "+f"(s[1].c[0]), "+f"(s[1].c[1]),
                 "+f"(s[1].c[2]), "+f"(s[1].c[3]), "+f"(s[2].c[0]), "+f"(s[2].c[1]), "+f"(s[2].c[2]), "+f"(s[2].c[3]),
                 "+f"(s[3].c[0]), "+f"(s[3].c[1]), "+f"(s[3].c[2]), "+f"(s[3].c[3]), "+f"(s[4].c[0]), "+f"(s[4].c[1]),
                 "+f"(s[4].c[2]), "+f"(s[4].c[3]), "+f"(s[5].c[0]), "+f"(s[5].c[1]), "+f"(s[5].c[2]), "+f"(s[5].c[3]),
                 "+f"(s[6].c[0]), "+f"(s[6].c[1]), "+f"(s[6].c[2]), "+f"(s[6].c[3]), "+f"(s[7].c[0]), "+f"(s[7].c[1]),
                 "+f"(s[7].c[2]), "+f"(s[7].c[3])
               : "l"(left), "l"(right), "n"(CHANNELS_INNER));
}
template <int CHANNELS_INNER> __device__ __forceinline__ void multiply_squares(Bfloat16, Sums* s, uint64_t left, uint64_t right) {
  asm volatile("{ .reg .pred p; setp.eq.u32 p, 0, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
               "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
               "%32, %33, p, 1, 1, %34, %34; }"
               : "+f"(s[0].c[0]), "+f"(s[0].c[1]), "+f"(s[0].c[2]), "+f"(s[0].c[3]), "+f"(s[1].c[0]), "+f"(s[1].c[1]),
                 "+f"(s[1].c[2]), "+f"(s[1].c[3]), "+f"(s[2].c[0]), "+f"(s[2].c[1]), "+f"(s[2].c[2]), "+f"(s[2].c[3]),
                 "+f"(s[3].c[0]), "+f"(s[3].c[1]), "+f"(s[3].c[2]), "+f"(s[3].c[3]), "+f"(s[4].c[0]), "+f"(s[4].c[1]),
                 "+f"(s[4].c[2]), "+f"(s[4].c[3]), "+f"(s[5].c[0]), "+f"(s[5].c[1]), "+f"(s[5].c[2]), "+f"(s[5].c[3]),
                 "+f"(s[6].c[0]), "+f"(s[6].c[1]), "+f"(s[6].c[2]), "+f"(s[6].c[3]), "+f"(s[7].c[0]), "+f"(s[7].c[1]),
                 "+f"(s[7].c[2]), "+f"(s[7].c[3])
               : "l"(left), "l"(right), "n"(CHANNELS_INNER));
}

// 64 rows of a tile, which one warpgroup holds.
template <class Op, int SQUARES, bool PIXELS_INNER> struct WarpgroupProduct {
  static constexpr int COLUMNS = SQUARES * SQUARE;
  Sums sums[COLUMNS / 8];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < COLUMNS / 8; ++i) sums[i] = {};
  }
  // Products write these registers unseen: no other use of them may move past here.
  __device__ __forceinline__ void hold() {
#pragma unroll
    for (int i = 0; i < COLUMNS / 8; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k) asm volatile("" : "+f"(sums[i].c[k])::"memory");
  }

  __device__ __forceinline__ void add(uint32_t left_square, uint32_t right_panel) {
    const uint64_t left = operand(left_square), right = operand(right_panel);
    hold();
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int step = 0; step < SQUARE / 16; ++step)
#pragma unroll
      for (int square = 0; square < SQUARES; ++square)
        multiply_squares<!PIXELS_INNER>(Op{}, sums + square * (SQUARE / 8), left + step * OPERAND_STEP<PIXELS_INNER>,
                                        right + square * (SQUARE_BYTES >> 4) + step * OPERAND_STEP<PIXELS_INNER>);
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(0) : "memory");
    hold();
  }

  __device__ __forceinline__ void store(float* tile, int first_row) const {
    const int lane = threadIdx.x % 32, row = first_row + threadIdx.x % WARPGROUP / 32 * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < COLUMNS / 8; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<float2*>(tile + (row + half * 8) * COLUMNS + i * 8 + lane % 4 * 2) =
            make_float2(sums[i].c[half * 2], sums[i].c[half * 2 + 1]);
  }
};

template <class Op, int SQUARES, bool DIAGONAL, bool PIXELS_INNER>
__device__ void forward_tile_by_warpgroups(const Task& task, const TensorMap* map, uint8_t* memory) {
  constexpr int TILE = SQUARES * SQUARE, PANEL = SQUARES * SQUARE_BYTES, STAGE_BYTES = PANEL * (DIAGONAL ? 1 : 2);
  constexpr int STAGES = SHARED_BYTES / STAGE_BYTES < MOST_STAGES ? SHARED_BYTES / STAGE_BYTES : MOST_STAGES;
  const Layer& layer = task.layer;
  const int start = run_start(layer, task.gang), stop = run_start(layer, task.gang + 1);
  const uint32_t shared = shared_address(memory), barriers = shared + SHARED_BYTES;
  const int warpgroup = threadIdx.x / WARPGROUP;  // of which a tile of one square needs only the first
  Position<STAGES> loaded(layer, start), used = loaded;

  const auto load = [&] {
    const uint32_t stage = shared + loaded.stage * STAGE_BYTES, barrier = barriers + loaded.stage * 8;
    expect_bytes(barrier, STAGE_BYTES);
    copy_panel<SQUARES, PIXELS_INNER>(stage, map, task.tile_row * TILE, loaded.chunk * SQUARE, loaded.image, barrier);
    if (!DIAGONAL)
      copy_panel<SQUARES, PIXELS_INNER>(stage + PANEL, map, task.tile_column * TILE, loaded.chunk * SQUARE, loaded.image, barrier);
    loaded.advance(layer.chunks);
  };

  if (threadIdx.x == 0) {
    make_barriers(barriers, STAGES);
    for (int chunk = start; chunk < min(stop, start + STAGES); ++chunk) load();
  }
  __syncthreads();  // the barriers are made

  WarpgroupProduct<Op, SQUARES, PIXELS_INNER> product;
  product.clear();
#pragma unroll 1
  for (int chunk = start; chunk < stop; ++chunk) {
    const uint32_t stage = shared + used.stage * STAGE_BYTES;
    if (warpgroup < SQUARES) {
      wait_for_bytes(barriers + used.stage * 8, used.round);
      product.add(stage + warpgroup * SQUARE_BYTES, DIAGONAL ? stage : stage + PANEL);
    }
    __syncthreads();  // this stage is read by none any more
    if (threadIdx.x == 0 && chunk + STAGES < stop) load();
    __syncwarp();  // products want whole warps
    const int n = used.image;
    used.advance(layer.chunks);
    if (warpgroup < SQUARES && (chunk + 1 == stop || used.chunk == 0)) {
      product.store(task.partial(n, TILE), warpgroup * SQUARE);
      product.clear();
    }
  }
}

template <class Op, bool PIXELS_INNER>
__device__ __forceinline__ void forward_by_warpgroups(const Group& group, const TensorMaps& maps) {
  extern __shared__ __align__(1024) uint8_t shared[];  // a swizzle repeats every 1024 bytes, from where it begins
  prepare_finish(group);
  int index = blockIdx.x;
  const Layer& layer = layer_of(group, &Layer::first_forward, index);
  const Task task(layer, index);
  const TensorMap* map = &maps.of_layer[&layer - group.layer];
  if (layer.tile == 64)
    forward_tile_by_warpgroups<Op, 1, true, PIXELS_INNER>(task, map, shared);
  else if (task.tile_row == task.tile_column)
    forward_tile_by_warpgroups<Op, 2, true, PIXELS_INNER>(task, map, shared);
  else
    forward_tile_by_warpgroups<Op, 2, false, PIXELS_INNER>(task, map, shared);
}

#endif  // Hopper

// ---- finish ----

// Adds the block's values up in a fixed tree; the result is thread 0's.
template <class T> __device__ __forceinline__ T sum_of_block(T value) {
  __shared__ T of_warp[THREADS / 32];
  for (int step = 16; step; step /= 2) value += __shfl_down_sync(~0u, value, step);
  __syncthreads();  // the last call's values are read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();  // all warps' values are there
  T sum = 0;
  if (threadIdx.x == 0)
    for (int warp = 0; warp < THREADS / 32; ++warp) sum += of_warp[warp];
  return sum;
}

// What a block of gram_finish owns: STRIP rows x BLOCK columns of the upper triangle, one element a thread, and their mirror
// image, of which a thread has another element, so that neighbours touch neighbours there too.
struct Strip {
  const int row, column, C;  // its first element, and the side of G
  const int y = threadIdx.x / BLOCK, x = threadIdx.x % BLOCK;        // (row + y, column + x)
  const int down = threadIdx.x / STRIP, across = threadIdx.x % STRIP;  // (column + down, row + across) in the image

  __device__ __forceinline__ bool inside() const { return row + y <= column + x && column + x < C; }
  // The diagonal is its own image, and written once.
  __device__ __forceinline__ bool has_image() const { return row + across < column + down && column + down < C; }
  __device__ __forceinline__ long long here() const { return static_cast<long long>(row + y) * C + column + x; }
  __device__ __forceinline__ long long there() const { return static_cast<long long>(column + down) * C + row + across; }
};

// The gangs' shares of image n's G at this thread's element, added in a fixed order: WAYS threads take every fourth gang each, of four
// neighbouring columns, with AT_ONCE loads under way, for shares lie far off, in L2, and may be hundreds.
__device__ __forceinline__ float gathered(const Layer& layer, int n, const Strip& strip) {
  constexpr int WAYS = 4, AT_ONCE = 16, COLUMNS = 4;
  static_assert(WAYS * STRIP * BLOCK / COLUMNS == THREADS, "every thread has its part");
  __shared__ float4 sum_of_way[WAYS][STRIP][BLOCK / COLUMNS];
  const int side = tiles_on_a_side(layer), tiles = side * (side + 1) / 2;
  const int tile_row = strip.row / layer.tile, tile_column = strip.column / layer.tile;
  const int tile = tile_row * side - tile_row * (tile_row - 1) / 2 + tile_column - tile_row;
  const int area = layer.tile * layer.tile;
  const long long line = static_cast<long long>(layer.N) * layer.chunks;
  // Gang g runs from floor(g line / gangs): the one that holds chunk c is floor(((c + 1) gangs - 1) / line).
  const int first = static_cast<int>((static_cast<long long>(n) * layer.chunks * layer.gangs + layer.gangs - 1) / line);
  const int last = static_cast<int>((static_cast<long long>(n + 1) * layer.chunks * layer.gangs - 1) / line);

  const int way = threadIdx.x / (THREADS / WAYS), y = threadIdx.x % (THREADS / WAYS) / (BLOCK / COLUMNS);
  const int x = threadIdx.x % (BLOCK / COLUMNS) * COLUMNS;
  const float* at = layer.partial + (static_cast<long long>(first + way + n) * tiles + tile) * area +
                    (strip.row + y) % layer.tile * layer.tile + strip.column % layer.tile + x;
  const long long step = static_cast<long long>(WAYS) * tiles * area;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 1
  for (int gang = first + way; gang <= last; gang += WAYS * AT_ONCE, at += AT_ONCE * step) {
    float4 share[AT_ONCE];
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i)
      share[i] = gang + i * WAYS <= last ? __ldcg(reinterpret_cast<const float4*>(at + i * step)) : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) sum = make_float4(sum.x + share[i].x, sum.y + share[i].y, sum.z + share[i].z, sum.w + share[i].w);
  }
  sum_of_way[way][y][x / COLUMNS] = sum;
  __syncthreads();  // all ways' sums are there
  float all = 0;
#pragma unroll
  for (int i = 0; i < WAYS; ++i) all += reinterpret_cast<const float*>(sum_of_way[i][strip.y])[strip.x];
  return all;
}

struct Values { float at[STRIP][BLOCK + 4]; };  // the gap lets a warp read it transposed and meet every bank once

__device__ __forceinline__ void write(float* matrix, const Strip& strip, const Values& values) {
  if (strip.inside()) matrix[strip.here()] = values.at[strip.y][strip.x];
  if (strip.has_image()) matrix[strip.there()] = values.at[strip.across][strip.down];
}

__device__ __forceinline__ float finish_strip(const Layer& layer, int n, const Strip& strip) {
  __shared__ Values gram, target_image;
  const int C = layer.C;
  const float area = layer.area ? layer.area[n] : static_cast<float>(layer.pixels);
  const float scale = area > 0 ? 1.f / (C * area) : 0.f;
  const float* target = layer.target ? layer.target + n * layer.target_stride : nullptr;
  const long long matrix = static_cast<long long>(n) * C * C;
  const float share = gathered(layer, n, strip), value = strip.inside() ? scale * share : 0.f;
  gram.at[strip.y][strip.x] = value;
  if (target) target_image.at[strip.across][strip.down] = strip.has_image() ? target[strip.there()] : 0.f;
  __syncthreads();  // G and the target's image are whole
  if (layer.gram) write(layer.gram + matrix, strip, gram);
  if (!target) return 0.f;

  const bool on_diagonal = strip.row + strip.y == strip.column + strip.x;
  const float here = strip.inside() ? value - target[strip.here()] : 0.f;
  const float there = on_diagonal || !strip.inside() ? here : value - target_image.at[strip.y][strip.x];
  // A target that is not symmetric pulls with the mean of its two halves.
  const float difference = 0.5f * (here + there);
  if (layer.difference) {
    __syncthreads();  // G is written out, and its place free for D
    gram.at[strip.y][strip.x] = difference;
    __syncthreads();  // D is whole
    write(layer.difference + matrix, strip, gram);
    float peak = fabsf(difference);
    for (int step = 16; step; step /= 2) peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, step));
    if (threadIdx.x % 32 == 0) atomicMax(layer.peak + n, __float_as_uint(peak));  // a maximum does not depend on the order
  }
  return (on_diagonal ? here * here : here * here + there * there) * layer.loss_scale;
}

__device__ __forceinline__ void finish(const Group& group) {
  int index = blockIdx.x;
  const Layer& layer = layer_of(group, &Layer::first_finish, index);
  constexpr int STRIPS = BLOCK / STRIP;  // of a square of the upper triangle
  const int side = (layer.C + BLOCK - 1) / BLOCK, strips = side * (side + 1) / 2 * STRIPS;
  int row = 0, column = index % strips / STRIPS;
  while (column >= side - row) column -= side - row++;
  const Strip strip = {row * BLOCK + index % STRIPS * STRIP, (row + column) * BLOCK, layer.C};
  const float part = sum_of_block(finish_strip(layer, index / strips, strip));
  if (!group.loss) return;
  __shared__ bool is_last;
  if (threadIdx.x == 0) {
    group.loss_part[blockIdx.x] = part;
    __threadfence();  // the part is seen by whoever sees the count
    is_last = atomicAdd(group.ticket, 1) == gridDim.x - 1;
  }
  __syncthreads();  // thread 0 has drawn the ticket
  if (!is_last) return;
  __threadfence();
  double sum = 0;
  for (int i = threadIdx.x; i < gridDim.x; i += THREADS) sum += __ldcg(group.loss_part + i);
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) *group.loss = static_cast<float>(sum);
}

// ---- backward ----

// float16 has too few exponents for gradients: D is multiplied by the power of two that brings its largest element just under
// 2^14, and the sums by the inverse. 19 binades below the largest element are then still held to full precision.
template <class T> __device__ __forceinline__ int operand_exponent(const Layer&, int) { return 0; }
template <> __device__ __forceinline__ int operand_exponent<__half>(const Layer& layer, int n) {
  const float peak = __uint_as_float(layer.peak[n]);
  const float infinity = __uint_as_float(0x7f800000);  // INFINITY is <math.h>'s, which NVRTC does not have
  return peak > 0 && peak < infinity ? 13 - ilogbf(peak) : 0;
}

template <class Op> __device__ __forceinline__ void pack(const Group& group) {
  using T = typename Op::type;
  int index = blockIdx.x;
  const Layer& layer = layer_of(group, &Layer::first_pack, index);
  const int n = index / layer.C;
  const int exponent = operand_exponent<T>(layer, n);
  const float* from = layer.difference + static_cast<long long>(index) * layer.C;
  T* to = static_cast<T*>(layer.packed) + static_cast<long long>(index) * layer.packed_stride;
  for (int i = threadIdx.x; i < layer.packed_stride; i += blockDim.x)
    to[i] = from_float<T>(i < layer.C ? scalbnf(from[i], exponent) : 0.f);
}

// A finished tile waits in shared memory, in F's layout, so that it leaves in 16-byte units.
template <class T, int CHANNELS, int PIXELS, bool PIXELS_INNER> struct Staged {
  static constexpr int UNIT = 16 / sizeof(T);
  static constexpr int LINES = PIXELS_INNER ? CHANNELS : PIXELS, LENGTH = PIXELS_INNER ? PIXELS : CHANNELS;
  static constexpr int PITCH = LENGTH + UNIT;  // lines start four banks apart
  static_assert(LINES * PITCH * sizeof(T) <= SHARED_BYTES, "the tile fits where the stages were");

  static __device__ __forceinline__ int at(int channel, int pixel) {
    return PIXELS_INNER ? channel * PITCH + pixel : pixel * PITCH + channel;
  }

  static __device__ void leave(const T* tile, const Layer& layer, int n, int first_channel, int first_pixel) {
    const long long* stride = layer.gradient_stride;
    T* image = static_cast<T*>(layer.gradient) + n * stride[0];
    for (int i = threadIdx.x; i < LINES * (LENGTH / UNIT); i += THREADS) {
      const int line = i / (LENGTH / UNIT), inner = i % (LENGTH / UNIT) * UNIT;
      const int channel = first_channel + (PIXELS_INNER ? line : inner), pixel = first_pixel + (PIXELS_INNER ? inner : line);
      const bool whole = PIXELS_INNER ? channel < layer.C && pixel + UNIT <= layer.pixels
                                      : pixel < layer.pixels && channel + UNIT <= layer.C;
      uint4 unit = *reinterpret_cast<const uint4*>(tile + line * PITCH + inner);
      if (whole && layer.gradient_vectors) {
        uint4* to = reinterpret_cast<uint4*>(image + channel * (PIXELS_INNER ? stride[1] : 1) + pixel * (PIXELS_INNER ? 1 : stride[3]));
        if (layer.accumulate) add_unit(unit, *to);
        *to = unit;
        continue;
      }
      const T* value = reinterpret_cast<const T*>(&unit);
      for (int e = 0; e < UNIT; ++e) {
        const int c = channel + (PIXELS_INNER ? 0 : e), p = pixel + (PIXELS_INNER ? e : 0);
        if (c >= layer.C || p >= layer.pixels) break;
        T* to = image + c * stride[1] + p / layer.width * stride[2] + p % layer.width * stride[3];
        *to = layer.accumulate ? from_float<T>(to_float(*to) + to_float(value[e])) : value[e];
      }
    }
  }

  static __device__ __forceinline__ void add_unit(uint4& unit, const uint4& other) {
    T* value = reinterpret_cast<T*>(&unit);
    const T* more = reinterpret_cast<const T*>(&other);
#pragma unroll
    for (int e = 0; e < UNIT; ++e) value[e] = from_float<T>(to_float(value[e]) + to_float(more[e]));
  }
};

// 128 pixels of 16-bit elements, 64 of float32: lines of 256 bytes, and a staged tile that fits.
template <class T> constexpr int BACKWARD_PIXELS = 256 / sizeof(T);

template <class Op, int CHANNELS, bool PIXELS_INNER>
__device__ void backward_tile(const Group& group, const Layer& layer, int n, int first_channel, int first_pixel, uint8_t* shared) {
  using T = typename Op::type;
  constexpr int PIXELS = BACKWARD_PIXELS<T>;
  using Left = Panel<T, CHANNELS, true>;           // rows of D
  using Right = Panel<T, PIXELS, !PIXELS_INNER>;   // F: k is the channel here
  constexpr int STAGE_BYTES = Left::BYTES + Right::BYTES;
  constexpr int STAGES = SHARED_BYTES / STAGE_BYTES < 4 ? SHARED_BYTES / STAGE_BYTES : 4;
  const int chunks = (layer.C + Left::CHUNK - 1) / Left::CHUNK;
  const Source<T> difference = {static_cast<const T*>(layer.packed) + static_cast<long long>(n) * layer.C * layer.packed_stride,
                                layer.packed_stride, 0, 1, layer.C, layer.packed_stride, 1, 1, false};
  const Source<T> features = image_of<T>(layer, n, !PIXELS_INNER);

  const auto load = [&](int chunk) {
    if (chunk < chunks) {
      uint8_t* stage = shared + chunk % STAGES * STAGE_BYTES;
      Left::load(stage, difference, first_channel, chunk * Left::CHUNK);
      Right::load(stage + Left::BYTES, features, first_pixel, chunk * Left::CHUNK);
    }
    commit_stage();
  };

  Product<Op, Left, Right, CHANNELS, PIXELS> product;
  product.clear();
#pragma unroll 1
  for (int chunk = 1 - STAGES; chunk < chunks; ++chunk) {  // the first rounds only fill the ring
    wait_for_stage<STAGES - 2>();
    __syncthreads();  // this stage has arrived for all threads, and the one before it is read by none any more
    load(chunk + STAGES - 1);
    if (chunk < 0) continue;
    const uint8_t* stage = shared + chunk % STAGES * STAGE_BYTES;
    accumulate<Op, false>(product, stage, stage + Left::BYTES, nullptr, 0);
  }

  const float area = layer.area ? layer.area[n] : static_cast<float>(layer.pixels);
  const float upstream = group.upstream ? *group.upstream : 1.f;
  const float scale = area > 0 ? scalbnf(upstream * layer.gradient_scale / area, -operand_exponent<T>(layer, n)) : 0.f;
  const float* mask = layer.mask ? layer.mask + static_cast<long long>(n) * layer.pixels + first_pixel : nullptr;
  using Tile = Staged<T, CHANNELS, PIXELS, PIXELS_INNER>;
  T* tile = reinterpret_cast<T*>(shared);
  wait_for_stage<0>();
  __syncthreads();  // the last stage is read by none any more, and the tile may take its place
  product.each_pair([&](int row, int column, float x, float y) {
    const int left = layer.pixels - first_pixel;
    tile[Tile::at(row, column)] = from_float<T>(x * scale * (mask ? mask_at(mask, left, column) : 1.f));
    tile[Tile::at(row, column + 1)] = from_float<T>(y * scale * (mask ? mask_at(mask, left, column + 1) : 1.f));
  });
  __syncthreads();  // the tile is whole
  Tile::leave(tile, layer, n, first_channel, first_pixel);
}

template <class Op, bool PIXELS_INNER> __device__ __forceinline__ void backward(const Group& group) {
  extern __shared__ __align__(1024) uint8_t shared[];
  int index = blockIdx.x;
  const Layer& layer = layer_of(group, &Layer::first_backward, index);
  constexpr int PIXELS = BACKWARD_PIXELS<typename Op::type>;
  // Neighbouring blocks share their pixels, so that all but the first find F in L2.
  const int side = tiles_on_a_side(layer), strips = (layer.pixels + PIXELS - 1) / PIXELS;
  const int first_channel = index % side * layer.tile;
  const int n = index / side / strips, first_pixel = index / side % strips * PIXELS;
  if (layer.tile == 64)
    backward_tile<Op, 64, PIXELS_INNER>(group, layer, n, first_channel, first_pixel, shared);
  else
    backward_tile<Op, 128, PIXELS_INNER>(group, layer, n, first_channel, first_pixel, shared);
}

}  // namespace

// Blocks that share a multiprocessor, for which the compiler saves registers: two where shared memory has room for two.
// Float32 keeps a second set of accumulators, which leaves registers for one.
#ifndef GRAM_RESIDENT
#if __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000 || __CUDA_ARCH__ == 1100
#define GRAM_RESIDENT 2
#else
#define GRAM_RESIDENT 1
#endif
#endif

#define GRAM_KERNELS(NAME, OP, RESIDENT)                                                                              \
  extern "C" __global__ __launch_bounds__(THREADS, RESIDENT) void gram_forward_##NAME##_nchw(                         \
      const __grid_constant__ Group group) { forward<OP, true>(group); }                                              \
  extern "C" __global__ __launch_bounds__(THREADS, RESIDENT) void gram_forward_##NAME##_nhwc(                         \
      const __grid_constant__ Group group) { forward<OP, false>(group); }                                             \
  extern "C" __global__ __launch_bounds__(THREADS, RESIDENT) void gram_backward_##NAME##_nchw(                        \
      const __grid_constant__ Group group) { backward<OP, true>(group); }                                             \
  extern "C" __global__ __launch_bounds__(THREADS, RESIDENT) void gram_backward_##NAME##_nhwc(                        \
      const __grid_constant__ Group group) { backward<OP, false>(group); }                                            \
  extern "C" __global__ __launch_bounds__(128) void gram_pack_##NAME(const __grid_constant__ Group group) { pack<OP>(group); }

GRAM_KERNELS(f16, Float16, GRAM_RESIDENT)
#ifndef GRAM_ONLY_FLOAT16
GRAM_KERNELS(bf16, Bfloat16, GRAM_RESIDENT)
GRAM_KERNELS(tf32, TensorFloat32, GRAM_RESIDENT)
GRAM_KERNELS(f32, Float32, 1)
#endif

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define WARPGROUP_KERNELS(NAME, OP)                                                                                   \
  extern "C" __global__ __launch_bounds__(THREADS, GRAM_RESIDENT) void gram_forward_##NAME##_nchw_wgmma(              \
      const __grid_constant__ Group group, const __grid_constant__ TensorMaps maps) {                                 \
    forward_by_warpgroups<OP, true>(group, maps);                                                                     \
  }                                                                                                                   \
  extern "C" __global__ __launch_bounds__(THREADS, GRAM_RESIDENT) void gram_forward_##NAME##_nhwc_wgmma(              \
      const __grid_constant__ Group group, const __grid_constant__ TensorMaps maps) {                                 \
    forward_by_warpgroups<OP, false>(group, maps);                                                                    \
  }

WARPGROUP_KERNELS(f16, Float16)
#ifndef GRAM_ONLY_FLOAT16
WARPGROUP_KERNELS(bf16, Bfloat16)
#endif
#endif

// Three blocks of it: without a word the compiler makes room for six, and then has registers for two loads under way instead of 16.
extern "C" __global__ __launch_bounds__(THREADS, 3) void gram_finish(const __grid_constant__ Group group) { finish(group); }
