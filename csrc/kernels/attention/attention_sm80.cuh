// Attention without scores in memory: contract in attention.h. A block takes some queries of one head and passes over
// the keys in blocks of 64, the next one on its way by cp.async; scores, probabilities and results stay in registers,
// the sums of one mma being the operand of the next.
#pragma once

#include "device/ptx.cuh"
#include "device/quad.cuh"
#include "kernels/attention/attention.h"
#include "kernels/attention/attention_sm80_shape.cuh"

namespace ivk::device {

constexpr float kLowest = -INFINITY;

struct FlashArgs {
    AttentionBatch p;
    int tiles, group;  // blocks of one head's queries; query heads of a key head
    float scale;       // times log2 e
};

__device__ inline float quad_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, 2));
}
__device__ inline float quad_sum(float v) {
    v += __shfl_xor_sync(0xFFFFFFFFu, v, 1);
    return v + __shfl_xor_sync(0xFFFFFFFFu, v, 2);
}

// A warp's queries.
template <typename T, int kDim>
struct Flash {
    using Shape = FlashShape<kDim>;
    static constexpr int kM = Shape::kM, kSteps = kDim / 16;

    float scale;
    const char* queries;  // in shared memory
    uint32_t held[Shape::kHeld ? kM : 1][Shape::kHeld ? kSteps : 1][4];
    float result[kM][kDim / 8][4] = {}, top[kM][2], sum[kM][2] = {};

    __device__ void load_query(uint32_t (&to)[4], int m, int step) const {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        load_matrices(to, queries + flash_offset<kDim>((warp * kM + m) * 16 + lane % 16, step * 2 + lane / 16));
    }

    __device__ void begin() {
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            top[m][0] = top[m][1] = kLowest;
            if constexpr (Shape::kHeld)
#pragma unroll
                for (int step = 0; step < kSteps; ++step) load_query(held[m][step], m, step);
        }
    }

    // A block of keys of which `left` are there; kTail: fewer than all.
    template <bool kTail>
    __device__ void block(const char* keys, const char* values, int left) {
        const int lane = threadIdx.x % 32;
        float score[kM][kKeys / 8][4] = {};
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
            uint32_t q[kM][4];
#pragma unroll
            for (int m = 0; m < kM; ++m) {
                if constexpr (Shape::kHeld) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) q[m][i] = held[m][step][i];
                } else {
                    load_query(q[m], m, step);
                }
            }
#pragma unroll
            for (int n = 0; n < kKeys / 16; ++n) {
                if (kTail && n * 16 >= left) continue;
                uint32_t k[4];
                load_matrices(k, keys + flash_offset<kDim>(n * 16 + lane % 8 + lane / 16 * 8, step * 2 + lane / 8 % 2));
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    mma<T>(score[m][2 * n], q[m], k[0], k[1]);
                    mma<T>(score[m][2 * n + 1], q[m], k[2], k[3]);
                }
            }
        }
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) soften<kTail>(m, half, left, score);
#pragma unroll
        for (int n = 0; n < kKeys / 16; ++n) {
            if (kTail && n * 16 >= left) continue;
            uint32_t p[kM][4];
#pragma unroll
            for (int m = 0; m < kM; ++m)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float (&s)[4] = score[m][2 * n + i / 2];
                    p[m][i] = close2<T>(s[i % 2 * 2], s[i % 2 * 2 + 1]);
                }
