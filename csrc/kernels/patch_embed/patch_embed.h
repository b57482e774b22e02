// The two passes around the patch projection, whose product is gemm.h's.
//
//   patchify        a[t N + gy (W/p) + gx, (c p + py) p + px] = n_c(tile t, channel c, row gy p + py, column gx p + px)
//                   n_c(u) = (u / 255 - mean[c]) / std[c] in fp32 for uint8 tiles, u itself for float tiles; rounded to
//                   a's dtype
//   add_positions   y[0] = cls + pos[0];   y[1 + n] = product[n] + pos[1 + n], one rounding at the store
//
//   name         shape             dtype                        notes
//   tiles        [T, H, W, 3]      uint8                        pixels of a row contiguous, other strides free
//             or [T, 3, H, W]      float32 or a's dtype         last dimension contiguous, other strides free
//   mean, std    [3]               float32                      host values; std not 0; unused for float tiles
//   a            [T N, 3 p p]      f32 | bf16 | f16             contiguous, N = (H / p)(W / p)
//   product      [N, D]            f32 | bf16 | f16             contiguous; one tile's patches times weight^T, plus
//   bias cls          [D]               as product pos          [1 + N, D]        as product contiguous y            [1
//   + N, D]        as product                   contiguous, apart from product
//
// H and W are positive multiples of p. Deterministic; a row's bits depend on that patch alone. Workspace: a table of
// 768 values. Bytes: patchify T*H*W*3*(input + s), add_positions 3*(1+N)*D*s.
#pragma once

#include <array>
#include <cstdint>

#include "core/isa.h"
#include "core/tensor.h"

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

void patchify(const TensorView& tiles, const TensorView& a, std::array<float, 3> mean, std::array<float, 3> std,
              int64_t patch, int threads);
void add_positions(const TensorView& product, const TensorView& cls, const TensorView& pos, const TensorView& y,
                   int threads);

}  // namespace ivk
