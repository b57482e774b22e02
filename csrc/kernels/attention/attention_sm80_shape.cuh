// How attention's blocks are made, and rows of heads on their way to shared memory.
#pragma once

#include "device/mma.cuh"

namespace ivk::device {

constexpr int kKeys = 64;  // of a block: from the first key on, whatever the queries

// kDim: d rounded up. Up to 64 a warp has two fragments of queries, which share every fragment of keys and values;
// above, its results would not leave room for them.
template <int kDim>
struct FlashShape {
    static constexpr int kM = kDim <= 64 ? 2 : 1, kWarps = kDim <= 64 ? 2 : 4, kThreads = 32 * kWarps;
    static constexpr int kRows = kWarps * kM * 16;
    static constexpr int kPitch = (kDim + 63) / 64 * 128;  // bytes of a row in shared memory
    static constexpr int kShared = (kRows + 4 * kKeys) * kPitch;
    static constexpr bool kHeld = kDim <= 128;  // queries stay in registers
};

template <int kDim>
__device__ inline int flash_offset(int row, int chunk) {
    return row * FlashShape<kDim>::kPitch + ((chunk ^ (row & 7)) << 4);
}

// A thread's share of copying rows of a head: it advances through them with one pointer.
template <typename T, int kDim, int kRows, bool kAligned>
struct HeadCopy {
    static constexpr int kThreads = FlashShape<kDim>::kThreads, kChunks = kDim / kLanes<T>;
    static constexpr int kTogether = kThreads % kChunks == 0 ? kThreads / kChunks : 0;  // rows of a round; 0: uneven
    static_assert(kRows * kChunks % kThreads == 0);

    const T* head;
    int64_t stride;
    int dim;

    // Rows from `first` on, of which `left` are there; zeros past them and past d.
    __device__ void operator()(char* shared, int64_t first, int left) const {
        const int own = threadIdx.x / kChunks;
        const T* from = head + (first + own) * stride + threadIdx.x % kChunks * kLanes<T>;
#pragma unroll
        for (int i = 0; i < kRows * kChunks / kThreads; ++i) {
            const int at = i * kThreads + threadIdx.x;
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
