// The elementwise ends of the linear layers. The products themselves are torch's on this backend.
//
//   swiglu   y = silu(x[:, :I]) * x[:, I:]      silu(g) = g / (1 + e^-g)
//   gelu     y = x Phi(x)                       exact (erf) form, not the tanh one
//
//   name    shape                      dtype              notes
//   x       [rows, 2I] | [rows, cols]  f32 | bf16 | f16   last dimension contiguous, any row stride >= columns
//   y       [rows, I]  | [rows, cols]  as x               as x; gelu: may be x; swiglu: apart from x
//
// All arithmetic in fp32, one rounding at the store; simd_math.h in core states the error of e^x, silu and gelu.
// Deterministic; an element's bits depend on its inputs alone. Workspace 0. Bytes: swiglu 3*rows*I*s, gelu
// 2*rows*cols*s.
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/tensor.h"

namespace ivk {

enum class Activation : int { swiglu, gelu };

struct ActivationParams {
    const void* x;                     // [rows, cols], or [rows, 2 cols] for swiglu
    void* y;                           // [rows, cols]
    int64_t cols, stride_x, stride_y;  // elements
    Activation kind;
};

// Columns [first, last) of one row.
using ActivationPiece = void (*)(const ActivationParams&, int64_t row, int64_t first, int64_t last);
struct ActivationTable {
    ActivationPiece f32, bf16, f16;
};
IVK_DECLARE_TABLE(ActivationTable, activation_table)

void activation(const TensorView& x, const TensorView& y, Activation kind, int threads);

}  // namespace ivk
