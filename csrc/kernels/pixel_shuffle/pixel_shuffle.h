// Blocks of patches to tokens, with the projector's LayerNorm in the same pass.
//
//   token (R, C) of tile t = concatenation over r, c < f of x[t, first + (R f + r) cols + (C f + c)], r outer
//   y[t, R (cols / f) + C] = LayerNorm(token)      order v2, row-major
//   y[t, C (rows / f) + R] = LayerNorm(token)      order v1, column-major
//   first = 1 leaves the CLS row out, 0 takes all rows. Without weight the tokens are copied.
//
//   name         shape                        dtype              notes
//   x            [T, first + rows cols, D]    f32 | bf16 | f16   last dimension contiguous, other strides free
//   weight       [f f D]                      as x               or absent
//   bias         [f f D]                      as x               or absent; absent without weight
//   y            [T, rows cols / f^2, f f D]  as x               contiguous, apart from x
//
// rows and cols are multiples of f. LayerNorm as in norm.h: statistics in fp32, one rounding at the store, the bits of
// norm() on the shuffled rows. Deterministic; a token's bits depend on its block alone. Workspace 0. Bytes:
// 2*T*rows*cols*D*s.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/tensor.h"

namespace ivk {

struct PixelShuffleParams {
    const void* x;       // at the first patch of tile 0
    const void* weight;  // [f f D] or null
    const void* bias;    // [f f D] or null
    void* y;
    int64_t rows, cols, width, factor;  // patches, patches, D, f
    int64_t stride_tile, stride_patch;  // elements
    bool column_major;                  // v1
    float eps;
};

// Tokens [begin, end), numbered over all tiles.
using PixelShuffleTokens = void (*)(const PixelShuffleParams&, int64_t begin, int64_t end);
struct PixelShuffleTable {
    PixelShuffleTokens f32, bf16, f16;
};
IVK_DECLARE_TABLE(PixelShuffleTable, pixel_shuffle_table)

void pixel_shuffle(const TensorView& x, const TensorView& weight, const TensorView& bias, const TensorView& y,
                   int64_t rows, int64_t cols, int64_t factor, bool column_major, bool drop_cls, float eps,
                   int threads);

}  // namespace ivk
