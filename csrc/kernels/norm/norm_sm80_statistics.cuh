// Statistics of rows and factors from them: contract in statistics.h.
#pragma once

#include "device/statistics.cuh"
#include "kernels/norm/statistics.h"

namespace ivk::device {

constexpr int kStatisticsWarps = 4;
constexpr int kStatisticsRows = 8;   // of a warp: four lanes to a row
constexpr int kStatisticsParts = 4;  // of a warp, loaded together
constexpr int kFactorRows = 4;       // of a warp, whose lanes take every eighth part: whole sectors

template <typename T, bool kAligned>
__global__ void __launch_bounds__(32 * kStatisticsWarps)
    row_statistics_kernel(const __grid_constant__ StatisticsParams p, int blocks) {  // blocks: that share some rows
    const int lane = threadIdx.x % 32, t = lane % 4, columns = static_cast<int>(p.cols);
    const int64_t row = blockIdx.x / blocks * int64_t{kStatisticsRows} + lane / 4;
    const int first = (blockIdx.x % blocks * kStatisticsWarps + threadIdx.x / 32) * kStatisticsParts;
    const T* const x = static_cast<const T*>(p.x) + row * p.stride_x;
    Vector eight[kStatisticsParts] = {};
#pragma unroll
    for (int i = 0; i < kStatisticsParts; ++i) {
        const int column = (first + i) * kPart + t * 8;
        if (row < p.rows && column < columns) eight[i] = load_vector<T, kAligned>(x + column, columns - column);
    }
#pragma unroll
    for (int i = 0; i < kStatisticsParts; ++i) {
        const int begin = (first + i) * kPart, left = columns - begin;
        if (left <= 0) return;  // the whole warp
        const float2 part = part_statistics<T>(eight[i], min(max(left - t * 8, 0), 8), min(left, kPart));
        if (t == 0 && row < p.rows) reinterpret_cast<float2*>(p.statistics + (first + i) * p.apart)[row] = part;
    }
}

static __global__ void __launch_bounds__(32 * kStatisticsWarps)
    row_factors_kernel(const __grid_constant__ StatisticsParams p) {
    const int lane = threadIdx.x % 32, parts = static_cast<int>(p.cols / kPart);
    const int64_t group = int64_t{blockIdx.x} * kStatisticsWarps + threadIdx.x / 32;
    const int64_t groups = (p.rows + kFactorRows - 1) / kFactorRows;  // of each matrix
    const int64_t matrix = group / groups, row = group % groups * kFactorRows + lane % kFactorRows;
    if (matrix >= p.matrices) return;  // the whole warp
    const bool there = row < p.rows;
    const auto part = [&](int g) {
        const float* const from = p.statistics + (matrix * parts + g) * p.apart;
        return there ? reinterpret_cast<const float2*>(from)[row] : make_float2(0.0f, 0.0f);
    };
    RowStatistics sums(part(0), kPart);
#pragma unroll 4
    for (int g = lane / kFactorRows; g < parts; g += 32 / kFactorRows) sums.add(part(g), kPart);
#pragma unroll
    for (int apart = kFactorRows; apart < 32; apart *= 2) sums.join_lanes(apart);
    if (there && lane < kFactorRows)
        p.factors[matrix * p.rows + row] = sums.factors(static_cast<int>(p.cols), p.eps, true).x;
}

}  // namespace ivk::device
