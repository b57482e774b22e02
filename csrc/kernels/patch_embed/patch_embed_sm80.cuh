// Patch embedding on tensor cores: contract in patch_embed.h. A block makes its 64 rows of the patch matrix once, in
// shared memory, and multiplies them with one tile of weight's rows after the other, whose slices of 32 columns come by
// cp.async: a tile's first while the one before is written.
#pragma once

#include "device/quad.cuh"
#include "device/tile.cuh"
#include "kernels/patch_embed/patch_embed_sm80_panel.cuh"

namespace ivk::device {

constexpr int kWarpRows = 32, kWarpColumns = 64;
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

// A thread's share of copying columns [k, k + 32) of kColumns rows of weight in pieces of kPiece bytes; a row may end
// with half a vector. What lies outside becomes zeros.
template <typename T, int kColumns, int kPiece>
__device__ inline void copy_weight(char* stage, const PatchEmbedArgs& a, int64_t first, int k) {
    constexpr int kPieces = kPiece == 8 ? 8 : kChunks, kElements = kSlice / kPieces;  // of a row, of a piece
    constexpr int kApart = kColumns / kPieces;                                        // as many threads as columns
    const int row = threadIdx.x / kPieces, piece = threadIdx.x % kPieces, column = k + piece * kElements;
    char* const to = stage + slice_offset(row, piece * kChunks / kPieces) + (kPiece == 8 ? piece % 2 * 8 : 0);
    const T* const weight = static_cast<const T*>(a.p.weight);
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
        const int64_t n = first + row + i * kApart;
        const int left = n < a.p.width ? min(max(a.k - column, 0), kElements) : 0;
        const T* const from = left > 0 ? weight + n * a.p.stride_weight + column : weight;
        char* const at = to + i * kApart * kSliceBytes;
        if constexpr (kPiece == 2) {
            *reinterpret_cast<Vector*>(at) = load_vector<T, false>(from, left);
        } else if constexpr (kPiece == 8) {
            copy_async_half(at, from, left > 0);
        } else if (left == kElements || left == 0) {
            copy_async(at, from, left > 0);
        } else {
            copy_async_half(at, from, true);
            copy_async_half(at + 8, from, false);
        }
    }
}

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

// + bias + pos, one rounding, and y: a warp's sums, four lanes a row. column: of the warp's first.
template <typename T, bool kAligned>
__device__ inline void store_sums(const PatchEmbedArgs& a, int64_t row, int64_t column,
                                  const float (&sums)[kWarpRows / 16][kWarpColumns / 8][4]) {
    const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
    for (int group = 0; group < kWarpColumns / 32; ++group) {
        const int64_t at = column + group * 32 + t * kLanes<T>;  // of this lane's vector
        const int n = static_cast<int>(max(min(a.p.width - at, int64_t{kLanes<T>}), int64_t{0}));
        Vector bias{};
        if (n > 0) bias = load_vector<T, kAligned>(static_cast<const T*>(a.p.bias) + at, n);
        turn_quad(bias.word);
#pragma unroll
        for (int m = 0; m < kWarpRows / 16; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int64_t i = row + m * 16 + half * 8 + lane / 4;
                const bool inside = i < a.rows;
                const uint32_t tile = a.patches.quotient(static_cast<uint32_t>(inside ? i : 0));
                const int64_t patch = i - int64_t{tile} * a.patches.divisor, y_row = i + tile + 1;
                Vector pos{}, out;
                if (inside && n > 0)
                    pos = load_vector<T, kAligned>(static_cast<const T*>(a.p.pos) + (1 + patch) * a.p.width + at, n);
                turn_quad(pos.word);
                float2 v[4];
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    v[e].x = sums[m][group * 4 + e][half * 2] + open<T>(bias, e * 2) + open<T>(pos, e * 2);
                    v[e].y = sums[m][group * 4 + e][half * 2 + 1] + open<T>(bias, e * 2 + 1) + open<T>(pos, e * 2 + 1);
                    out.word[e] = close2<T>(v[e].x, v[e].y);
                }
                if (a.p.out == a.p.dtype) {
                    turn_quad(out.word);
                    if (inside && n > 0)
                        store_vector<T, kAligned>(static_cast<T*>(a.p.y) + y_row * a.p.width + at, out, n);
                    continue;
                }
#pragma unroll
                for (int e = 0; e < 4; ++e) {  // a quad's pairs of floats are whole sectors as they are
                    const int64_t pair = column + group * 32 + e * 8 + t * 2;
                    float* const y = static_cast<float*>(a.p.y) + y_row * a.p.width + pair;
                    if (!inside || pair >= a.p.width) continue;
                    if constexpr (kAligned) {
                        __stwb(reinterpret_cast<float2*>(y), v[e]);
                    } else {
                        y[0] = v[e].x;
                        if (pair + 1 < a.p.width) y[1] = v[e].y;
                    }
                }
            }
    }
}

