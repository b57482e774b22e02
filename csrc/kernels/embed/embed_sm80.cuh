// Rows gathered from two tables: contract in embed.h. A block copies one row; the bits are moved as they are.
#pragma once

#include "device/vector.cuh"
#include "kernels/embed/embed.h"

namespace ivk::device {

constexpr int kEmbedThreads = 128;

// T: uint16_t or uint32_t, what one element has.
template <typename T, bool kAligned>
__global__ void __launch_bounds__(kEmbedThreads) embed_kernel(const __grid_constant__ EmbedParams p) {
    const int64_t row = p.source[blockIdx.x];
    const T* const from =
        reinterpret_cast<const T*>(row >= 0 ? p.table + row * p.table_stride : p.visual + (-1 - row) * p.visual_stride);
    T* const to = reinterpret_cast<T*>(p.y + int64_t{blockIdx.x} * p.row_bytes);
    const int64_t columns = p.row_bytes / sizeof(T);
    for (int64_t i = int64_t{threadIdx.x} * kLanes<T>; i < columns; i += kEmbedThreads * kLanes<T>) {
        const int n = static_cast<int>(min(int64_t{kLanes<T>}, columns - i));
        store_vector<T, kAligned>(to + i, load_vector<T, kAligned>(from + i, n), n);
    }
}

}  // namespace ivk::device
