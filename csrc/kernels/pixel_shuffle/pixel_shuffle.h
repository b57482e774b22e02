// Blocks of patches to tokens, with the projector's LayerNorm in the same pass.
//
//   token (R, C) of tile t = concatenation over r, c < f of x[t, first + (R f + r) cols + (C f + c)], r outer
//   y[t, R (cols / f) + C] = LayerNorm(token)      order v2, row-major
//   y[t, C (rows / f) + R] = LayerNorm(token)      order v1, column-major
//   first = 1 leaves the CLS row out, 0 takes all rows. Without weight the tokens are copied.
//
//   name         shape                        dtype              notes
//   x            [T, first + rows cols, D]    f32 | bf16 | f16   last dimension contiguous, other strides free
//   weight       [f f D]                      as x               or absent; of bf16 | f16 also where x is f32
//   bias         [f f D]                      as weight          or absent; absent without weight
//   y            [T, rows cols / f^2, f f D]  as weight, or x    contiguous, apart from x
//
// rows and cols are multiples of f. LayerNorm as in norm.h: statistics in fp32, one rounding at the store, the bits of
// norm() on the shuffled rows. Deterministic; a token's bits depend on its block alone. Workspace 0. Bytes:
// 2*T*rows*cols*D*s, and weight and bias once (pixel_shuffle_bytes).
//
// CUDA (pixel_shuffle_sm80, compute capability 8.0 and newer): every problem of the contract with f f D <= 2^30 and
// fewer than 2^31 tokens. Where all addresses and strides and D are multiples of 16 bytes a thread moves 16 bytes at
// once; other problems go element by element and give the same bits. With weight, up to 4096 vectors of 16 bytes a
// token stays in registers; longer ones are read again by each pass.
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/isa.h"
#include "core/stream.h"
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
    int64_t tiles;
    DType dtype, out;  // of x; of weight, bias and y
};

// Tokens [begin, end), numbered over all tiles.
using PixelShuffleTokens = void (*)(const PixelShuffleParams&, int64_t begin, int64_t end);
struct PixelShuffleTable {
    PixelShuffleTokens f32, bf16, f16, f32_bf16, f32_f16;
};
IVK_DECLARE_TABLE(PixelShuffleTable, pixel_shuffle_table)

// The checked problem; throws UnsupportedError.
PixelShuffleParams pixel_shuffle_problem(const TensorView& x, const TensorView& weight, const TensorView& bias,
                                         const TensorView& y, int64_t rows, int64_t cols, int64_t factor,
                                         bool column_major, bool drop_cls, float eps);
std::string describe(const PixelShuffleParams&);

inline int64_t token_count(const PixelShuffleParams& p) { return p.tiles * (p.rows / p.factor) * (p.cols / p.factor); }
// Each input read once and each output written once.
inline int64_t pixel_shuffle_bytes(const PixelShuffleParams& p) {
    const int64_t vectors = (p.weight ? 1 : 0) + (p.bias ? 1 : 0);
    const int64_t tokens = token_count(p), size = p.factor * p.factor * p.width;
    return (tokens * size_of(p.dtype) + (tokens + vectors) * size_of(p.out)) * size;
}

bool supports_pixel_shuffle_sm80(const PixelShuffleParams&, const Device&, std::string* why);
void pixel_shuffle_sm80(const PixelShuffleParams&, Stream);
void pixel_shuffle_cuda(const PixelShuffleParams&, const Device&, Stream);  // throws with every variant's reason

// CPU, on at most `threads` threads (0: the default cap).
void pixel_shuffle(const TensorView& x, const TensorView& weight, const TensorView& bias, const TensorView& y,
                   int64_t rows, int64_t cols, int64_t factor, bool column_major, bool drop_cls, float eps,
                   int threads);

}  // namespace ivk
