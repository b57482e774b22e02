// Sizes of packed weights, and the number of their layout.
#pragma once

#include <cstdint>

namespace ivk {

constexpr int64_t kPanel = 16;         // rows of weight in a panel: one f32x16
constexpr int64_t kTile = 2 * kPanel;  // columns of the product that one call of the micro-kernel computes

// Packed weights also lie in files (packed_cache of ivk.load), which carry this number: raise it with every change of
// what pack_weight writes (sizes above, order of panels, pairs, gate and up). tests/kernels/test_gemm_packed.py holds
// the bytes.
constexpr int kPackedLayout = 1;

}  // namespace ivk
