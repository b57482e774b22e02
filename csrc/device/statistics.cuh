// What a norm needs to know of a row, in parts of 32 columns: of each its sum and its squares about its mean. Parts are
// joined in ascending order, so that bits depend on the row alone, whoever computed the parts.
#pragma once

#include "device/quad.cuh"
#include "device/vector.cuh"

namespace ivk::device {

constexpr int kPart = 32;  // columns

// Of a part that four lanes share: eight neighbours each, of which n are there; count: of all four.
template <typename T>
__device__ inline float2 part_statistics(const Vector& eight, int n, int count) {
    float total = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < 8; ++i) total += i < n ? open<T>(eight, i) : 0.0f;
    total = quad_sum(total);
    const float mean = count == kPart ? total * (1.0f / kPart) : total / static_cast<float>(count);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float d = i < n ? open<T>(eight, i) - mean : 0.0f;
        squares = fmaf(d, d, squares);
    }
    return make_float2(total, quad_sum(squares));
}

// Parts joined: means as distances from the first part's, so that a large common mean costs no digits.
struct RowStatistics {
    float pivot, distance = 0.0f, between = 0.0f, within = 0.0f;

    __device__ RowStatistics(float2 first, int count) : pivot(first.x / static_cast<float>(count)) {}
    __device__ void add(float2 part, int count) {
        const float n = static_cast<float>(count);
        const float d = (count == kPart ? part.x * (1.0f / kPart) : part.x / n) - pivot, weighted = d * n;
        distance += weighted;
        between = fmaf(weighted, d, between);
        within += part.y;
    }
    __device__ void join_lanes(int apart) {  // with the lane that many away
        distance += __shfl_xor_sync(0xFFFFFFFFu, distance, apart);
        between += __shfl_xor_sync(0xFFFFFFFFu, between, apart);
        within += __shfl_xor_sync(0xFFFFFFFFu, within, apart);
    }
    // LayerNorm: (1 / deviation, mean / deviation); RMSNorm: (1 / root of the mean square, 0).
    __device__ float2 factors(int columns, float eps, bool rms) const {
        const float count = static_cast<float>(columns), shift = distance / count, mean = pivot + shift;
        float variance = (within + fmaf(-distance, shift, between)) / count;
        if (variance < 0.0f) variance = 0.0f;  // a NaN stays
        const float factor = 1.0f / sqrtf((rms ? fmaf(mean, mean, variance) : variance) + eps);
        return make_float2(factor, rms ? 0.0f : mean * factor);
    }
};

}  // namespace ivk::device
