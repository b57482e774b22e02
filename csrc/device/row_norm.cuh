// LayerNorm and RMSNorm of one row spread over a warp or a block, shared by the families that fuse a norm.
//
// Thread t of n holds the vectors t, t + n, t + 2n, ... of its row. Which thread holds which element, and so the order
// of every sum, follows from columns and dtype alone: not from alignment, rows, or the family that asks.
#pragma once

#include <cstdint>

#include "device/reduce.cuh"
#include "device/vector.cuh"

namespace ivk::device {

constexpr int kRegisterVectors = 4;  // of a row, per thread, in registers
constexpr int kRowsOfBlock = 4;      // rows of a block where one warp holds a row
constexpr int kMostThreads = 1024;

enum class RowPlan : int { warp, block, long_row };

struct RowShape {
    RowPlan plan;
    int threads;  // that share a row
};

// How a row of `columns` is spread. long_row: more than the registers of a block hold, so each pass reads it again.
constexpr RowShape row_shape(int64_t columns, int lanes) {
    const int64_t vectors = (columns + lanes - 1) / lanes;
    if (vectors <= 32 * kRegisterVectors) return {RowPlan::warp, 32};
    if (vectors > kMostThreads * kRegisterVectors) return {RowPlan::long_row, kMostThreads};
    const int64_t threads = (vectors + kRegisterVectors - 1) / kRegisterVectors;
    return {RowPlan::block, static_cast<int>((threads + 31) / 32 * 32)};
}

// Calls f(k, column, n) for the vectors of this thread: the k-th, at `column`, with n elements of the row.
template <typename T, typename Group, bool kAligned, bool kLong, typename F>
__device__ inline void for_vectors(int columns, F&& f) {
    const auto visit = [&](int k, int column) {
        f(k, column, kAligned ? kLanes<T> : min(kLanes<T>, columns - column));
    };
    if constexpr (kLong) {
        for (int column = Group::thread() * kLanes<T>; column < columns; column += Group::threads() * kLanes<T>)
            visit(0, column);
    } else {
#pragma unroll
        for (int k = 0; k < kRegisterVectors; ++k) {
            const int column = (k * Group::threads() + Group::thread()) * kLanes<T>;
            if (column < columns) visit(k, column);
        }
    }
}

struct RowNorm {
    const void* weight;
    const void* bias;  // or null
    float eps;
    int columns;
    bool rms;           // else LayerNorm
    bool once = false;  // RMSNorm: the weight before the rounding
};

// at(k, column, n) gives a vector of the row (from registers or from memory), weight, bias and y are of Y;
// where x is f32 and Y not, y's vectors have 8 bytes.
template <typename T, typename Y, typename Group, bool kAligned, bool kLong, typename At>
__device__ inline void norm_row(const RowNorm& p, Y* y, At&& at) {
    const Y* weight = static_cast<const Y*>(p.weight);
    const Y* bias = static_cast<const Y*>(p.bias);
    const float count = static_cast<float>(p.columns);
    float mean = 0.0f;
    if (!p.rms) {
        float total = 0.0f;
        for_vectors<T, Group, kAligned, kLong>(p.columns, [&](int k, int column, int n) {
            const Vector v = at(k, column, n);
#pragma unroll
            for (int i = 0; i < kLanes<T>; ++i) total += open<T>(v, i);
        });
        mean = Group::template sum<0>(total) / count;
    }
    // The variance of centred values keeps its bits under large means.
    float squares = 0.0f;
    for_vectors<T, Group, kAligned, kLong>(p.columns, [&](int k, int column, int n) {
        const Vector v = at(k, column, n);
#pragma unroll
        for (int i = 0; i < kLanes<T>; ++i) {
            const float d = open<T>(v, i) - mean;
            if (kAligned || i < n) squares = fmaf(d, d, squares);
        }
    });
    const float factor = 1.0f / sqrtf(Group::template sum<1>(squares) / count + p.eps);
    for_vectors<T, Group, kAligned, kLong>(p.columns, [&](int k, int column, int n) {
        float w[kLanes<T>], b[kLanes<T>] = {}, result[kLanes<T>];
        load_floats<Y, kLanes<T>, kAligned>(weight + column, n, w);
        if (bias != nullptr) load_floats<Y, kLanes<T>, kAligned>(bias + column, n, b);
        const Vector v = at(k, column, n);
#pragma unroll
        for (int i = 0; i < kLanes<T>; ++i) {
            if (p.rms) {
                const float normed = open<T>(v, i) * factor;
                result[i] = (p.once ? normed : rounded_to<Y>(normed)) * w[i];
            } else {
                result[i] = (open<T>(v, i) - mean) * factor * w[i];
                if (bias != nullptr) result[i] = result[i] + b[i];
            }
        }
        store_floats<Y, kLanes<T>, kAligned>(y + column, result, n);
    });
}

}  // namespace ivk::device
