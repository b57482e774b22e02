// Patch embedding on tensor cores: contract in patch_embed.h. A block makes its 64 rows of the patch matrix once, in
// shared memory, and multiplies them with one tile of weight's rows after the other, whose slices of 32 columns come by
// cp.async: a tile's first while the one before is written.
#pragma once

#include "device/ptx.cuh"
#include "device/tile.cuh"
#include "kernels/patch_embed/patch_embed_sm80_epilogue.cuh"
#include "kernels/patch_embed/patch_embed_sm80_panel.cuh"

namespace ivk::device {

constexpr int kStagesOf128 = 3, kStagesOf256 = 4;  // what 99 KiB of shared memory hold, and 139

template <int kColumns>
constexpr int kEmbedStages = kColumns == 128 ? kStagesOf128 : kStagesOf256;
template <int kColumns>
constexpr int kEmbedShared = kPanelBytes + kEmbedStages<kColumns> * kColumns * kSliceBytes;

// Eight bytes from global to shared memory, or zeros without reading.
__device__ inline void copy_async_half(char* shared, const void* global, bool read) {
    cute::SM80_CP_ASYNC_CACHEALWAYS_ZFILL<uint64_t>::copy(*static_cast<const uint64_t*>(global),
                                                          *reinterpret_cast<uint64_t*>(shared), read);
}

// A thread's share of copying kColumns rows of weight, slice by slice, in pieces of kPiece bytes. What lies
// outside becomes zeros, without a branch: lanes that part here would commit their groups apart.
template <typename T, int kColumns, int kPiece>
struct WeightCopy {
    static constexpr int kPieces = kPiece == 8 ? 8 : kChunks, kElements = kSlice / kPieces;  // of a row, of a piece
    static constexpr int kApart = kColumns / kPieces;  // rows between two pieces; as many threads as columns

    const T* from;  // of the first piece, in the first slice
    int rows;       // of weight from this thread's first on

    __device__ WeightCopy(const PatchEmbedArgs& a, int tile) {
        const int64_t row = int64_t{tile} * kColumns + threadIdx.x / kPieces;
        from = static_cast<const T*>(a.p.weight) + row * a.p.stride_weight + threadIdx.x % kPieces * kElements;
        rows = static_cast<int>(max(min(a.p.width - row, int64_t{kColumns}), int64_t{0}));
    }

