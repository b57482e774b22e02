// y = epilogue(x @ weight^T + bias), every product of the tower and of the language model.
//
//   name      shape    dtype              notes
//   x         [M, K]   f32 | bf16 | f16   last dimension contiguous, any row stride >= K; `rows`: row i is x[rows[i]]
//   weight    [N, K]   f32 | bf16 | f16   its own dtype; plain rows, or packed once (below)
//   bias      [N]      as x               or absent
//   scale     [N]      as x               `residual` only, or absent (1)
//   residual  [M, N]   as x               `residual` only; may be y itself
//   y         [M, Ny]  as x               last dimension contiguous, any row stride >= Ny; apart from the other inputs
//
//   epilogue   y                                            Ny
//   linear     v = x @ weight^T + bias                      N
//   gelu       v * Phi(v), the exact (erf) GELU             N
//   swiglu     silu(v[:, :N/2]) * v[:, N/2:]                N/2
//   residual   residual + scale * v                         N
//
// All arithmetic in fp32: products are chains of fused multiply-adds over kDepth consecutive k, ascending, each chain
// from zero; the chains are added in ascending order; then the bias and the epilogue, and one rounding at the store.
// So the bits of y[i, j] depend on row i of x, row j of weight (and their epilogue operands) and on whether the ISA
// level has fused multiply-add (base: two roundings; v3 and v4: equal bits), never on M, N, the packing, or the
// threads.
//
// Packed: panels of kPanel rows of weight, [panel][K][kPanel], in pairs (a tile); rows past N are zero. With `swiglu` a
// tile is kPanel gate rows and the kPanel up rows that belong to them. Plain rows are packed piecewise in scratch, once
// for every kStagedBlock rows of x.
//
// Floor: 2*M*N*K flops; bytes M*K*s + N*K*s + M*Ny*s. Workspace: per thread gemm_scratch(B, K, N's tiles) floats, kept
// by the thread for the next call; B = kRowBlock for packed weights, kStagedBlock for plain ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/isa.h"
#include "core/panels.h"
#include "core/tensor.h"

namespace ivk {

constexpr int64_t kDepth = 256;        // k of one chain: 32 KiB of a tile's weights
constexpr int64_t kRowBlock = 96;      // rows of x that share a reading of the weights
constexpr int64_t kStagedBlock = 288;  // the same where weights are packed on the way
constexpr int64_t kGroup = 32;         // tiles whose partial sums a thread holds

enum class Epilogue : int { linear, gelu, swiglu, residual };

// Floats for so many rows of x: fp32 rows, the sums of a group of tiles, and one tile's weights on their way.
inline int64_t gemm_scratch(int64_t rows, int64_t k, int64_t tiles) {
    return rows * (k + std::min(kGroup, tiles) * kTile) + kTile * kDepth;
}

struct PackedWeight {
    const void* data = nullptr;
    DType dtype = DType::f32;
    int64_t n = 0, k = 0;
    bool packed = false;
    int64_t stride = 0;   // of plain rows, elements
    bool swiglu = false;  // gate and up side by side
};

inline int64_t tiles_of(int64_t n, bool swiglu) {
    return swiglu ? (n / 2 + kPanel - 1) / kPanel : (n + kTile - 1) / kTile;
}
inline int64_t packed_elements(int64_t n, int64_t k, bool swiglu) { return tiles_of(n, swiglu) * kTile * k; }

struct GemmParams {
    const void* x;
    int64_t stride_x;
    const int64_t* rows;  // or null
    DType dtype;          // of x, bias, scale, residual, y
    PackedWeight weight;
    const void* bias;
    const void* scale;
    const void* residual;
    int64_t stride_r;
    void* y;
    int64_t stride_y;
    int64_t m;
    Epilogue epilogue;
};

// Rows [m_begin, m_end) of at most kRowBlock or kStagedBlock, tiles [t_begin, t_end).
using GemmBlock = void (*)(const GemmParams&, int64_t m_begin, int64_t m_end, int64_t t_begin, int64_t t_end);
// Tiles [t_begin, t_end) of a plain weight into packed panels of the same dtype.
using PackTiles = void (*)(const PackedWeight& plain, void* packed, int64_t t_begin, int64_t t_end);
struct GemmTable {
    GemmBlock block;
    PackTiles pack;
    int64_t panel_rows;  // rows of x in one call of the micro-kernel
};
IVK_DECLARE_TABLE(GemmTable, gemm_table)

// Checks the contract, then runs on at most `threads` threads (0: the default cap).
void gemm(const TensorView& x, const PackedWeight& weight, const TensorView& bias, const TensorView& scale,
          const TensorView& residual, const TensorView& y, Epilogue epilogue, int threads);
// weight [N, K] into packed [packed_elements], one dtype.
void pack_weight(const TensorView& weight, const TensorView& packed, bool swiglu, int threads);
// The memory that `count` weights, `each` elements apart, lie in.
TensorView memory_of(const PackedWeight& weight, int64_t count = 1, int64_t each = 0);
// The inner part of gemm for callers that have checked; several products share the threads.
void run_gemms(const std::vector<GemmParams>& products, int threads);

}  // namespace ivk
