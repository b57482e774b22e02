// One source file per dtype: together they would compile too long.
#pragma once

#include <utility>

#include "core/cuda/launch.h"
#include "kernels/gemm/gemm_sm80.cuh"

namespace ivk {

constexpr int kSmallestGemmTile = kGemmTileCount - 1;  // of problems that go element by element

void gemm_sm80_bf16(const GemmParams&, int tile, bool aligned, Stream);
void gemm_sm80_f16(const GemmParams&, int tile, bool aligned, Stream);

template <typename T, int kTile, bool kAligned>
void launch_gemm_tile(const GemmParams& p, Stream stream) {
    constexpr GemmTile t = kGemmTiles[kTile];
    const device::GemmArgs a{p, static_cast<int>((p.m + t.bm - 1) / t.bm),
                             static_cast<int>((p.weight.n + t.bn - 1) / t.bn)};
    const Launch how{"gemm_sm80", dim3(static_cast<unsigned>(gemm_blocks(t, p.m, p.weight.n))), dim3(gemm_threads(t)),
                     static_cast<size_t>(gemm_shared_bytes(t) + (p.fold.rows ? t.bm * 8 : 0)), stream};
    launch(how, device::gemm_kernel<T, kTile, kAligned>, a);
}

template <typename T, int... kTiles>
void launch_gemm_tiles(const GemmParams& p, int tile, Stream stream, std::integer_sequence<int, kTiles...>) {
    (void)((tile == kTiles && (launch_gemm_tile<T, kTiles, true>(p, stream), true)) || ...);
}

template <typename T>
void launch_gemm(const GemmParams& p, int tile, bool aligned, Stream stream) {
    if (aligned)
        launch_gemm_tiles<T>(p, tile, stream, std::make_integer_sequence<int, kGemmTileCount>{});
    else
        launch_gemm_tile<T, kSmallestGemmTile, false>(p, stream);
}

}  // namespace ivk
