// Sizes of packed weights.
#pragma once

#include <cstdint>

namespace ivk {

constexpr int64_t kPanel = 16;         // rows of weight in a panel: one f32x16
constexpr int64_t kTile = 2 * kPanel;  // columns of the product that one call of the micro-kernel computes

}  // namespace ivk