    __device__ void slice(char* stage, const PatchEmbedArgs& a, int begin) const {
        const int row = threadIdx.x / kPieces, piece = threadIdx.x % kPieces;
        char* const to = stage + slice_offset(row, piece * kChunks / kPieces) + (kPiece == 8 ? piece % 2 * 8 : 0);
        const int columns = min(max(a.k - begin - piece * kElements, 0), kElements);
#pragma unroll
        for (int i = 0; i < kPieces; ++i) {
            const int left = i * kApart < rows ? columns : 0;
            const T* const at = from + i * kApart * a.p.stride_weight + begin;
            char* const place = to + i * kApart * kSliceBytes;
            if constexpr (kPiece == 2) {
                *reinterpret_cast<Vector*>(place) = load_vector<T, false>(at, left);
            } else if constexpr (kPiece == 8) {
                copy_async_half(place, at, left > 0);
            } else {
                cp_async_first(place, at, static_cast<uint32_t>(left * sizeof(T)));
            }
        }
    }
};

// Columns [begin, begin + count) of the panel.
template <typename T>
__device__ inline void build_panel(char* panel, const PatchEmbedArgs& a, int64_t first, int begin, bool words) {
    const int count = min((a.k - begin + 15) / 16 * 16, kPanelChunk + 16);
    if (words) {
        if (a.p.tile_dtype == DType::u8)
            build_bytes<T>(panel, a, first);
        else if (a.p.tile_dtype == DType::f32)
            build_floats<T, float>(panel, a, first);
        else
            build_floats<T, T>(panel, a, first);
        for (int i = threadIdx.x; i < kPanelRows * 2; i += blockDim.x)
            put_word(panel, i / 2, 3 * kPatchArea / 2 + i % 2, 0);
    } else if (a.p.tile_dtype == DType::u8) {
        build_any<T, uint8_t>(panel, a, first, begin, count);
    } else if (a.p.tile_dtype == DType::f32) {
        build_any<T, float>(panel, a, first, begin, count);
    } else {
        build_any<T, T>(panel, a, first, begin, count);
    }
}

// sums += 16 or 32 columns of the panel and of a slice of weight, `slice` of the panel. The bits of a lane's row that
// rotate or swizzle its chunks are those of the lane.
template <typename T, int kSteps>
__device__ inline void multiply(float (&sums)[kEmbedM][kEmbedN][4], const char* panel, int slice, const char* stage,
                                int warp_m, int warp_n) {
    const int lane = threadIdx.x % 32, row = warp_m + lane % 16;
    const bool last = slice == 2 * kPanelSlices;  // the columns behind the slices of 64
    uint32_t x[kSteps][kEmbedM][4], w[kSteps][kEmbedN / 2][4];
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
        const int chunk = slice % 2 * 4 + step * 2 + lane / 16;
        const char* const from = kSteps == 1 && last
                                     ? panel_word(panel, row, (slice * 4 + lane / 16) * 4)
                                     : panel + slice / 2 * kPanelRows * 128 + row * 128 + (chunk + lane) % 8 * 16;
#pragma unroll
        for (int m = 0; m < kEmbedM; ++m) load_matrices(x[step][m], from + m * 16 * (kSteps == 1 && last ? 32 : 128));
#pragma unroll
        for (int n = 0; n < kEmbedN / 2; ++n)
            load_matrices(w[step][n], stage + (warp_n + n * 16) * kSliceBytes +
                                          slice_offset(lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
    }
#pragma unroll
    for (int step = 0; step < kSteps; ++step)
#pragma unroll
        for (int m = 0; m < kEmbedM; ++m)
#pragma unroll
            for (int n = 0; n < kEmbedN; ++n)
                mma<T>(sums[m][n], x[step][m], w[step][n / 2][n % 2 * 2], w[step][n / 2][n % 2 * 2 + 1]);
}

template <typename T, int kColumns, int kPiece>
__global__ void __launch_bounds__(kColumns, 1) patch_embed_kernel(const __grid_constant__ PatchEmbedArgs a) {
    extern __shared__ __align__(128) char shared[];
    constexpr int kStages = kEmbedStages<kColumns>, kStage = kColumns * kSliceBytes;
    constexpr int kOfChunk = kPanelChunk / kSlice;
    constexpr bool kAligned = kPiece != 2, kAsync = kAligned;
    char* const panel = shared + kStages * kStage;
    const int64_t first = int64_t{blockIdx.x % a.panels} * kPanelRows;
    const int first_tile = blockIdx.x / a.panels * a.each;
    const int slices = (a.k + kSlice - 1) / kSlice, steps = (a.k + 15) / 16;
    const int chunks = max((a.k - 16 + kPanelChunk - 1) / kPanelChunk, 1);
    const int64_t total = int64_t{min(a.each, a.tiles_n - first_tile)} * slices;

    int64_t ahead = 0;
    int ahead_tile = first_tile, ahead_slice = 0, ahead_stage = 0;
    WeightCopy<T, kColumns, kPiece> weight(a, first_tile);
    const auto fetch = [&] {
        if (ahead < total) weight.slice(shared + ahead_stage * kStage, a, ahead_slice * kSlice);
        if constexpr (kAsync) commit_copies();  // an empty group too: groups are counted
        ++ahead;
        if (++ahead_stage == kStages) ahead_stage = 0;
        if (++ahead_slice < slices) return;
        ahead_slice = 0;
        weight = WeightCopy<T, kColumns, kPiece>(a, ++ahead_tile);
    };
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) fetch();
    const bool words = a.words && (a.p.tile_dtype != DType::u8 || short_form_holds<T>(a));

    const int warp = threadIdx.x / 32;
    const int warp_m = warp % 2 * kWarpRows, warp_n = warp / 2 * kWarpColumns;
    int tile = first_tile, slice = 0, stage = 0;
    float sums[kEmbedM][kEmbedN][4] = {};
    for (int64_t i = 0; i < total; ++i) {
        const int chunk = min(slice / kOfChunk, chunks - 1), in_chunk = slice - chunk * kOfChunk;
        if (in_chunk == 0 && (i == 0 || chunks > 1)) {
            if (i > 0) __syncthreads();  // all have left the panel
            build_panel<T>(panel, a, first, chunk * kPanelChunk, words);
        }
        if constexpr (kAsync) wait_copies<kStages - 2>();  // this slice is there; behind the last one none is under way
        __syncthreads();
        fetch();  // where the slice before was: all have left it
        const int64_t column = int64_t{tile} * kColumns + warp_n;
        const bool works = column < a.p.width && first + warp_m < a.rows;  // else it helps with the copies
        if (works && slice * 2 + 1 < steps)
            multiply<T, 2>(sums, panel, in_chunk, shared + stage * kStage, warp_m, warp_n);
        else if (works)
            multiply<T, 1>(sums, panel, in_chunk, shared + stage * kStage, warp_m, warp_n);
        if (++stage == kStages) stage = 0;
        if (++slice < slices) continue;
        if (works) store_sums<T, kAligned>(a, first + warp_m, column, sums);
        store_cls<T, kAligned>(a, first, int64_t{tile} * kColumns);
#pragma unroll
        for (int m = 0; m < kEmbedM; ++m)
#pragma unroll
            for (int n = 0; n < kEmbedN; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) sums[m][n][e] = 0.0f;
        slice = 0;
        ++tile;
    }
}

}  // namespace ivk::device
