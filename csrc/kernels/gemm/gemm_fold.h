// What surrounds a product in place of a norm of its own: the norm of x's rows applied to the sums, and what the next
// norm needs to know of y's rows.
//
//   name     shape                 dtype   notes
//   rows     [ceil(K/32), M, 2]    f32     statistics of x (norm/statistics.h), with columns
//   columns  [N, 2]                f32     contiguous: (sum of weight's row j, bias of column j)
//   result   [G, M, 2]             f32     statistics of the first G parts of y as stored, G <= ceil(N/32)
//
//   v_ij = r_i (x @ weight^T)_ij - r_i mean_i columns[j, 0] + columns[j, 1], then the epilogue
//   LayerNorm r_i = 1 / sqrt(var_i + eps); RMSNorm r_i = 1 / sqrt(mean square_i + eps) and mean_i = 0
//
// So weight carries the norm's weight, columns[j, 1] the product's bias and what the norm's bias makes of weight. The
// sums of weight's rows are those of the rounded weight: then a mean that all columns share cancels to fp32's digits,
// not to weight's: a LayerNorm of rows whose mean is n times their sqrt(var + eps) loses about log2(n) of 24 bits, and
// of rows that are constant all that eps leaves. Rows whose squares overflow fp32 become NaN. CUDA alone; the bias is
// absent with columns; result needs y of x's dtype.
#pragma once

#include <cstdint>

#include "core/tensor.h"

namespace ivk {

struct GemmFold {
    TensorView rows, columns, result;
    float eps = 0.0f;
    bool rms = false;
};

// The same, checked.
struct GemmFoldParams {
    const float* rows = nullptr;  // or null
    int64_t rows_apart = 0;       // elements between parts
    const float* columns = nullptr;
    float* result = nullptr;  // or null
    int64_t result_apart = 0, parts = 0;
    float eps = 0.0f;
    bool rms = false;

    int64_t bytes(int64_t m, int64_t n, int64_t k) const {
        return (rows ? (k + 31) / 32 * m * 8 + n * 8 : 0) + parts * m * 8;
    }
};

}  // namespace ivk
