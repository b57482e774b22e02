// Attention without scores in memory: contract in attention.h. A block takes some queries of one head and passes over
// the keys in blocks of 64, the next one on its way by cp.async; scores, probabilities and results stay in registers,
// the sums of one mma being the operand of the next.
#pragma once

#include "device/mma.cuh"
#include "device/ptx.cuh"
#include "device/quad.cuh"
#include "kernels/attention/attention.h"

namespace ivk::device {

constexpr int kKeys = 64;  // of a block: from the first key on, whatever the queries
constexpr float kLowest = -INFINITY;

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

struct FlashArgs {
    AttentionBatch p;
    int tiles, group;  // blocks of one head's queries; query heads of a key head
    float scale;       // its size, times log2 e
    bool negative;
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
    bool negative;        // scale is meant below 0
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
        if (negative)
#pragma unroll
            for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
                for (int i = 0; i < 2; ++i) score[m][n][half * 2 + i] = -score[m][n][half * 2 + i];
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
        const float factor = top[m][half] == kLowest ? 0.0f : ex2(fmaf(top[m][half], scale, -base));
        top[m][half] = most;
        float total = 0.0f;
#pragma unroll
        for (int n = 0; n < kKeys / 8; ++n)
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float& s = score[m][n][half * 2 + i];
                s = kTail && n * 8 + column + i >= left ? 0.0f : ex2(fmaf(s, scale, -base));
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
        commit_copies();
    };
    HeadCopy<T, kDim, Shape::kRows, kAligned>{q, p.of_q.row, dim}(shared, first, rows);
    fetch(0);
    wait_copies<0>();
    __syncthreads();
    Flash<T, kDim> flash{a.scale, a.negative, shared};
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
