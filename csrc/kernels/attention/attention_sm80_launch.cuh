// One source file for small and one for large heads: together they would compile too long.
#pragma once

#include <algorithm>

#include "core/cuda/launch.h"
#include "kernels/attention/attention_sm80.cuh"

namespace ivk {

// dim: of the heads, rounded up to a kernel's.
void attention_sm80_small(const AttentionBatch&, int dim, bool aligned, Stream);
void attention_sm80_large(const AttentionBatch&, Stream);  // aligned alone

constexpr float kLeastScale = 1e-37f;  // for 0, with which the lowest score would be no number

template <int kDim, bool kAligned>
void launch_attention(const AttentionBatch& p, Stream stream) {
    using Shape = device::FlashShape<kDim>;
    const int64_t tiles = (p.rows + Shape::kRows - 1) / Shape::kRows;
    const device::FlashArgs a{p, static_cast<int>(tiles), static_cast<int>(p.heads / p.kv_heads),
                              std::max(p.scale * 1.4426950408889634f, kLeastScale)};
    const Launch how{"attention_sm80", dim3(static_cast<unsigned>(p.batch * p.heads * tiles)), dim3(Shape::kThreads),
                     Shape::kShared, stream};
    if (p.dtype == DType::bf16)
        launch(how, device::attention_kernel<device::bf16, kDim, kAligned>, a);
    else
        launch(how, device::attention_kernel<device::f16, kDim, kAligned>, a);
}

}  // namespace ivk