// cls + pos[0] for every tile whose first patch lies in the panel; as many columns as threads.
template <typename T, bool kAligned>
__device__ inline void store_cls(const PatchEmbedArgs& a, int64_t first, int64_t column) {
    constexpr int kFour = 4;
    const uint32_t begin = a.patches.quotient(static_cast<uint32_t>(first + a.patches.divisor - 1));
    const uint32_t last = static_cast<uint32_t>(min(first + kPanelRows, a.rows)) - 1;
    const int64_t tiles = int64_t{a.patches.quotient(last)} + 1 - begin, vectors = blockDim.x / kFour;
    for (int64_t i = threadIdx.x; i < tiles * vectors; i += blockDim.x) {
        const int64_t at = column + i % vectors * kFour,
                      y_row = (begin + i / vectors) * (int64_t{a.patches.divisor} + 1);
        const int n = static_cast<int>(min(a.p.width - at, int64_t{kFour}));
        if (n <= 0) continue;
        float cls[kFour], pos[kFour];
        load_floats<T, kFour, kAligned>(static_cast<const T*>(a.p.cls) + at, n, cls);
        load_floats<T, kFour, kAligned>(static_cast<const T*>(a.p.pos) + at, n, pos);
#pragma unroll
        for (int e = 0; e < kFour; ++e) cls[e] += pos[e];
        if (a.p.out == a.p.dtype)
            store_floats<T, kFour, kAligned>(static_cast<T*>(a.p.y) + y_row * a.p.width + at, cls, n);
        else
            store_floats<float, kFour, kAligned>(static_cast<float*>(a.p.y) + y_row * a.p.width + at, cls, n);
    }
}

template <typename T, int kColumns, int kPiece>
__global__ void __launch_bounds__(kColumns, 1) patch_embed_kernel(const __grid_constant__ PatchEmbedArgs a) {
    extern __shared__ __align__(128) char shared[];
    constexpr int kStages = kEmbedStages<kColumns>, kStage = kColumns * kSliceBytes;
    constexpr int kM = kWarpRows / 16, kN = kWarpColumns / 8, kOfChunk = kPanelChunk / kSlice;
    constexpr bool kAligned = kPiece != 2;
    char* const panel = shared + kStages * kStage;
    const int64_t first = int64_t{blockIdx.x % a.panels} * kPanelRows;
    const int first_tile = blockIdx.x / a.panels * a.each;
    const int slices = (a.k + kSlice - 1) / kSlice, steps = (a.k + 15) / 16;
    const int chunks = max((a.k - 16 + kPanelChunk - 1) / kPanelChunk, 1);
    const int64_t total = int64_t{min(a.each, a.tiles_n - first_tile)} * slices;

    int64_t ahead = 0;
    int ahead_tile = first_tile, ahead_slice = 0, ahead_stage = 0;
    const auto fetch = [&] {
        if (ahead < total)
            copy_weight<T, kColumns, kPiece>(shared + ahead_stage * kStage, a, int64_t{ahead_tile} * kColumns,
                                             ahead_slice * kSlice);
        commit_copies();  // an empty group too: groups are counted
        ++ahead;
        if (++ahead_stage == kStages) ahead_stage = 0;
        if (++ahead_slice == slices) ahead_slice = 0, ++ahead_tile;
    };
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) fetch();
    const bool words = a.words && (a.p.tile_dtype != DType::u8 || short_form_holds<T>(a));

    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int warp_m = warp % 2 * kWarpRows, warp_n = warp / 2 * kWarpColumns;
    int tile = first_tile, slice = 0, stage = 0;
    float sums[kM][kN][4] = {};
    for (int64_t i = 0; i < total; ++i) {
        const int chunk = min(slice / kOfChunk, chunks - 1), in_chunk = slice - chunk * kOfChunk;
        if (in_chunk == 0 && (i == 0 || chunks > 1)) {
            if (i > 0) __syncthreads();  // all have left the panel
            build_panel<T>(panel, a, first, chunk * kPanelChunk, words);
        }
        wait_copies<kStages - 2>();
        __syncthreads();
        fetch();  // where the slice before was: all have left it
        const int64_t column = int64_t{tile} * kColumns + warp_n;
        const bool works = column < a.p.width && first + warp_m < a.rows;  // else it helps with the copies
        const char* const w_slice = shared + stage * kStage;
#pragma unroll
        for (int step = 0; step < 2; ++step) {
            if (!works || slice * 2 + step >= steps) continue;
            uint32_t x[kM][4], w[kN / 2][4];
#pragma unroll
            for (int m = 0; m < kM; ++m)
                load_matrices(
                    x[m], panel_word(panel, warp_m + m * 16 + lane % 16, ((in_chunk * 2 + step) * 2 + lane / 16) * 4));
#pragma unroll
            for (int n = 0; n < kN / 2; ++n)
                load_matrices(
                    w[n], w_slice + slice_offset(warp_n + n * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int n = 0; n < kN; ++n) mma<T>(sums[m][n], x[m], w[n / 2][n % 2 * 2], w[n / 2][n % 2 * 2 + 1]);
        }
        if (++stage == kStages) stage = 0;
        if (++slice < slices) continue;
        if (works) store_sums<T, kAligned>(a, first + warp_m, column, sums);
        store_cls<T, kAligned>(a, first, int64_t{tile} * kColumns);
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int n = 0; n < kN; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) sums[m][n][e] = 0.0f;
        slice = 0;
        ++tile;
    }
    wait_copies<0>();
}

}  // namespace ivk::device
