// Tiles of a 16-bit matrix in shared memory: slices of 32 columns, rows of 64 bytes, their four chunks of 16 bytes
// swizzled so that neither the copies that write a slice nor the ldmatrix that reads it meets a bank twice.
#pragma once

#include "device/mma.cuh"

namespace ivk::device {

constexpr int kSlice = 32;                 // columns
constexpr int kSliceBytes = 2 * kSlice;    // of a row
constexpr int kChunks = kSliceBytes / 16;  // of a row

__device__ inline int slice_offset(int row, int chunk) {
    return row * kSliceBytes + ((chunk ^ (row >> 1) % kChunks) << 4);
}

// A thread's share of copying kRows rows of a matrix, slice by slice. Every thread copies equally many chunks, without
// branches: shared memory has room for kRows rounded up to kApart.
template <typename T, int kRows, int kThreads, bool kAligned>
struct TileCopy {
    static constexpr int kApart = kThreads / kChunks;            // rows between two chunks of a thread
    static constexpr int kEach = (kRows + kApart - 1) / kApart;  // chunks of a thread
    static_assert(kThreads % (2 * kChunks * kChunks) == 0);      // so that the swizzle is the same for all of them

    const T* from;  // of the first chunk, in the first slice
    int64_t apart;  // elements between two chunks
    int rows;       // of the matrix from the tile's first on
    int columns;    // of the matrix from this thread's chunk on

    __device__ TileCopy(const void* matrix, int64_t stride, int64_t first, int64_t end, int64_t k) {
        const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
        from = static_cast<const T*>(matrix) + (first + row) * stride + chunk * kLanes<T>;
        apart = kApart * stride;
        rows = static_cast<int>(min(end - first, int64_t{kRows}));
        columns = static_cast<int>(k) - chunk * kLanes<T>;
    }

    // The slice that begins at column `begin` into `shared`; what lies outside the matrix becomes zeros.
    __device__ void slice(char* shared, int begin) const {
        const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
        char* to = shared + slice_offset(row, chunk);
#pragma unroll
        for (int i = 0; i < kEach; ++i) {
            const bool inside = row + i * kApart < rows && begin < columns;
            const T* const at = from + i * apart + begin;
            if constexpr (kAligned)
                copy_async(to + i * kApart * kSliceBytes, at, inside);
            else
                *reinterpret_cast<Vector*>(to + i * kApart * kSliceBytes) =
                    load_vector<T, false>(at, inside ? min(columns - begin, kLanes<T>) : 0);
        }
    }
};

}  // namespace ivk::device
