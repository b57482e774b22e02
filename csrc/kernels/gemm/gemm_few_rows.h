// y = x @ weight^T + bias for few rows of x and plain rows of weight: decoding without packing, where the time goes
// into reading the weight once. What packs its weights, as the models do, takes gemm.h's product.
//
//   name     shape    dtype              notes
//   x        [M, K]   f32 | bf16 | f16   last dimension contiguous, any row stride >= K
//   weight   [N, K]   as x               last dimension contiguous, any row stride >= K
//   bias     [N]      as x               or absent
//   y        [M, N]   as x               contiguous, apart from the inputs
//
// Accumulation: fp32, sixteen partial sums over k (k mod 16), ascending, fused multiply-add where the machine has it;
// then a fixed tree; bias added in fp32; one rounding at the store. So a row's bits depend on that row, the weight and
// the ISA level's arithmetic (base: separate multiply and add; v3 and v4: fused, equal bits), not on M or on the
// threads. Workspace 0. Bytes: (N*K + M*K + M*N) * s for M <= 4, and N*K again for every four rows more (from cache for
// small K).
#pragma once

#include <cstdint>

#include "core/isa.h"
#include "core/tensor.h"

namespace ivk {

struct FewRowsParams {
    const void* x;       // [m, k]
    const void* weight;  // [n, k]
    const void* bias;    // [n] or null
    void* y;             // [m, n]
    int64_t m, n, k;
    int64_t stride_x, stride_w;  // elements
};

// Columns [begin, end) of y, all rows.
using FewRowsColumns = void (*)(const FewRowsParams&, int64_t begin, int64_t end);
struct FewRowsTable {
    FewRowsColumns f32, bf16, f16;
};
IVK_DECLARE_TABLE(FewRowsTable, few_rows_table)

// Checks the contract, then runs on at most `threads` threads (0: the default cap).
void gemm_few_rows(const TensorView& x, const TensorView& weight, const TensorView& bias, const TensorView& y,
                   int threads);

}  // namespace ivk
