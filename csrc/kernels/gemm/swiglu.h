// The gate of a SwiGLU layer on its own; gemm.h has it as an epilogue of the product before it.
//
//   swiglu   y = silu(x[:, :I]) * x[:, I:]      silu(g) = g / (1 + e^-g)
//   limit    y = g sigmoid(1.702 g) (u + 1)     g = min(x[:, :I], limit), u = clamp(x[:, I:], -limit, limit): GPT-OSS
//
//   name    shape        dtype              notes
//   x       [rows, 2I]   f32 | bf16 | f16   last dimension contiguous, any row stride >= 2I
//   y       [rows, I]    as x               any row stride >= I, apart from x
//
// All arithmetic in fp32, one rounding at the store; simd_math.h in core states the error of e^x and silu.
// Deterministic; an element's bits depend on its inputs alone. Workspace 0. Bytes: 3*rows*I*s.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/tensor.h"

namespace ivk {

struct SwigluParams {
    const void* x;                     // [rows, 2 cols]
    void* y;                           // [rows, cols]
    int64_t cols, stride_x, stride_y;  // elements
    float limit;                       // 0: none
};

// Columns [first, last) of one row.
using SwigluPiece = void (*)(const SwigluParams&, int64_t row, int64_t first, int64_t last);
struct SwigluTable {
    SwigluPiece f32, bf16, f16;
};
IVK_DECLARE_TABLE(SwigluTable, swiglu_table)

void swiglu(const TensorView& x, const TensorView& y, float limit, int threads);

}  // namespace ivk
