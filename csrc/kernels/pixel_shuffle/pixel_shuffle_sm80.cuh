// Pixel shuffle kernels: contract in pixel_shuffle.h. A token is gathered from its block of patches into registers,
// normalised there as norm.h does, and written once.
#pragma once

#include "device/divide.cuh"
#include "device/row_norm.cuh"
#include "kernels/pixel_shuffle/pixel_shuffle.h"

namespace ivk::device {

struct ShuffleArgs {
    PixelShuffleParams p;
    int64_t tokens;                              // of all tiles
    int columns;                                 // of a token, f f D
    Divider by_tokens, by_line, by_width, by_f;  // tokens of a tile, tokens of one line of them, D, f
};

// Where the token's block begins in x.
template <typename T>
__device__ inline const T* block_of(const ShuffleArgs& a, int64_t token) {
    const PixelShuffleParams& p = a.p;
    const uint32_t tile = a.by_tokens.quotient(static_cast<uint32_t>(token));
    const uint32_t place = static_cast<uint32_t>(token) - tile * a.by_tokens.divisor;
    const uint32_t line = a.by_line.quotient(place), rest = place - line * a.by_line.divisor;
    const uint32_t R = p.column_major ? rest : line, C = p.column_major ? line : rest;
    return static_cast<const T*>(p.x) + tile * p.stride_tile + (R * p.cols + C) * p.factor * p.stride_patch;
}

template <typename T>
__device__ inline const T* element_of(const ShuffleArgs& a, const T* block, int column) {
    const uint32_t chunk = a.by_width.quotient(column), offset = column - chunk * a.by_width.divisor;
    const uint32_t r = a.by_f.quotient(chunk), c = chunk - r * a.by_f.divisor;
    return block + (r * a.p.cols + c) * a.p.stride_patch + offset;
}

// A vector of the token. kAligned: D is a multiple of a vector, which then lies inside one patch.
template <typename T, bool kAligned>
__device__ inline Vector gather(const ShuffleArgs& a, const T* block, int column, int n) {
    if constexpr (kAligned) return load_vector<T, true>(element_of(a, block, column), n);
    Vector v{};
#pragma unroll
    for (int i = 0; i < kLanes<T>; ++i) {
        if (i >= n) continue;
        const Vector one = load_vector<T, false>(element_of(a, block, column + i), 1);
        if constexpr (sizeof(T) == 4)
            v.word[i] = one.word[0];
        else
            v.word[i / 2] |= one.word[0] << (16 * (i % 2));
    }
    return v;
}

// weight, bias and y are of Y.
template <typename T, typename Y, typename Group, bool kAligned, bool kLong>
__global__ void __launch_bounds__(Group::kBlock ? kMostThreads : 32 * kRowsOfBlock)
    pixel_shuffle_norm_kernel(const __grid_constant__ ShuffleArgs a) {
    const int64_t token = Group::kBlock ? blockIdx.x : int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / 32;
    if (token >= a.tokens) return;  // a whole warp, and only where tokens are warps
    const T* block = block_of<T>(a, token);
    Y* y = static_cast<Y*>(a.p.y) + token * a.columns;
    Vector held[kLong ? 1 : kRegisterVectors] = {};
    if constexpr (!kLong)
        for_vectors<T, Group, kAligned, kLong>(
            a.columns, [&](int k, int column, int n) { held[k] = gather<T, kAligned>(a, block, column, n); });
    norm_row<T, Y, Group, kAligned, kLong>(
        RowNorm{a.p.weight, a.p.bias, a.p.eps, a.columns, false}, y,
        [&](int k, int column, int n) { return kLong ? gather<T, kAligned>(a, block, column, n) : held[k]; });
}

// Without weight the bits are moved as they are; T is uint16_t or uint32_t. One block per token.
template <typename T, bool kAligned>
__global__ void __launch_bounds__(256) pixel_shuffle_copy_kernel(const __grid_constant__ ShuffleArgs a) {
    constexpr int kAtOnce = 4;
    const int64_t token = blockIdx.x;
    const T* block = block_of<T>(a, token);
    T* y = static_cast<T*>(a.p.y) + token * a.columns;
    const int step = blockDim.x * kLanes<T>;
    for (int first = threadIdx.x * kLanes<T>; first < a.columns; first += kAtOnce * step) {
        Vector held[kAtOnce] = {};
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
            const int column = first + k * step;
            if (column < a.columns) held[k] = gather<T, kAligned>(a, block, column, min(kLanes<T>, a.columns - column));
        }
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
            const int column = first + k * step;
            if (column < a.columns) store_vector<T, kAligned>(y + column, held[k], min(kLanes<T>, a.columns - column));
        }
    }
}

}  // namespace ivk::device
