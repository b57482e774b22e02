// One source file per dimension of heads: together they would compile too long.
#pragma once

#include <algorithm>
#include <utility>

#include "core/cuda/dispatch.h"
#include "core/cuda/launch.h"
#include "kernels/attention/attention_sm80.cuh"

namespace ivk {

// tile: of attention_tiles.h; heads go element by element by the smallest.
void attention_sm80_64(const AttentionBatch&, int tile, bool aligned, Stream);
void attention_sm80_96(const AttentionBatch&, int tile, bool aligned, Stream);
void attention_sm80_128(const AttentionBatch&, int tile, bool aligned, Stream);
void attention_sm80_256(const AttentionBatch&, int tile, bool aligned, Stream);  // tile: the first alone

constexpr float kLeastScale = 1e-37f;  // for 0, with which the lowest score would be no number

template <int kDim, int kWarps, bool kAligned>
void launch_attention_tile(const AttentionBatch& p, Stream stream) {
    using Shape = device::FlashShape<kDim, kWarps>;
    const int64_t tiles = attention_tiles(p.rows, Shape::kRows);
    const device::FlashArgs a{p, static_cast<int>(tiles), static_cast<int>(p.heads / p.kv_heads),
                              std::max(p.scale * 1.4426950408889634f, kLeastScale)};
    const Launch how{"attention_sm80", dim3(static_cast<unsigned>(p.batch * p.heads * tiles)), dim3(Shape::kThreads),
                     Shape::kShared, stream};
    with_bool(p.norm.weight != nullptr, [&](auto normed) {
        if (p.dtype == DType::bf16)
            launch(how, device::attention_kernel<device::bf16, kDim, kWarps, kAligned, normed>, a);
        else
            launch(how, device::attention_kernel<device::f16, kDim, kWarps, kAligned, normed>, a);
    });
}

template <int kDim, int... kTiles>
void launch_attention_tiles(const AttentionBatch& p, int tile, Stream stream, std::integer_sequence<int, kTiles...>) {
    (void)((tile == kTiles && (launch_attention_tile<kDim, kAttentionTiles[kTiles].warps, true>(p, stream), true)) ||
           ...);
}

template <int kDim>
void launch_attention(const AttentionBatch& p, int tile, bool aligned, Stream stream) {
    constexpr int kCount = attention_tile_count(kDim);
    if (aligned)
        launch_attention_tiles<kDim>(p, tile, stream, std::make_integer_sequence<int, kCount>{});
    else
        launch_attention_tile<kDim, kAttentionTiles[kCount - 1].warps, false>(p, stream);
}

}  // namespace ivk
