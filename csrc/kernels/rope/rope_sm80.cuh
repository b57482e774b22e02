// Heads of fused qkv rows, normed and rotated on their way to q and the KV cache: contract in rope.h. A block has a
// row; 2^n of its lanes share a head, each with eight elements of the first half and the eight that they turn with.
#pragma once

#include "device/vector.cuh"
#include "kernels/rope/rope.h"

namespace ivk::device {

constexpr int kRopeThreads = 256;

struct RopeArgs {
    RopeParams p;
    int lanes;  // of a head: a power of 2, up to 32
};

template <typename T, bool kNorm, bool kAligned>
__global__ void __launch_bounds__(kRopeThreads) rope_kernel(const __grid_constant__ RopeArgs a) {
    const RopeParams& p = a.p;
    const int64_t row = blockIdx.x;
    const int dim = static_cast<int>(p.head_dim), half = dim / 2;
    const int own = threadIdx.x % a.lanes, column = own * kLanes<T>, n = min(half - column, kLanes<T>);
    const int64_t slot = p.slots != nullptr ? p.slots[row * p.stride_slot] : row;
    const bool kept = 0 <= slot && slot < p.slot_count;

    // Of all heads of the row.
    float cos[kLanes<T>] = {}, sin[kLanes<T>] = {};
    if (n > 0) {
#pragma unroll
        for (int i = 0; i < kLanes<T>; i += 4) {
            const Vector c = load_vector<float, kAligned>(p.cos + row * p.stride_cos + column + i, n - i);
            const Vector s = load_vector<float, kAligned>(p.sin + row * p.stride_sin + column + i, n - i);
#pragma unroll
            for (int j = 0; j < 4; ++j) cos[i + j] = open<float>(c, j), sin[i + j] = open<float>(s, j);
        }
    }

    const int heads = static_cast<int>(p.heads), kv_heads = static_cast<int>(p.kv_heads), all = heads + 2 * kv_heads;
    const int together = kRopeThreads / a.lanes;
    // Whole warps go round, so that lanes of a head meet in its sum.
    for (int first = 0; first < all; first += together) {
        const int head = first + static_cast<int>(threadIdx.x) / a.lanes;
        const bool there = head < all && n > 0;
        const T* const from = static_cast<const T*>(p.qkv) + row * p.stride_qkv + int64_t{head} * dim + column;
        Vector low{}, high{};
        if (there) low = load_vector<T, kAligned>(from, n), high = load_vector<T, kAligned>(from + half, n);
        const bool value = head >= heads + kv_heads, key = head >= heads && !value;
        if constexpr (kNorm) {
            float squares = 0.0f;
#pragma unroll
            for (int i = 0; i < kLanes<T>; ++i) squares = fmaf(open<T>(low, i), open<T>(low, i), squares);
#pragma unroll
            for (int i = 0; i < kLanes<T>; ++i) squares = fmaf(open<T>(high, i), open<T>(high, i), squares);
            for (int distance = a.lanes / 2; distance > 0; distance /= 2)
                squares += __shfl_xor_sync(0xFFFFFFFFu, squares, distance);
            const float factor = 1.0f / sqrtf(squares / static_cast<float>(dim) + p.eps);
            if (there && !value) {
                const T* const weight = static_cast<const T*>(key ? p.k_weight : p.q_weight) + column;
                const Vector w = load_vector<T, kAligned>(weight, n), u = load_vector<T, kAligned>(weight + half, n);
                low = map<T>(low, [&](float x, int i) { return rounded_to<T>(x * factor) * open<T>(w, i); });
                high = map<T>(high, [&](float x, int i) { return rounded_to<T>(x * factor) * open<T>(u, i); });
            }
        }
        if (!there || (head >= heads && !kept)) continue;
        T* to;
        if (head < heads) {
            to = static_cast<T*>(p.q) + (row * heads + head) * dim;
        } else if (key) {
            to = static_cast<T*>(p.k) + slot * p.stride_k + (head - heads) * p.stride_k_head;
        } else {
            to = static_cast<T*>(p.v) + slot * p.stride_v + (head - heads - kv_heads) * p.stride_v_head;
        }
        Vector first_half = low, second_half = high;
        if (!value) {
            first_half = map<T>(low, [&](float x, int i) { return x * cos[i] - open<T>(high, i) * sin[i]; });
            second_half = map<T>(high, [&](float x, int i) { return x * cos[i] + open<T>(low, i) * sin[i]; });
        }
        store_vector<T, kAligned>(to + column, first_half, n);
        store_vector<T, kAligned>(to + column + half, second_half, n);
    }
}

}  // namespace ivk::device
