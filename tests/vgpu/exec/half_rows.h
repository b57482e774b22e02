// Rows of f16 and bf16 (single or packed in pairs) to rows of f32 and back. `high` may be null: single values.
#pragma once

#include <cstdint>

#include "exec/numerics.h"

namespace vgpu {

void widen_half(const uint32_t* in, float* low, float* high);
void widen_bf16(const uint32_t* in, float* low, float* high);
void narrow_half(const float* low, const float* high, uint32_t* out);  // to nearest even
void narrow_bf16(const float* low, const float* high, uint32_t* out);

}  // namespace vgpu
