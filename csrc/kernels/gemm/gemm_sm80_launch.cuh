// One source file per dtype: together they would compile too long.
#pragma once

#include <utility>

#include "core/cuda/launch.h"
#include "kernels/gemm/gemm_sm80.cuh"

namespace ivk {

constexpr int kSmallestGemmTile = kGemmTileCount - 1;  // of problems that go element by element

void gemm_sm80_bf16(const GemmParams&, int tile, bool aligned, Stream);
void gemm_sm80_f16(const GemmParams&, int tile, bool aligned, Stream);
void gemm_sm80_gated_bf16(const GemmParams&, int tile, bool aligned, Stream);  // swiglu
void gemm_sm80_gated_f16(const GemmParams&, int tile, bool aligned, Stream);

template <typename T, int kTile, bool kAligned, bool kGated>
void launch_gemm_tile(const GemmParams& p, Stream stream) {
    constexpr GemmTile t = kGemmTiles[kTile];
    if constexpr (!kGated || gemm_takes_gates(t)) {
        const int64_t columns = gemm_columns(p.weight.n, kGated);
        const device::GemmArgs a{p, static_cast<int>((p.m + t.bm - 1) / t.bm),
                                 static_cast<int>((columns + t.bn - 1) / t.bn)};
        const Launch how{kGated ? "gemm_sm80_gated" : "gemm_sm80",
                         dim3(static_cast<unsigned>(gemm_blocks(t, p.m, columns))), dim3(gemm_threads(t)),
                         static_cast<size_t>(gemm_shared_bytes(t) + (p.fold.rows ? t.bm * 8 : 0)), stream};
        launch(how, device::gemm_kernel<T, kTile, kAligned, kGated>, a);
    }
}

template <typename T, bool kGated, int... kTiles>
void launch_gemm_tiles(const GemmParams& p, int tile, Stream stream, std::integer_sequence<int, kTiles...>) {
    (void)((tile == kTiles && (launch_gemm_tile<T, kTiles, true, kGated>(p, stream), true)) || ...);
}

template <typename T, bool kGated>
void launch_gemm(const GemmParams& p, int tile, bool aligned, Stream stream) {
    if (aligned)
        launch_gemm_tiles<T, kGated>(p, tile, stream, std::make_integer_sequence<int, kGemmTileCount>{});
    else
        launch_gemm_tile<T, kSmallestGemmTile, false, kGated>(p, stream);
}

}  // namespace ivk
