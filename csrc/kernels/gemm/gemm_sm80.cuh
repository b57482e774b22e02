// Products on tensor cores: contract in gemm.h. A block computes one tile of y in one chain over all of k: slices of 32
// columns come by cp.async, kGemmStages of them under way, and while a step of 16 columns is multiplied the next one's
// fragments come from shared memory. Sums stay in registers to the end: quads of lanes turn them into whole vectors.
#pragma once

#include <type_traits>

#include "kernels/gemm/gemm_sm80_gated.cuh"

namespace ivk::device {

constexpr int kBand = 16;  // tiles of rows that pass over the weights together, so that both stay in L2

template <int kTile>  // computed on the host: device code may not call what is not __device__
struct GemmSizes {
    static constexpr GemmTile kShape = kGemmTiles[kTile];
    static constexpr int kThreads = gemm_threads(kShape), kStage = gemm_stage_bytes(kShape);
    static constexpr int kWeights = gemm_copied(kShape, kShape.bm) * kSliceBytes;  // where they begin in a stage
};

struct GemmArgs {
    GemmParams p;
    int tiles_m, tiles_n;
};

// Which tile of y block `index` computes: bands of kBand tiles of rows, column by column.
__device__ inline void place_block(const GemmArgs& a, int64_t index, int& m, int& n) {
    const int64_t of_band = int64_t{kBand} * a.tiles_n;
    const int first = static_cast<int>(index / of_band) * kBand, rest = static_cast<int>(index % of_band);
    const int height = min(kBand, a.tiles_m - first);
    m = first + rest % height;
    n = rest / height;
}

// Fragments of a warp's rows of x and of the weight for 16 columns of k.
template <int kM, int kN>
struct Operands {
    uint32_t x[kM][4], w[kN / 2][4];

    // x, w: the warp's rows in a slice; step: which 16 of its columns
    __device__ void load(const char* slice_x, int row_x, const char* slice_w, int row_w, int step) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int m = 0; m < kM; ++m)
            load_matrices(x[m], slice_x + slice_offset(row_x + m * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
        for (int n = 0; n < kN / 2; ++n)
            load_matrices(w[n],
                          slice_w + slice_offset(row_w + n * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
    }
};

// Factors of the tile's rows to shared memory, a row to a thread.
__device__ inline void normalise_rows(const GemmParams& p, int64_t row, int rows, float2* factors) {
    const int parts = static_cast<int>((p.weight.k + kPart - 1) / kPart);
    if (threadIdx.x >= rows || row + threadIdx.x >= p.m) return;
    const auto part = [&](int g) {
        return reinterpret_cast<const float2*>(p.fold.rows + g * p.fold.rows_apart)[row + threadIdx.x];
    };
    RowStatistics sums(part(0), min(static_cast<int>(p.weight.k), kPart));
#pragma unroll 16
    for (int g = 0; g < parts - 1; ++g) sums.add(part(g), kPart);
    sums.add(part(parts - 1), static_cast<int>(p.weight.k) - (parts - 1) * kPart);
    factors[threadIdx.x] = sums.factors(static_cast<int>(p.weight.k), p.fold.eps, p.fold.rms);
}

// kGated: the swiglu epilogue; columns of the product are then the weight's rows in turns.
template <typename T, int kTile, bool kAligned, bool kGated>
__global__ void __launch_bounds__(GemmSizes<kTile>::kThreads, 2) gemm_kernel(const __grid_constant__ GemmArgs a) {
    extern __shared__ __align__(128) char shared[];
    constexpr GemmTile kShape = kGemmTiles[kTile];
    constexpr int kThreads = GemmSizes<kTile>::kThreads, kStage = GemmSizes<kTile>::kStage;
    constexpr int kWeights = GemmSizes<kTile>::kWeights, kWarpsN = kShape.bn / kShape.wn;
    constexpr int kM = kShape.wm / 16, kN = kShape.wn / 8;
    const GemmParams& p = a.p;
    int tile_m, tile_n;
    place_block(a, blockIdx.x, tile_m, tile_n);
    const int64_t first_m = int64_t{tile_m} * kShape.bm, first_n = int64_t{tile_n} * kShape.bn;
    const int k = static_cast<int>(p.weight.k), slices = (k + kSlice - 1) / kSlice;
    const TileCopy<T, kShape.bm, kThreads, kAligned> x(p.x, p.stride_x, first_m, p.m, k);
    using WeightCopy = std::conditional_t<kGated, GatedCopy<T, kShape.bn, kThreads, kAligned>,
                                          TileCopy<T, kShape.bn, kThreads, kAligned>>;
    const WeightCopy w(p.weight.data, p.weight.stride, first_n, kGated ? p.weight.n / 2 : p.weight.n, k);

    const auto stage = [&](int slice) { return shared + slice % kGemmStages * kStage; };
    // Past the last slice zeros, which nobody multiplies: the loop has no branches and its copies are counted.
    const auto fetch = [&](int slice) {
        x.slice(stage(slice), slice * kSlice);
        w.slice(stage(slice) + kWeights, slice * kSlice);
        commit_copies();
    };
    const int warp = threadIdx.x / 32;
    const int warp_m = warp / kWarpsN * kShape.wm, warp_n = warp % kWarpsN * kShape.wn;
    float sums[kM][kN][4] = {};
    float2* const factors = reinterpret_cast<float2*>(shared + kGemmStages * kStage);
    const auto loop = [&](auto works) {
        Operands<kM, kN> operands[2];
        const auto take = [&](int slice, int step) {
            if constexpr (decltype(works)::value)
                operands[step].load(stage(slice), warp_m, stage(slice) + kWeights, warp_n, step);
        };
        const auto multiply = [&](int step) {
            if constexpr (decltype(works)::value)
#pragma unroll
                for (int m = 0; m < kM; ++m)
#pragma unroll
                    for (int n = 0; n < kN; ++n)
                        mma<T>(sums[m][n], operands[step].x[m], operands[step].w[n / 2][n % 2 * 2],
                               operands[step].w[n / 2][n % 2 * 2 + 1]);
        };
#pragma unroll
        for (int slice = 0; slice < kGemmStages - 1; ++slice) fetch(slice);
        if (p.fold.rows != nullptr) normalise_rows(p, first_m, kShape.bm, factors);  // the barriers below are its own
        wait_copies<kGemmStages - 2>();
        __syncthreads();
        take(0, 0);
#pragma unroll 1
        for (int slice = 0; slice < slices; ++slice) {
            take(slice, 1);
            fetch(slice + kGemmStages - 1);  // where slice - 1 was: all have left it
            multiply(0);
            wait_copies<kGemmStages - 2>();
            __syncthreads();
            take(slice + 1, 0);
            multiply(1);
        }
        wait_copies<0>();
    };
    const int64_t column = kGated ? (first_n + warp_n) / 2 : first_n + warp_n;  // of y
    if (first_m + warp_m < p.m && column < (kGated ? p.weight.n / 2 : p.weight.n)) {
        loop(std::true_type{});
        const Epilogues<T, kTile, kAligned> plain{p, first_m + warp_m, column, factors + warp_m};
        if constexpr (kGated)
            GatedEpilogue<T, kTile, kAligned>{plain}(sums);
        else
            plain(sums);
    } else {
        loop(std::false_type{});  // a warp beyond the edge helps with the copies
    }
}

}  // namespace ivk::device
