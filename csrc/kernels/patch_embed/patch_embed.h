// Pixels to the tower's input: normalise, project patches, add CLS and positions.
//
//   y[t, 0] = cls + pos[0];   y[t, 1 + n] = a[t N + n] @ weight^T + bias + pos[1 + n]
//   a[t N + gy (W/p) + gx, (c p + py) p + px] = n_c(tile t, channel c, row gy p + py, column gx p + px)
//   n_c(u) = (u / 255 - mean[c]) / std[c] in fp32 for uint8 tiles, u itself for float tiles; rounded to weight's dtype
//
//   name         shape             dtype                        notes
//   tiles        [T, H, W, 3]      uint8                        pixels of a row contiguous, other strides free
//             or [T, 3, H, W]      float32 or weight's dtype    last dimension contiguous, other strides free
//   mean, std    [3]               float32                      host values; std not 0; unused for float tiles
//   weight       [D, 3 p p]        f32 | bf16 | f16             last dimension contiguous, any row stride >= 3 p p
//   bias, cls    [D]               as weight                    contiguous
//   pos          [1 + N, D]        as weight                    contiguous, N = (H / p)(W / p)
//   y            [T, 1 + N, D]     as weight                    contiguous, apart from the inputs
//
// H and W are positive multiples of p. Deterministic; a row's bits depend on that patch alone.
//
// CPU: two passes around gemm.h's product, tile by tile: patchify makes a [N, 3 p p], add_positions takes the product
// with its bias, [N, D], rounded to weight's dtype, and adds with one rounding more. Workspace: both matrices, and a
// table of 768 values. Bytes: patchify T*H*W*3*(input + s), add_positions 3*(1+N)*D*s.
//
// CUDA (patch_embed_sm80, compute capability 8.0 and newer): one kernel, a never in global memory; bf16 and f16 of
// weight, y also float32; 3 p p up to 4096. a has the very bits of the cpu's. Products by mma.m16n8k16 into one chain
// over all of k, ascending from zero, then + bias + pos in fp32 and one rounding. Patches of 14 pixels in grids of 8 n
// columns move in whole words; rows of weight in vectors of 16 bytes where their stride is one (a view [D, 588] of
// [D, 592]), else of 8. Other problems go element by element with equal bits. No workspace.
// Floor: 2*T*N*D*3*p*p flops; bytes T*H*W*3*input + (3*p*p+3+N)*D*s + T*(1+N)*D*size of y's.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/isa.h"
#include "core/stream.h"
#include "core/tensor.h"
#include "kernels/patch_embed/patch_embed_plan.h"

namespace ivk {

struct PatchifyParams {
    const void* tiles;
    void* a;
    int64_t grid_rows, grid_cols, patch;              // patches, patches, pixels
    int64_t stride_tile, stride_channel, stride_row;  // elements
    std::array<float, 3> mean, std;
    DType tile_dtype;
};

struct PositionParams {
    const void *product, *cls, *pos;
    void* y;
    int64_t width;  // D
};

// Bands [begin, end): band b is row b % grid_rows of patches of tile b / grid_rows.
using PatchifyBands = void (*)(const PatchifyParams&, int64_t begin, int64_t end);
// Rows [begin, end) of y.
using PositionRows = void (*)(const PositionParams&, int64_t begin, int64_t end);
struct PatchEmbedTable {
    PatchifyBands patchify_f32, patchify_bf16, patchify_f16;
    PositionRows positions_f32, positions_bf16, positions_f16;
};
IVK_DECLARE_TABLE(PatchEmbedTable, patch_embed_table)

// The whole op.
struct PatchEmbedParams {
    const void *tiles, *weight, *bias, *cls, *pos;
    void* y;
    int64_t count, grid_rows, grid_cols, patch;                      // tiles, patches, patches, pixels
    int64_t stride_tile, stride_channel, stride_row, stride_column;  // elements
    int64_t stride_weight, width;                                    // elements, D
    float mean[3], std[3];
    DType tile_dtype, dtype, out;  // of tiles, of weight, of y
};

// The checked parts of the table above that concern tiles; throws UnsupportedError.
PatchifyParams tiles_problem(const TensorView& tiles, DType dtype, std::array<float, 3> mean, std::array<float, 3> std,
                             int64_t patch);
PatchEmbedParams patch_embed_problem(const TensorView& tiles, const TensorView& weight, const TensorView& bias,
                                     const TensorView& cls, const TensorView& pos, const TensorView& y,
                                     std::array<float, 3> mean, std::array<float, 3> std, int64_t patch);
std::string describe(const PatchEmbedParams&);

// Each operand read once and y written once; the floor of the flops stands above.
inline int64_t patch_embed_bytes(const PatchEmbedParams& p) {
    const int64_t patches = p.grid_rows * p.grid_cols, values = 3 * p.patch * p.patch;
    return p.count * patches * values * size_of(p.tile_dtype) +
           (values + 2 + 1 + patches) * p.width * size_of(p.dtype) + p.count * (1 + patches) * p.width * size_of(p.out);
}

bool supports_patch_embed_sm80(const PatchEmbedParams&, const Device&, std::string* why);
void patch_embed_sm80(const PatchEmbedParams&, const Device&, Stream, PatchEmbedPlan asked);
// Throws UnsupportedError with every variant's reason.
void patch_embed_cuda(const PatchEmbedParams&, const Device&, Stream, PatchEmbedPlan asked = {});

void patchify(const TensorView& tiles, const TensorView& a, std::array<float, 3> mean, std::array<float, 3> std,
              int64_t patch, int threads);
void add_positions(const TensorView& product, const TensorView& cls, const TensorView& pos, const TensorView& y,
                   int threads);

}  // namespace ivk
