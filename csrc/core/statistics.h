// Statistics of rows as they cross between families: what a product tells of its result, and the next one takes.
// Contract: kernels/norm/statistics.h.
#pragma once

#include "core/check.h"
#include "core/tensor.h"

namespace ivk {

constexpr int64_t kStatisticsPart = 32;  // columns

inline int64_t statistics_parts(int64_t columns) { return (columns + kStatisticsPart - 1) / kStatisticsPart; }

// Throws UnsupportedError unless s is [parts, rows, 2] as the contract has it.
inline void check_statistics(const char* op, const char* name, const TensorView& s, int64_t parts, int64_t rows) {
    const bool pairs = s.ndim == 3 && s.shape[2] == 2 && s.stride[2] == 1 && (s.shape[1] <= 1 || s.stride[1] == 2);
    require(pairs && s.dtype == DType::f32 && s.shape[0] == parts && s.shape[1] == rows &&
                (parts <= 1 || (s.stride[0] >= 2 * rows && s.stride[0] % 2 == 0)) &&
                reinterpret_cast<uintptr_t>(s.data) % 8 == 0,
            op, ": ", name, " is ", s, "; allowed: float32 [", parts, ", ", rows,
            ", 2], pairs contiguous, aligned to 8 bytes and an even number of elements between parts");
}

}  // namespace ivk
