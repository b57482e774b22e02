// What a norm needs to know of rows, apart from the norm itself: so that the product before it can find it out and the
// product or the attention behind it can apply it.
//
//   row_statistics   s[g, i] = (sum of x[i, 32 g : 32 g + 32], sum of (x - that part's mean)^2)
//   row_factors      f[j, i] = 1 / sqrt(mean square of columns [j cols, (j + 1) cols) of row i + eps), from statistics
//
//   name   shape                   dtype        notes
//   x      [rows, cols]            bf16 | f16   last dimension contiguous, any row stride >= cols
//   s      [ceil(cols / 32),       f32          pairs contiguous and at multiples of 8 bytes; parts any stride apart
//           rows, 2]                            (of a multiple of 4 pairs: whole sectors)
//   f      [matrices, rows]        f32          contiguous; cols a multiple of 32, matrices * cols / 32 parts of s
//
// Rounding: fp32 throughout. The parts of a row do not depend on who computes them (csrc/device/statistics.cuh): this
// kernel, or a product as it stores x (kernels/gemm/gemm_fold.h). A row's bits depend on that row alone. Workspace 0.
// Errors: UnsupportedError with the whole problem.
//
// CUDA alone (statistics_sm80, compute capability 8.0 and newer): every problem of the contract with cols <= 2^30; x by
// 16 bytes where addresses, strides and rows are multiples of them, else element by element with equal bits.
// Floor: each operand read once and the result written once (row_statistics_bytes, row_factors_bytes).
#pragma once

#include <cstdint>
#include <string>

#include "core/device.h"
#include "core/statistics.h"
#include "core/stream.h"
#include "core/tensor.h"

namespace ivk {

struct StatisticsParams {
    const void* x;  // null: factors of given statistics
    float* statistics;
    float* factors;  // or null
    int64_t rows, cols, matrices;
    int64_t stride_x, apart;  // elements between rows of x, between parts
    float eps;
    DType dtype;
};

// The checked problems; throw UnsupportedError.
StatisticsParams row_statistics_problem(const TensorView& x, const TensorView& statistics);
StatisticsParams row_factors_problem(const TensorView& statistics, const TensorView& factors, float eps);
std::string describe(const StatisticsParams&);

inline int64_t row_statistics_bytes(const StatisticsParams& p) {
    return p.rows * (p.cols * size_of(p.dtype) + statistics_parts(p.cols) * 8);
}
inline int64_t row_factors_bytes(const StatisticsParams& p) {
    return p.matrices * p.rows * (statistics_parts(p.cols) * 8 + 4);
}

bool supports_statistics_sm80(const StatisticsParams&, const Device&, std::string* why);
void statistics_sm80(const StatisticsParams&, Stream);
void statistics_cuda(const StatisticsParams&, const Device&, Stream);  // throws with every variant's reason

}  // namespace ivk
