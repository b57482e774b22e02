// The products of a mixture of experts, all experts in one call: rows grouped by expert against each expert's own
// weight.
//
//   name      shape      dtype              notes
//   x         [n, K]     f32 | bf16 | f16   last dimension contiguous, any row stride >= K
//   rows      [m]        i64                row i of the product is x[rows[i]]; or absent: x[i], m = n
//   offsets   [E + 1]    i64                expert e has rows offsets[e] to offsets[e + 1]: from 0, ascending, to m
//   weight    [E, N, K]  f32 | bf16 | f16   plain and dense, or packed [E, packed_elements] (gemm.h)
//   bias      [E, N]     as x               or absent; contiguous
//   y         [m, Ny]    as x               epilogue(x[rows] @ weight[e]^T + bias[e]), Ny = N, or N / 2 with swiglu;
//                                         contiguous, apart from the inputs
//
// Arithmetic, bits, epilogues (linear and swiglu, with its limit) and workspace are gemm.h's. Weights of experts
// without rows are not read, others once for every kRowBlock rows (plain ones kStagedBlock). Floor: 2*m*N*K flops;
// bytes chosen experts * N*K*s + (n K + m Ny) * s.
#pragma once

#include "kernels/gemm/gemm.h"

namespace ivk {

// `weight.data` is the first expert's; `expert_stride` elements lie between two experts.
void gemm_grouped(const TensorView& x, const TensorView& rows, const TensorView& offsets, const PackedWeight& weight,
                  int64_t expert_stride, const TensorView& bias, const TensorView& y, Epilogue epilogue, float limit,
                  int threads);

}  // namespace ivk
