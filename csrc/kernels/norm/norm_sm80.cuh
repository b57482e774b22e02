// Norm kernels: contract in norm.h, the row's spread over threads in device/row_norm.cuh. A row is read once and
// written once; it stays in registers as packed vectors, so that h is normalised as rounded.
#pragma once

#include "device/row_norm.cuh"
#include "kernels/norm/norm.h"

namespace ivk::device {

template <typename T, bool kAligned>
__device__ inline Vector add_branch(const Vector& x, const Vector& branch, const T* scale, int column, int n) {
    if (scale == nullptr) return map<T>(x, [&](float v, int i) { return v + open<T>(branch, i); });
    const Vector s = load_vector<T, kAligned>(scale + column, n);
    return map<T>(x, [&](float v, int i) { return v + open<T>(branch, i) * open<T>(s, i); });
}

// weight, bias and y are of Y.
template <typename T, typename Y, typename Group, bool kAligned, bool kLong>
__global__ void __launch_bounds__(Group::kBlock ? kMostThreads : 32 * kRowsOfBlock)
    norm_kernel(const __grid_constant__ NormParams p) {
    const int64_t row = Group::kBlock ? blockIdx.x : int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / 32;
    if (row >= p.rows) return;  // a whole warp, and only where rows are warps
    const int columns = static_cast<int>(p.cols);
    const bool paired = p.second_weight != nullptr, odd = paired && row % 2 != 0;
    const int64_t place = paired ? row / 2 : row, offset = odd ? p.apart : 0;
    const T* x = static_cast<const T*>(p.x) + place * p.stride_x + offset;
    const T* scale = static_cast<const T*>(p.scale);

    Vector held[kLong ? 1 : kRegisterVectors] = {};
    if constexpr (!kLong)
        for_vectors<T, Group, kAligned, kLong>(
            columns, [&](int k, int column, int n) { held[k] = load_vector<T, kAligned>(x + column, n); });
    if (p.branch != nullptr) {
        const T* branch = static_cast<const T*>(p.branch) + row * p.stride_branch;
        T* h = static_cast<T*>(p.h) + row * p.stride_h;
        Vector added[kLong ? 1 : kRegisterVectors] = {};
        if constexpr (!kLong)
            for_vectors<T, Group, kAligned, kLong>(
                columns, [&](int k, int column, int n) { added[k] = load_vector<T, kAligned>(branch + column, n); });
        for_vectors<T, Group, kAligned, kLong>(columns, [&](int k, int column, int n) {
            if constexpr (kLong) {
                held[0] = load_vector<T, kAligned>(x + column, n);
                added[0] = load_vector<T, kAligned>(branch + column, n);
            }
            held[k] = add_branch<T, kAligned>(held[k], added[k], scale, column, n);
            store_vector<T, kAligned>(h + column, held[k], n);
        });
        x = h;  // a long row is read again by the threads that wrote it
    }
    if (p.weight == nullptr) return;
    norm_row<T, Y, Group, kAligned, kLong>(
        RowNorm{odd ? p.second_weight : p.weight, p.bias, p.eps, columns, p.kind != NormKind::layer,
                p.kind == NormKind::rms_once},
        static_cast<Y*>(p.y) + place * p.stride_y + offset,
        [&](int k, int column, int n) { return kLong ? load_vector<T, kAligned>(x + column, n) : held[k]; });
}

}  // namespace ivk::device
