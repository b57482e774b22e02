// How attention's blocks are made, and rows of heads on their way to shared memory.
#pragma once

#include "device/mma.cuh"
#include "kernels/attention/attention_tiles.h"

namespace ivk::device {

// kDim: d rounded up. A warp has two fragments of queries, which share every fragment of keys and values: half the
// reading from shared memory. Results and scores are kM (kDim + kKeys) / 2 floats of a lane's 255 registers, beside 75
// of other use.
template <int kDim, int kWarps>
struct FlashShape {
    static constexpr int kM = kDim <= kTwoFragments ? 2 : 1, kThreads = 32 * kWarps;
    static constexpr int kKeys = attention_keys(kDim);  // of a block: from the first key on, whatever the queries
    static constexpr int kRows = attention_tile_rows(kWarps, kDim);
    static constexpr int kPitch = 2 * kDim;                // bytes of a row in shared memory
    static constexpr int kSlot = kKeys * kPitch + 64 * 4;  // of keys and their factors, or of values
    static constexpr bool kHeld = kDim <= 64;              // queries stay in registers
    static constexpr int kSlots = kDim <= 128 ? 3 : 2;
    static constexpr int kShared = kRows * kPitch + kSlots * kSlot + 16;
    static constexpr int kBlocks = kDim <= 128 ? 8 / kWarps : 1;  // that registers hold: two warps a scheduler
};

// Rows of whole or of odd halves of 128 bytes: eight rows' chunks of one column, and eight neighbours, meet no bank
// twice.
template <int kDim>
__device__ inline int flash_offset(int row, int chunk) {
    return row * 2 * kDim + ((chunk ^ (kDim % 64 == 0 ? row & 7 : row >> 1 & 3)) << 4);
}

// A thread's share of copying kRows rows of a head.
template <typename T, int kDim, int kRows, int kThreads, bool kAligned>
struct HeadCopy {
    static constexpr int kChunks = kDim / kLanes<T>, kAll = kRows * kChunks;
    static constexpr int kTogether = kThreads % kChunks == 0 ? kThreads / kChunks : 0;  // rows of a round; 0: uneven

    const T* head;
    int64_t stride;
    int dim;

    // Rows from `first` on, of which `left` are there; zeros past them and past d.
    __device__ void operator()(char* shared, int64_t first, int left) const {
        const int own = threadIdx.x / kChunks;
        const T* from = head + (first + own) * stride + threadIdx.x % kChunks * kLanes<T>;
#pragma unroll(kDim == 96 ? 4 : 8)  // eight are too many registers there
        for (int i = 0; i < (kAll + kThreads - 1) / kThreads; ++i) {
            const int at = i * kThreads + threadIdx.x;
            if (kAll % kThreads != 0 && at >= kAll) break;  // whole warps
            const int row = kTogether ? own + i * kTogether : at / kChunks;
            const int chunk = kTogether ? threadIdx.x % kChunks : at % kChunks, column = chunk * kLanes<T>;
            if constexpr (kTogether == 0) from = head + (first + row) * stride + column;
            const bool inside = row < left && column < dim;
            char* const to = shared + flash_offset<kDim>(row, chunk);
            if constexpr (kAligned)
                copy_async(to, from, inside);
            else
                *reinterpret_cast<Vector*>(to) = load_vector<T, false>(from, inside ? min(dim - column, kLanes<T>) : 0);
            if constexpr (kTogether > 0) from += kTogether * stride;
        }
    }
};

}  // namespace ivk::device