#pragma unroll
            for (int step = 0; step < kSteps; ++step) {
                uint32_t v[4];
                load_transposed(
                    v, values + flash_offset<kDim>(n * 16 + lane / 8 % 2 * 8 + lane % 8, step * 2 + lane / 16));
#pragma unroll
                for (int m = 0; m < kM; ++m) {
                    mma<T>(result[m][2 * step], p[m], v[0], v[1]);
                    mma<T>(result[m][2 * step + 1], p[m], v[2], v[3]);
                }
            }
        }
    }

    // Scores of a row become probabilities below the highest so far; sums and results follow it.
    template <bool kTail>
    __device__ void soften(int m, int half, int left, float (&score)[kM][kKeys / 8][4]) {
        const int column = threadIdx.x % 4 * 2;
        float most = top[m][half];
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float& s = score[m][n][half * 2 + i];
                if (kTail && n * 8 + column + i >= left) s = kLowest;
                most = fmaxf(most, s);
            }
        most = quad_max(most);
        const float base = most == kLowest ? 0.0f : most * scale;  // a row of -Inf alone: no Inf - Inf yet
        const float factor = ex2(fmaf(top[m][half], scale, -base));
        top[m][half] = most;
        float total = 0.0f;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float& s = score[m][n][half * 2 + i];
                s = ex2(fmaf(s, scale, -base));
                total += s;
            }
        sum[m][half] = fmaf(sum[m][half], factor, total);
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) result[m][n][half * 2] *= factor, result[m][n][half * 2 + 1] *= factor;
    }

    // Rows [first, first + 16 kM) of y, of which those before `end` are there.
    template <bool kAligned>
    __device__ void finish(T* y, int64_t stride, int64_t first, int64_t end, int dim) {
        const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float factor = 1.0f / quad_sum(sum[m][half]);
                const int64_t row = first + m * 16 + half * 8 + lane / 4;
#pragma unroll
                for (int group = 0; group < kDim / 32; ++group) {
                    Vector out;
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const float (&r)[4] = result[m][group * 4 + i];
                        out.word[i] = close2<T>(r[half * 2] * factor, r[half * 2 + 1] * factor);
                    }
                    turn_quad(out.word);
                    const int column = group * 32 + t * 8;
                    if (row < end && column < dim)
                        store_vector<T, kAligned>(y + row * stride + column, out, min(dim - column, kLanes<T>));
                }
            }
    }
};

template <typename T, int kDim, bool kAligned>
__global__ void __launch_bounds__(FlashShape<kDim>::kThreads) attention_kernel(const __grid_constant__ FlashArgs a) {
    using Shape = FlashShape<kDim>;
    constexpr int kBlock = kKeys * Shape::kPitch;
    extern __shared__ __align__(128) char shared[];
    const AttentionBatch& p = a.p;
    const int64_t tile = blockIdx.x % a.tiles, pair = blockIdx.x / a.tiles, head = pair % p.heads, b = pair / p.heads;
    const int dim = static_cast<int>(p.dim);
    const T* const q = static_cast<const T*>(p.q) + b * p.of_q.batch + head * p.of_q.head;
    const T* const k = static_cast<const T*>(p.k) + b * p.of_k.batch + head / a.group * p.of_k.head;
    const T* const v = static_cast<const T*>(p.v) + b * p.of_v.batch + head / a.group * p.of_v.head;
    T* const y = static_cast<T*>(p.y) + b * p.of_y.batch + head * p.of_y.head;
    const int64_t first = tile * Shape::kRows, mine = first + threadIdx.x / 32 * Shape::kM * 16;
    const bool works = mine < p.rows;  // else the warp helps with the copies

    char* const stages = shared + Shape::kRows * Shape::kPitch;  // keys and values, twice
    const int rows = static_cast<int>(min(p.rows - first, int64_t{Shape::kRows}));
    const HeadCopy<T, kDim, kKeys, kAligned> copy_keys{k, p.of_k.row, dim}, copy_values{v, p.of_v.row, dim};
    const int count = static_cast<int>(p.keys);
    const auto fetch = [&](int key) {
        char* const to = stages + key / kKeys % 2 * 2 * kBlock;
        copy_keys(to, key, count - key);
        copy_values(to + kBlock, key, count - key);
    };
    HeadCopy<T, kDim, Shape::kRows, kAligned>{q, p.of_q.row, dim}(shared, first, rows);
    fetch(0);
    wait_copies<0>();
    __syncthreads();
    Flash<T, kDim> flash{a.scale, shared};
    flash.begin();
    for (int key = 0; key < count; key += kKeys) {
        if (key > 0) {
            wait_copies<0>();
            __syncthreads();  // this block is there, and all have left the one before it
        }
        if (key + kKeys < count) fetch(key + kKeys);
        const char* const keys = stages + key / kKeys % 2 * 2 * kBlock;
        const int left = min(count - key, kKeys);
        if (!works) continue;
        if (left == kKeys)
            flash.template block<false>(keys, keys + kBlock, left);
        else
            flash.template block<true>(keys, keys + kBlock, left);
    }
    if (works) flash.template finish<kAligned>(y, p.of_y.row, mine, p.rows, dim);
}

}  // namespace ivk::device
