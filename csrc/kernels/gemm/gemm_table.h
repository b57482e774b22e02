// What gemm.cpp asks of each instruction set's kernels, and what it lends to other products.
#pragma once

#include <vector>

#include "kernels/gemm/gemm.h"

namespace ivk {

// Rows [m_begin, m_end) of at most kRowBlock or kStagedBlock, tiles [t_begin, t_end).
using GemmBlock = void (*)(const GemmParams&, int64_t m_begin, int64_t m_end, int64_t t_begin, int64_t t_end);
// Tiles [t_begin, t_end) of a plain weight into packed panels of the same dtype.
using PackTiles = void (*)(const PackedWeight& plain, void* packed, int64_t t_begin, int64_t t_end);
struct GemmTable {
    GemmBlock block;
    PackTiles pack;
    int64_t panel_rows;  // rows of x in one call of the micro-kernel
};
IVK_DECLARE_TABLE(GemmTable, gemm_table)

// The memory that `count` weights, `each` elements apart, lie in.
TensorView memory_of(const PackedWeight& weight, int64_t count = 1, int64_t each = 0);
// The inner part of gemm for callers that have checked; several products share the threads.
void run_gemms(const std::vector<GemmParams>& products, int threads);

}  // namespace ivk
