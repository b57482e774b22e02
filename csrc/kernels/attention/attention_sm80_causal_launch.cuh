// One source file per dimension of heads: together they would compile too long.
#pragma once

#include <algorithm>

#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "kernels/attention/attention_sm80_causal.cuh"

namespace ivk {

void attention_sm80_causal_64(const CachedAttention&, bool aligned, Stream);
void attention_sm80_causal_96(const CachedAttention&, bool aligned, Stream);
void attention_sm80_causal_128(const CachedAttention&, bool aligned, Stream);
void attention_sm80_causal_256(const CachedAttention&, bool aligned, Stream);

constexpr int kCausalWarps = 4;
constexpr float kLeastCausalScale = 1e-37f;  // for 0, with which the lowest score would be no number

inline int page_shift(int64_t size) {  // of a power of 2; -1 for none
    int shift = -1;
    for (; size > 0; size /= 2) ++shift;
    return shift;
}

template <int kDim>
void launch_causal(const CachedAttention& p, bool aligned, Stream stream) {
    using Shape = device::FlashShape<kDim, kCausalWarps>;
    const device::CausalArgs a{p, static_cast<int>(p.heads / p.kv_heads), page_shift(p.page_size),
                               p.page_size > 0 ? p.slots / p.page_size : 0,
                               std::max(p.scale * 1.4426950408889634f, kLeastCausalScale)};
    const Launch how{"attention_sm80_causal", dim3(static_cast<unsigned>(p.heads * p.tile_count)),
                     dim3(Shape::kThreads), Shape::kShared + 16, stream};
    with_bool(aligned, [&](auto whole) {
        if (p.dtype == DType::bf16)
            launch(how, device::causal_attention_kernel<device::bf16, kDim, kCausalWarps, whole>, a);
        else
            launch(how, device::causal_attention_kernel<device::f16, kDim, kCausalWarps, whole>, a);
    });
}

}  // namespace ivk
