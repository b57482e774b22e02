// y = epilogue(x @ weight^T + bias), every product of the tower and of the language model.
//
//   name      shape    dtype              notes
//   x         [M, K]   f32 | bf16 | f16   last dimension contiguous, any row stride >= K; `rows`: row i is x[rows[i]]
//   weight    [N, K]   f32 | bf16 | f16   its own dtype; plain rows, or packed once (below)
//   bias      [N]      as x               or absent
//   scale     [N]      as x               `residual` only, or absent (1)
//   residual  [M, N]   as x, or f32       `residual` only; may be y itself
//   y         [M, Ny]  as x (residual)    last dimension contiguous, any row stride >= Ny; apart from the other inputs
//
//   epilogue   y                                            Ny
//   linear     v = x @ weight^T + bias                      N
//   gelu       v * Phi(v), the exact (erf) GELU             N
//   swiglu     silu(v[:, :N/2]) * v[:, N/2:]                N/2    with a limit, GPT-OSS's clamped form (swiglu.h)
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
// CUDA (gemm_sm80, compute capability 8.0 and newer): bf16 and f16 of one dtype, plain rows. Products by mma.m16n8k16
// into one chain over all of k, ascending from zero, whatever the tile (gemm_tiles.h). Where addresses, strides and
// rows are whole vectors of 16 bytes they move so; others go element by element with equal bits. No workspace. A norm
// of x folded in, and statistics of y for the next one (not with swiglu): gemm_fold.h. Floor: 2*M*N*K flops; bytes
// gemm_bytes. Workspace: per thread gemm_scratch(B, K, N's tiles) floats, kept for the next call; B = kRowBlock for
// packed weights, kStagedBlock for plain ones.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/isa.h"
#include "core/panels.h"
#include "core/stream.h"
#include "kernels/gemm/gemm_fold.h"

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
    DType dtype;          // of x, bias, scale
    PackedWeight weight;
    const void* bias;
    const void* scale;
    const void* residual;
    int64_t stride_r;
    void* y;
    int64_t stride_y;
    int64_t m;
    Epilogue epilogue;
    DType stream;         // of residual and y: dtype, or f32 with the residual epilogue
    GemmFoldParams fold;  // CUDA
    float limit = 0.0f;   // of swiglu; 0: none
};

// Rows of a weight [N, K] as they lie; a name of the table above. Both, and the checked problem, throw
// UnsupportedError.
PackedWeight plain_weight(const TensorView& weight, bool swiglu = false);
Epilogue epilogue_named(const std::string& name);
GemmParams gemm_problem(const TensorView& x, const PackedWeight& weight, const TensorView& bias,
                        const TensorView& scale, const TensorView& residual, const TensorView& y, Epilogue epilogue,
                        const GemmFold& fold = {}, float limit = 0.0f);
std::string describe(const GemmParams&);

// Each operand read once and y written once; the floor of the flops stands above.
inline int64_t gemm_bytes(const GemmParams& p) {
    const int64_t n = p.weight.n, columns = p.epilogue == Epilogue::swiglu ? n / 2 : n;
    const int64_t vectors = (p.bias ? n : 0) + (p.scale ? n : 0), wide = p.m * columns * (p.residual ? 2 : 1);
    return (p.m * p.weight.k + vectors) * size_of(p.dtype) + n * p.weight.k * size_of(p.weight.dtype) +
           wide * size_of(p.stream) + p.fold.bytes(p.m, n, p.weight.k);
}

bool supports_gemm_sm80(const GemmParams&, const Device&, std::string* why);
void gemm_sm80(const GemmParams&, const Device&, Stream, int tile);
// Throws UnsupportedError with every variant's reason. tile: of gemm_tiles.h; -1: the one that costs least.
void gemm_cuda(const GemmParams&, const Device&, Stream, int tile = -1);

// CPU: checks the contract, then runs on at most `threads` threads (0: the default cap).
void gemm(const TensorView& x, const PackedWeight& weight, const TensorView& bias, const TensorView& scale,
          const TensorView& residual, const TensorView& y, Epilogue epilogue, float limit, int threads);
// weight [N, K] into packed [packed_elements], one dtype.
void pack_weight(const TensorView& weight, const TensorView& packed, bool swiglu, int threads);

}  // namespace ivk
